r"""cron: one block between two marker lines of the user's own table.

The table is replaced whole, as cron wants it: read, change our block, write, read again, compare.
Every other line stays byte for byte. cron makes up no night, whether the machine was off or asleep. So
the second line of the block asks every hour, half an hour beside the time of the first one, whether
the night has been; that costs the start of a Python. (`@reboot` would not do: not every cron has
it, and a machine that wakes up has not started.) In a line of cron `%` ends the command, so it is
written `\%`. Tried with Debian's cron 3.0.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from preflight.errors import TryLater, Unverified, UsageProblem
from preflight.integrations.interface import Condition, Found, Nightly, Place, Scheduler, Step, Time
from preflight.integrations.machine import Machine, command_faults, ended_well
from preflight.integrations.marks import UNSIGNED, condition_of, signed
from preflight.integrations.owned_files import WriteFile

__all__ = ["Cron"]

_BLOCK = f"""\
# begin {UNSIGNED}
@MINUTE@ @HOUR@ * * * @COMMAND@
@ASKING@ * * * * @COMMAND@ --if-missed @TIME@
# end codex-preflight
"""
_BEGIN, _END = b"# begin codex-preflight hook,", b"# end codex-preflight"
# From our first marker to the next closing one, or to the end of the table when somebody took that away.
_OURS = re.compile(rb"^%b.*?(?:^%b[^\S\n]*(?:\n|\Z)|\Z)" % (_BEGIN, _END), re.MULTILINE | re.DOTALL)
_DAEMONS = ("cron", "crond")
_NO_TABLE = (b"no crontab for", b"No such file or directory")


class Cron(Scheduler):
    name: ClassVar[str] = "cron"
    program: ClassVar[str] = "crontab"

    def places(self, nightly: Nightly) -> tuple[Place, ...]:
        return (Place(where="crontab -e", content=_block(nightly)),)

    def look(self) -> Found:
        if not self.available:
            return Found(condition=Condition.NOTHING)
        blocks = _OURS.findall(_read_table(self.machine))
        if not blocks:
            return Found(condition=Condition.NOTHING)
        text = blocks[0].decode("utf-8", "surrogateescape")
        condition = condition_of(text) if len(blocks) == 1 else Condition.EDITED
        if condition is Condition.FOREIGN:  # the words of the marker were changed, not only what is below it
            condition = Condition.EDITED
        nightly = _read(text)
        faults = command_faults(self.machine, nightly.command) if nightly is not None else ()
        seen = any(self.machine.is_running(name) for name in _DAEMONS)
        notes = () if seen else ("no cron was seen at work on this machine; without one nothing in a crontab happens",)
        return Found(condition=condition, nightly=nightly, faults=faults, notes=notes)

    def steps_to_install(self, nightly: Nightly) -> Sequence[Step]:
        table = _read_table(self.machine)
        block = _block(nightly)
        if not _OURS.search(table):
            gap = b"" if not table or table.endswith(b"\n") else b"\n"
            return [ReplaceTable(table, table + gap + block)]
        return [*self._keep_edited(table), ReplaceTable(table, _with_block(table, block))]

    def steps_to_uninstall(self) -> Sequence[Step]:
        table = _read_table(self.machine) if self.available else b""
        if not _OURS.search(table):
            return []
        return [*self._keep_edited(table), ReplaceTable(table, _with_block(table, b""))]

    def _keep_edited(self, table: bytes) -> list[Step]:
        if self.look().condition is not Condition.EDITED:
            return []
        kept = self.machine.folder / "crontab.orig"
        if kept.exists():
            raise UsageProblem(f"there is a file {kept} already", path=kept, hint="move it away and try again")
        return [WriteFile(kept, table)]


@dataclass(frozen=True, slots=True)
class ReplaceTable:
    """`before` is the table that `after` was made from."""

    before: bytes
    after: bytes

    def perform(self, machine: Machine) -> None:
        """Raises TryLater when the table has changed meanwhile, Unverified when it is not `after` afterwards.

        Against somebody who writes their table between our reading and our writing there is no lock:
        whoever writes last wins. So the two stand side by side, and the reading afterwards tells when
        we have lost.
        """
        # cron reads the tables again when the date of their folder has changed, in whole seconds (Debian's 3.0,
        # measured). Were ours written in the second of the change that cron has read last, cron would keep the older
        # table until the next change. Whatever `before` holds was there in an earlier second than the one we write in.
        machine.wait_for_next_second()
        if _read_table(machine) != self.before:
            raise TryLater("somebody else has just changed the crontab", hint="try again")
        if self.after.strip():
            argv = ("crontab", "-")
            ended_well(machine.run(argv, stdin=self.after), argv)
        elif self.before.strip():
            ended_well(machine.run(("crontab", "-r")), ("crontab", "-r"))
        if _read_table(machine).strip() != self.after.strip():
            raise Unverified("the crontab is not what was written", hint="crontab -l")

    def told(self) -> Mapping[str, object]:
        return {"do": "run", "argv": ["crontab", "-"], "removed": _told(self.before), "added": _told(self.after)}


def _told(table: bytes) -> list[str]:
    """Our own lines of the table, and nobody else's."""
    return [line for block in _OURS.findall(table) for line in block.decode(errors="backslashreplace").splitlines()]


def _read_table(machine: Machine) -> bytes:
    """The user's table; empty when there is none. Raises SchedulerRefused for anything else."""
    argv = ("crontab", "-l")
    ended = machine.run(argv)
    if ended.returncode == 1 and any(words in ended.stderr for words in _NO_TABLE):
        return b""
    return ended_well(ended, argv).stdout


def _with_block(table: bytes, block: bytes) -> bytes:
    """The table with `block` where our first block was, and without any other one of ours."""
    start = _OURS.search(table)
    if start is None:
        return table + block
    for each in _OURS.findall(table):
        if each.count(_BEGIN) != 1 or _END not in each:
            # Without its end nobody can tell our lines from those that follow.
            raise UsageProblem(f"our block in the crontab has lost its last line, {_END.decode()!r}", hint="crontab -e")
    return table[: start.start()] + block + _OURS.sub(b"", table[start.end() :])


def _block(nightly: Nightly) -> bytes:
    at = nightly.at
    for word in nightly.command:
        if not word.isprintable():
            raise UsageProblem(f"cron cannot take the word {word!r}")
    # The command last: whatever a path of the user's holds, it is not looked at again.
    words = {"@MINUTE@": at.minute, "@HOUR@": at.hour, "@ASKING@": (at.minute + 30) % 60, "@TIME@": at}
    text = _BLOCK
    for word, value in words.items():
        text = text.replace(word, str(value))
    return signed(text.replace("@COMMAND@", shlex.join(nightly.command).replace("%", "\\%"))).encode()


def _read(block: str) -> Nightly | None:
    """What `_block` was given, from what it made; None where somebody has changed it too much."""
    line = re.search(r"^(\d+) (\d+) \* \* \* (.+)$", block, re.MULTILINE)
    if line is None:
        return None
    try:
        command = shlex.split(line[3].replace("\\%", "%"))
    except ValueError:
        return None
    return Nightly(command=tuple(command), at=Time(int(line[2]), int(line[1])))
