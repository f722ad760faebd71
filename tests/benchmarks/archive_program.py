"""The archive as a program of its own, with no imports but its own: what the other programs are compared with.

    archive_program.py append STORE ROLLOUT PROOF | verify STORE ROLLOUT | restore STORE ROLLOUT TARGET

Ends with an error unless all of it was done and nothing is damaged.
"""

from __future__ import annotations

import sys
from pathlib import Path

from preflight.checkpoint.archive import Archive, Proof
from preflight.system.deadline import Deadline


def main(verb: str, store: str, rollout: str, *more: str) -> None:
    archive, source = Archive(Path(store)), Path(rollout)
    length = source.stat().st_size
    if verb == "append":
        done = archive.append(source, end=length, prove=Proof(more[0]), deadline=Deadline(None))
        assert done.complete
        assert not done.rewritten
    elif verb == "verify":
        assert not archive.verify(source.name, 1, deadline=Deadline(None)).damage
    else:
        from preflight.system import files

        with files.publishing(Path(more[0])) as target:
            archive.read(source.name, 1, length, target)


main(*sys.argv[1:])
