"""Progress on stderr: one line that is written over for a person, a line each ten seconds for a log."""

from __future__ import annotations

from preflight.report.progress import Progress


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def shown(*, on_terminal: bool) -> tuple[Progress, Clock, list[str]]:
    lines: list[str] = []
    clock = Clock()
    over = (lambda line: lines.append(f"over:{line}")) if on_terminal else None
    return Progress(lines.append, over, clock), clock, lines


def test_a_log_has_a_line_each_ten_seconds_with_rate_and_time_left() -> None:
    progress, clock, lines = shown(on_terminal=False)
    for second in range(31):
        clock.now = 100.0 + second
        progress.moved("copied", second * 10**8, 6 * 10**9)
    assert lines == [
        "1.00 GB of 6.00 GB copied (16 %), 100 MB/s, 50 s left",
        "2.00 GB of 6.00 GB copied (33 %), 100 MB/s, 40 s left",
        "3.00 GB of 6.00 GB copied (50 %), 100 MB/s, 30 s left",
    ]


def test_on_a_terminal_the_line_is_written_over_and_gone_before_the_next_sentence() -> None:
    progress, clock, lines = shown(on_terminal=True)
    progress.moved("copied", 0, 100)
    clock.now += 1
    progress.moved("copied", 50, 100)
    progress.say("verifying")
    progress.end()
    assert lines == ["over:50 B of 100 B copied (50 %), 50 B/s, 1 s left", "over:", "verifying"]


def test_another_work_begins_its_own_time() -> None:
    progress, clock, lines = shown(on_terminal=False)
    progress.moved("copied", 0, 10)
    clock.now += 60
    progress.moved("archived", 0, 10**9)
    clock.now += 10
    progress.moved("archived", 10**7, 10**9)
    assert lines == ["10.0 MB of 1.00 GB archived (1 %), 1.00 MB/s, 16 min left"]


def test_the_next_file_of_the_same_work_keeps_the_rate() -> None:
    progress, clock, lines = shown(on_terminal=False)
    for _ in range(3):  # three files of 40 MB in four seconds each: none is told while it is read
        for second in range(4):
            progress.moved("archived", second * 10**7, 4 * 10**7)
            clock.now += 1
    progress.moved("archived", 0, 4 * 10**7)
    progress.moved("archived", 10**6, 4 * 10**7)
    assert lines == ["20.0 MB of 40.0 MB archived (50 %), 8.00 MB/s, 2 s left"]


def test_hours_are_told_as_hours_and_an_unknown_rate_as_nothing() -> None:
    progress, clock, lines = shown(on_terminal=False)
    progress.moved("copied", 0, 10**12)
    clock.now += 10
    progress.moved("copied", 0, 10**12)
    clock.now += 10
    progress.moved("copied", 10**9, 10**12)
    assert lines[0] == "0 B of 1000 GB copied (0 %), 0 B/s" or lines[0].startswith("0 B of 1.00 TB copied (0 %), 0 B/s")
    assert "left" not in lines[0]
    assert lines[1].endswith("5 h 33 min left")
