"""Progress: what a person sees of a run in a terminal, and what a log file holds of it."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import select
import struct
import subprocess
import termios
import threading
import time
from pathlib import Path

import pytest
from corpora import cli_command, write_rows

from corpusmith.pipelines import progress as module
from corpusmith.pipelines.progress import Progress, drops_of, duration
from corpusmith.pipelines.units import StepStats

STATS = {
    "": StepStats(time_s=3.0),
    "text": StepStats(rows_in=100, rows_out=100),
    "download": StepStats(rows_in=100, rows_out=70, failed=30, reused=20),
    "keep": StepStats(rows_in=70, rows_out=60, rejected=10),
}
STEPS = ["text", "download", "keep", "image"]


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def after(progress: Progress, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the clock of the phase run on."""
    now = time.monotonic()
    monkeypatch.setattr(module.time, "monotonic", lambda: now + seconds)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (18120, "5 h 02 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_drops() -> None:
    assert drops_of(STATS) == 40


def test_a_log_has_a_line_for_a_phase_with_all_its_steps() -> None:
    log = io.StringIO()
    progress = Progress(log)
    progress.say("reading input")
    progress.start("stream 1 of 2", 200, steps=STEPS)
    progress.advance(100, drops_of(STATS), STATS)
    progress.advance(100, drops_of(STATS), STATS)
    progress.end()
    first, line = log.getvalue().splitlines()
    assert first == "reading input"
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d stream 1 of 2: 200 of 200 rows \(100%\), [\d,]+/s, took \d\.\d s, 80 dropped"
        r" \| text 200 \| download 200 → 140 \(60 failed, 40 reused\) \| keep 140 → 120",
        line,
    )


def test_a_log_is_told_on_while_a_phase_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINE_EVERY_S", 0.05)
    log = io.StringIO()
    progress = Progress(log)
    progress.start("fake_top", 5000)
    deadline = time.monotonic() + 5
    while log.getvalue().count("\n") < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    progress.close()
    lines = log.getvalue().splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d fake_top: 5,000 rows, \d\.\d s so far", lines[0])
    assert "\x1b" not in log.getvalue(), "a log file holds no control characters"
    assert not [t for t in threading.enumerate() if t.name == "progress"]
    time.sleep(0.1)
    assert log.getvalue().splitlines() == lines, "a phase that was left says nothing more"


def test_time_left_and_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    progress = Progress(log)
    progress.start("stream 1 of 1", 1000)
    after(progress, 10, monkeypatch)
    progress.advance(100)
    progress._tell()
    progress.close()
    assert "100 of 1,000 rows (10%), 10/s, 1 min 30 s left" in log.getvalue()


def test_the_rate_is_that_of_the_last_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Published rows pass at once; how long the others take is what a person wants to know."""
    log = io.StringIO()
    progress = Progress(log)
    progress.start("stream 1 of 1", 10_000)
    start = time.monotonic()
    for second, done in ((1, 9000), (30, 0), (61, 20), (90, 20), (120, 20), (150, 20)):
        monkeypatch.setattr(module.time, "monotonic", lambda at=start + second: at)
        progress.advance(done)
    progress._tell()
    progress.close()
    assert "9,080 of 10,000 rows (91%), 1/s, 15 min 20 s left" in log.getvalue()


def test_an_empty_phase_ends_whole() -> None:
    log = io.StringIO()
    progress = Progress(log)
    progress.start("shards", 0, "samples")
    progress.end()
    assert "shards: 0 of 0 samples (100%)" in log.getvalue()


def test_quiet_is_quiet() -> None:
    log = io.StringIO()
    with Progress(log, quiet=True) as progress:
        progress.say("x")
        progress.start("stream 1 of 1", 10)
        progress.advance(10)
        progress.end()
    assert log.getvalue() == ""


def test_an_error_in_a_phase_leaves_the_terminal_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    with pytest.raises(KeyboardInterrupt), Progress(terminal) as progress:
        progress.start("stream 1 of 1", 10, steps=STEPS)
        progress.advance(4, 0, STATS)
        raise KeyboardInterrupt
    text = terminal.getvalue()
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1, "the cursor is back"
    assert "4 of 10 rows (40%)" in text


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    terminal = Terminal()
    progress = Progress(terminal)
    progress.start("stream 1 of 1", 10)
    progress.end()
    assert "\x1b" not in terminal.getvalue()


def run_in_terminal(command: list[str], folder: Path, columns: int) -> tuple[str, str]:
    """Run a command with stderr on a pseudo terminal; returns what came out there and on stdout."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    env = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")} | {
        "TERM": "xterm-256color"
    }
    process = subprocess.Popen(command, stdin=slave, stdout=subprocess.PIPE, stderr=slave, env=env, cwd=folder)
    os.close(slave)
    seen = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        ready, _, _ = select.select([master], [], [], 0.2)
        try:
            piece = os.read(master, 1 << 16) if ready else None
        except OSError:  # the other end is closed
            break
        if piece == b"" or (piece is None and process.poll() is not None):
            break
        seen += piece or b""
    os.close(master)
    assert process.stdout is not None
    out = process.stdout.read().decode()
    assert process.wait(10) == 0, seen.decode()
    return seen.decode(), out


def test_a_run_in_a_terminal_shows_its_steps_live(tmp_path: Path) -> None:
    write_rows(tmp_path / "urls.parquet", range(600), url=lambda i: f"http://web/{'fail' if i % 10 == 3 else 'ok'}/{i}")
    steps = "steps: [{fake_score: {sleep_s: 0.002}}, {keep: score >= 300}, {fake_moody: {}}]"
    (tmp_path / "tiny.yaml").write_text(f"corpus: tiny\ninput: {{path: urls.parquet}}\n{steps}\n")
    command = cli_command("run", "tiny.yaml", "--executor", "inline", "--cpus", "1")
    seen, out = run_in_terminal(command, tmp_path, columns=90)
    assert "of 600 rows kept" in out
    assert "\x1b" not in out
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen)
    frames = re.findall(r"stream 1 of 1: (\d+) of 600 rows \((\d+)%\), \d+/s", plain)
    counts = [int(done) for done, _ in frames]
    assert counts == sorted(counts)
    assert len({n for n in counts if 0 < n < 600}) >= 2, "the view moves while the stream runs"
    assert " left" in plain
    assert re.search(r"fake_score +\d+ +\d+ +\d+\r?\n +keep +\d+ +\d+ +\d+ +\d+\r?\n +fake_moody +\d+ +\d+ +\d+", plain)
    assert max(map(len, plain.replace("\r", "\n").split("\n"))) <= 90, "no line wraps"
    assert seen.count("\x1b[?25l") == seen.count("\x1b[?25h"), "the cursor is back"
