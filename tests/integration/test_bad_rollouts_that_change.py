"""A rollout that grows, shrinks, is replaced, moved or deleted while a run reads it, at every single reading.

The moment is chosen by watching the reads of the file; what happens to it then is what another process
would do: a real file is changed under the reader.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from tests.codex_oracle import model_view
from tests.second_process import second_process
from tests.troubled_home import PATIENT, SOUND, make_troubled_home

ADDED = (
    b'{"timestamp":"2026-05-30T09:07:00.000Z","type":"response_item","payload":{"type":"message","role":"assistant",'
    b'"content":[{"type":"output_text","text":"One more."}]}}\n'
)


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(ADDED)


def grow_by_half_a_line(path: Path) -> None:
    with path.open("ab") as file:
        file.write(ADDED[:50])


def shrink_to_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def shrink_to_nothing(path: Path) -> None:
    os.truncate(path, 0)


def shrink_by_a_line(path: Path) -> None:
    os.truncate(path, path.read_bytes().rindex(b"\n", 0, -1) + 1)


def replace_by_another_of_its_length(path: Path) -> None:
    """As an editor or a restore does it: a new file takes the name, the reader keeps the old one."""
    new = path.with_name("restored")
    new.write_bytes(path.read_bytes().replace(b"Please look around.", b"Please stay at home"))
    new.replace(path)


def delete(path: Path) -> None:
    path.unlink()


def archive(path: Path) -> None:
    path.rename(path.parents[4] / "archived_sessions" / path.name)


#: What happens, at each how-many-th reading it is tried, and how the runs end: 12 whenever it was noticed half-way.
# A change that is met only when the checkpoint is proved and the archive is written is a warning.
CHANGES = (
    (grow, 3, {0}),
    (grow_by_half_a_line, 3, {0, 3}),
    (shrink_to_half, 1, {0, 3, 12}),
    (shrink_to_nothing, 3, {0, 10, 12}),
    (shrink_by_a_line, 3, {0, 3, 12}),
    (replace_by_another_of_its_length, 1, {0, 12}),
    (delete, 3, {0, 10, 12}),
    (archive, 3, {0, 3, 12}),
)


class Watched:
    """Does something just before the n-th time that a file is opened or read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: Path, moment: int, act: Callable[[Path], None]) -> None:
        self._path, self._act, self._left = path, act, moment
        facts = path.stat()
        self._file = (facts.st_dev, facts.st_ino)
        self.happened = False
        for place, name in ((os, "open"), (os, "preadv"), (Path, "open")):
            monkeypatch.setattr(place, name, self._watching(getattr(place, name)))

    def _watching(self, real: Callable[..., object]) -> Callable[..., object]:
        def watching(target: object, *arguments: object, **named: object) -> object:
            if not self.happened and self._is_it(target):
                self._left -= 1
                if self._left == 0:
                    self.happened = True
                    self._act(self._path)
            return real(target, *arguments, **named)

        return watching

    def _is_it(self, target: object) -> bool:
        if isinstance(target, int):
            facts = os.fstat(target)
            return (facts.st_dev, facts.st_ino) == self._file
        return os.fspath(target) == os.fspath(self._path)  # type: ignore[call-overload]


@pytest.mark.parametrize(("change", "stride", "ends"), CHANGES, ids=[change.__name__ for change, _, _ in CHANGES])
def test_whatever_happens_to_a_rollout_while_it_is_read(
    tmp_path: Path,
    change: Callable[[Path], None],
    stride: int,
    ends: set[int],
    user: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", str(user))
    codes = set()
    for moment in count(1, stride):
        home = make_troubled_home(tmp_path / str(moment))
        path = home.rollouts[PATIENT]
        before, goals = path.read_bytes(), home.goals()
        others = {name: digest for name, digest in home.digests().items() if PATIENT not in name}

        with pytest.MonkeyPatch.context() as watching:
            watched = Watched(watching, path, moment, change)
            answer = home.call("run")

        codes.add(answer.code)
        assert others == {name: digest for name, digest in home.digests().items() if PATIENT not in name}
        assert answer.findings(SOUND) == {}
        home.checkpoint_of(SOUND, answer)
        if answer.verdict == "block":
            assert answer.findings(PATIENT)
            assert home.goals() == goals
        else:
            # The copy is what the rollout was at one moment: never a mixture of two.
            views = [model_view(before), *([model_view(path.read_bytes())] if path.exists() else [])]
            (copy,) = Path(answer.data["checkpoint"]["path"]).glob(f"threads/{PATIENT}/*")
            assert model_view(copy.read_bytes()) in views
        if not watched.happened:
            break
    assert moment > 20, "the file is read at fewer moments than it used to be: is it still watched?"
    assert codes == ends


WRITING_ON = """
line = sys.argv[2].encode()
with open(sys.argv[1], "ab", buffering=0) as file:
    file.write(line)
    say("ready")
    while True:
        file.write(line)
        time.sleep(0.01)
"""


def test_a_rollout_that_another_process_goes_on_writing_blocks_and_its_checkpoint_is_whole_lines(
    tmp_path: Path, user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(user))
    home = make_troubled_home(tmp_path)
    path, goals = home.rollouts[PATIENT], home.goals()
    before = path.read_bytes()
    with second_process(WRITING_ON, path, ADDED.decode()):
        answer = home.call("run", "--wait", "1")
    assert (answer.code, answer.findings().keys()) == (10, {"goal-not-paused"})
    assert "stop growing" in answer.findings(PATIENT)["goal-not-paused"]["cause"]
    assert home.goals() == goals
    assert path.read_bytes().startswith(before)
    for thread_id in (SOUND, PATIENT):
        home.checkpoint_of(thread_id, answer)
