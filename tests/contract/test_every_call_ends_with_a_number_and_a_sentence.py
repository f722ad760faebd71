"""However a verb ends, the caller gets one exit code and one answer, and a person never a traceback.

The verb is the real `check` or `run` behind the real command line; the gate behind it is replaced in
the child process by a few lines that end in the way the test is about.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from preflight import errors

ROOT = Path(__file__).resolve().parents[2]
Spawn = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def spawn(user: Path) -> Spawn:
    """Starts `preflight ARGUMENTS` with a gate whose verbs all do `body`; `request` is theirs to use."""

    def start(body: str, *arguments: str, **settings: object) -> subprocess.Popen[str]:
        program = "import os, sys, time\nfrom preflight import cli, errors, gate, model\n"
        program += "def verb(request):\n" + textwrap.indent(textwrap.dedent(body).strip("\n"), "    ") + "\n"
        program += "gate.check = gate.run = gate.finish = verb\nsys.exit(cli.main(sys.argv[1:]))\n"
        return subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            **{"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **settings},
        )

    return start


def end(child: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = child.communicate(timeout=60)
    return child.returncode, out, err


ERRORS = [
    errors.Locked("another preflight is at work", hint="preflight list"),
    errors.Unverified("the checkpoint could not be read back"),
    errors.UnknownSchema("the goals database has columns that nobody knows"),
    errors.DatabaseBusy("the goals database was locked for 60 s"),
    errors.UsageProblem("there is no thread x", hint="preflight check --json"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.code)
def test_an_error_becomes_its_exit_code_and_its_sentence(spawn: Spawn, error: errors.PreflightError) -> None:
    body = f"raise errors.{type(error).__name__}({error.message!r}, hint={error.hint!r})"
    code, out, err = end(spawn(body, "run"))
    assert (code, out) == (error.exit_code, "")
    assert error.message in err
    assert "Do not install the update now." in err
    assert (f"next: {error.hint}" in err) == (error.hint is not None)

    code, out, err = end(spawn(body, "run", "--json"))
    envelope = json.loads(out)
    assert (code, err) == (error.exit_code, "")
    assert envelope["errors"] == [{"code": error.code, "message": error.message, "hint": error.hint}]
    assert (envelope["verdict"], envelope["exit_code"]) == ("block", error.exit_code)


def test_an_error_about_a_file_names_it_once(spawn: Spawn) -> None:
    for message in ("the store cannot be read", "/srv/store cannot be read"):
        body = f"from pathlib import Path\nraise errors.StoreRefused({message!r}, path=Path('/srv/store'))"
        assert end(spawn(body, "run"))[2].count("/srv/store") == 1


@pytest.mark.parametrize(
    ("verdict", "arguments", "expected"),
    [
        ("PROCEED", ["check"], 0),
        ("WARN", ["check"], 3),
        ("WARN", ["check", "--warnings-as-ok"], 0),
        ("BLOCK", ["check", "--warnings-as-ok"], 10),
        ("WARN", ["run", "--warnings-as-ok"], 0),
    ],
)
def test_a_verdict_becomes_its_exit_code(spawn: Spawn, verdict: str, arguments: list[str], expected: int) -> None:
    body = f"return model.Result(command='check', verdict=model.Verdict.{verdict})"
    code, out, err = end(spawn(body, *arguments))
    assert (code, err) == (expected, "")
    assert out.startswith(f"{verdict}: ")
    envelope = json.loads(end(spawn(body, *arguments, "--json"))[1])
    assert (envelope["verdict"], envelope["exit_code"]) == (verdict.lower(), expected)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_unwinds_in_order_and_says_so(spawn: Spawn, tmp_path: Path, number: signal.Signals) -> None:
    witness = tmp_path / "witness"
    child = spawn(
        f"""
        try:
            print("ready", file=sys.stderr, flush=True)
            time.sleep(60)
        finally:
            os.kill(os.getpid(), {int(number)})  # impatience: a second one must not stop the putting back
            open({str(witness)!r}, "w").write("put back")
        """,
        "run",
    )
    assert child.stderr is not None
    assert child.stderr.readline() == "ready\n"
    child.send_signal(number)
    code, out, err = end(child)
    assert (code, out) == (128 + number, "")
    assert witness.read_text() == "put back"
    assert f"STOPPED: stopped by {number.name} before the work was done" in err
    assert "already stopping" in err
    assert "next: preflight resume-goals" in err
    assert "Traceback" not in err


def test_a_signal_is_one_json_object_too(spawn: Spawn) -> None:
    child = spawn("os.kill(os.getpid(), 15)\ntime.sleep(60)", "run", "--json")
    code, out, err = end(child)
    assert (code, err) == (143, "")
    assert json.loads(out)["errors"][0]["code"] == "stopped"


def test_a_signal_that_the_caller_ignores_stays_ignored(spawn: Spawn) -> None:
    child = spawn(
        "os.kill(os.getpid(), 1)\nreturn model.Result(command='run', verdict=model.Verdict.PROCEED)",
        "run",
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    assert end(child)[0] == 0


FAULTS = {
    "raises": "raise RuntimeError('boom')",
    "exits": "sys.exit(0)",
    "returns nothing": "return None",
    "returns zero": "return 0",
    "cannot be rendered": "return model.Result(command='check', data={'x': object()})",
    "closes a pipe of its own": "raise BrokenPipeError(32, 'app-server went away')",
    "runs out of stack": "return verb(request)",
}


@pytest.mark.parametrize("body", FAULTS.values(), ids=FAULTS)
def test_a_fault_of_ours_is_kept_in_a_file_and_never_shown(spawn: Spawn, user: Path, body: str) -> None:
    code, out, err = end(spawn(body, "check", "--json"))
    assert (code, err) == (1, "")
    message = json.loads(out)["errors"][0]["message"]
    (kept,) = (user / ".local/state/codex-preflight/crashes").iterdir()
    assert message.endswith(f"; what happened is written down in {kept}")
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert "Traceback" in kept.read_text()
    assert "preflight check --json" in kept.read_text()


def test_a_fault_is_told_in_sentences(spawn: Spawn, user: Path) -> None:
    code, out, err = end(spawn("raise RuntimeError('boom')", "run"))
    assert (code, out) == (1, "")
    assert err.startswith("INTERNAL ERROR: a fault of preflight itself ended the call (RuntimeError)")
    assert err.endswith("next: preflight resume-goals\n")
    assert "Traceback" not in err
    assert "boom" not in err


def test_a_fault_is_kept_elsewhere_when_the_state_folder_cannot_be_used(spawn: Spawn, user: Path) -> None:
    (user / ".local").write_text("a file where a folder should be")
    scratch = user / "tmp"
    scratch.mkdir()
    child = spawn("raise RuntimeError('boom')", "check", env={**os.environ, "TMPDIR": str(scratch)})
    code, _, err = end(child)
    (kept,) = scratch.iterdir()
    assert code == 1
    assert kept.name in "".join(err.split())
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_a_report_is_kept_where_the_store_has_its_reports(spawn: Spawn, tmp_path: Path) -> None:
    body = f"from pathlib import Path\nreturn model.Result(command='run', keep_in=(Path({str(tmp_path)!r}),))"
    code, _, err = end(spawn(body, "run", "--json"))
    assert (code, err) == (0, "")
    (kept,) = tmp_path.glob("*.json")
    assert json.loads(kept.read_text())["command"] == "run"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_a_report_that_cannot_be_kept_is_told_and_changes_no_verdict(spawn: Spawn, tmp_path: Path) -> None:
    body = f"""
        from pathlib import Path
        return model.Result(command="run", verdict=model.Verdict.WARN, keep_in=(Path({str(tmp_path / "gone")!r}),))
        """
    code, out, err = end(spawn(body, "run"))
    assert code == 3
    assert out.startswith("WARN: ")
    assert err.startswith("the report could not be kept in the store: ")


PROCEED = "return model.Result(command='run', verdict=model.Verdict.PROCEED, data={'x': 'y' * 200_000})"


def test_an_answer_that_nobody_reads_to_the_end_is_no_yes(spawn: Spawn) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    child = spawn(PROCEED, "run", stdout=writer)
    os.close(writer)
    code, _, err = end(child)
    assert (code, err) == (141, "Goals that were paused stay paused until: preflight resume-goals\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_an_answer_that_cannot_be_written_is_no_yes(spawn: Spawn) -> None:
    with Path("/dev/full").open("w") as full:
        code, _, err = end(spawn(PROCEED, "run", stdout=full))
    assert code == 1
    assert err.startswith("the answer could not be written to stdout: No space left on device\n")


def test_streams_that_the_caller_closed_are_no_databases(spawn: Spawn, tmp_path: Path) -> None:
    witness = tmp_path / "first-file"

    def close_all() -> None:
        for descriptor in (0, 1, 2):
            os.close(descriptor)

    body = f"""
        file = os.open({str(witness)!r}, os.O_WRONLY | os.O_CREAT)
        os.write(file, str(file).encode())
        request.progress("to nobody")
        return model.Result(command="run", verdict=model.Verdict.WARN)
        """
    child = spawn(body, "run", stdout=None, stderr=None, preexec_fn=close_all)
    assert end(child)[0] == 3
    assert int(witness.read_text()) > 2


def test_progress_goes_to_stderr_and_its_loss_stops_nothing(spawn: Spawn) -> None:
    body = """
        print("a library speaks up")
        for number in range(3):
            request.progress(f"step {number}")
        return model.Result(command="run", verdict=model.Verdict.PROCEED)
        """
    steps = "step 0\nstep 1\nstep 2\n"
    answer = "PROCEED: The update can be installed now.\n"
    assert end(spawn(body, "run")) == (0, answer, steps)
    assert end(spawn(body, "-q", "run")) == (0, answer, "")
    assert end(spawn(body, "run", "--json"))[2] == ""
    assert end(spawn(body, "run", "--json", "-v"))[2] == steps

    reader, writer = os.pipe()
    os.close(reader)
    child = spawn(body, "run", stderr=writer)
    os.close(writer)
    assert end(child) == (0, answer, None)


@pytest.mark.parametrize(
    ("arguments", "env", "terminal", "painted"),
    [
        ([], {}, False, False),
        ([], {"TERM": "xterm"}, True, True),
        ([], {"TERM": "dumb"}, True, False),
        ([], {"TERM": "xterm", "NO_COLOR": "1"}, True, False),
        (["--color", "never"], {"TERM": "xterm"}, True, False),
        (["--color", "always"], {"NO_COLOR": "1"}, False, True),
    ],
)
def test_colour_is_for_terminals_unless_asked_for(
    spawn: Spawn, arguments: list[str], env: dict[str, str], terminal: bool, painted: bool
) -> None:
    reader, writer = os.openpty() if terminal else os.pipe()
    body = "return model.Result(command='check', verdict=model.Verdict.PROCEED)"
    child = spawn(body, "check", *arguments, stdout=writer, env={**os.environ, **env})
    assert end(child)[0] == 0
    assert (b"\x1b[" in os.read(reader, 10_000)) is painted
    os.close(reader)
    os.close(writer)
