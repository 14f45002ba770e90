"""The alarm: when it speaks and when it is silent, and a run whose server dies half-way."""

from __future__ import annotations

import io
import random
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from corpora import write_rows

from corpusmith.pipelines.alarm import HINTS, Alarm, AlarmLimits, StepAlarm, proportions_z
from corpusmith.pipelines.describe import result_lines
from corpusmith.pipelines.harvest import failures_told
from corpusmith.pipelines.progress import Progress
from corpusmith.pipelines.run import RunOptions, prepare, run
from corpusmith.pipelines.units import ERROR_CLASSES, OTHER_ERRORS, StepStats, decode_stats
from corpusmith.schemas.recipe import parse_recipe

PIECE = 100


class Feed:
    """Feeds a watched step pieces of rows, one a second; collects what is told."""

    def __init__(self, limits: AlarmLimits | None = None) -> None:
        self.alarm = StepAlarm("download", limits or AlarmLimits())
        self.now = 0.0
        self.told: list[str] = []

    def give(self, pieces: int, errors: Mapping[str, int], *, rows: int = PIECE) -> list[str]:
        """Give pieces that fail so; returns what is told of them."""
        before = len(self.told)
        for _ in range(pieces):
            self.now += 1.0
            told = self.alarm.add(self.now, rows, errors)
            self.told += [told] if told else []
        return self.told[before:]


def test_a_share_of_half_is_too_much_in_itself() -> None:
    feed = Feed()
    assert feed.give(1, {"HTTPStatus 404": 90}) == [], "too few rows to say"
    (told,) = feed.give(1, {"HTTPStatus 404": 80, "Timeout": 10})
    assert told == "warning: download fails for 90% of the last 200 rows: HTTPStatus 404 85%, Timeout 5.0%"
    assert Feed().give(100, {"HTTPStatus 404": 50}) == [], "half is not above a half"


def test_a_rise_is_told_with_what_was_before_its_reasons_and_a_hint() -> None:
    feed = Feed()
    assert feed.give(60, {"HTTPStatus 404": 12}) == []
    told = feed.give(20, {"DNS failure": 55, "Timeout": 14, "HTTPStatus 404": 2})
    assert len(told) >= 1
    assert "(before: 12%)" in told[0]
    assert told[0].endswith(HINTS["DNS failure"])
    assert "DNS failure" in told[0].partition("rows")[2]


def test_a_rise_is_told_soon() -> None:
    feed = Feed()
    feed.give(500, {"HTTPStatus 404": 12})
    late = next(i for i in range(1, 30) if feed.give(1, {"Timeout": 100}))
    assert late <= 5, "a server that is down for five hundred rows should have been told"


def test_chance_is_silent_whatever_the_share() -> None:
    """A million rows each: a constant share of failures is never a rise, nor is a slow small one."""
    chance = random.Random(0)
    for share in (0.01, 0.1, 0.3, 0.45):
        feed = Feed()
        for _ in range(10_000):
            feed.give(1, {"Timeout": sum(chance.random() < share for _ in range(PIECE))})
        assert feed.told == [], f"share {share}"
    feed = Feed()
    for i in range(2000):
        feed.give(1, {"Timeout": 10 + i // 200})
    assert feed.told == []


def test_units_that_end_at_once_are_no_shorter_window() -> None:
    """Large pieces: the window is what has come last, however much that is."""
    feed = Feed()
    assert feed.give(1, {"Timeout": 100}, rows=8192) == []
    assert len(feed.give(1, {"Timeout": 6000}, rows=8192)) == 1


def test_it_is_told_again_when_it_gets_worse_or_after_some_time_and_seldom() -> None:
    feed = Feed()
    feed.give(100, {})
    (first,) = feed.give(60, {"Timeout": 60})
    assert "fails for 60% of the last 200 rows (before: 0%)" in first, "what comes now, not what still fills the window"
    (second,) = feed.give(60, {"Timeout": 95})
    assert "fails for 9" in second, "it has got worse"
    again = feed.give(3600, {"Timeout": 95})
    assert 2 <= len(again) <= 4, "five minutes, then ten, then twenty"


def test_it_recovers_with_a_note_and_can_warn_once_more() -> None:
    feed = Feed()
    feed.give(100, {"HTTPStatus 404": 10})
    assert len(feed.give(30, {"HTTPStatus 429": 80})) >= 1
    (note,) = feed.give(60, {"HTTPStatus 404": 10})
    assert note.startswith("download has recovered: ")
    feed.give(100, {"HTTPStatus 404": 10})
    (first, *_) = feed.give(30, {"HTTPStatus 429": 80})
    assert "(before: 1" in first, "what failed in the first alarm is not what is usual"
    assert first.endswith(HINTS["HTTPStatus 429"])


def test_only_watched_steps_and_only_rows_worked_on_now() -> None:
    alarm = Alarm(["download"])
    stats = {"keep": StepStats(rows_in=900, computed=900, errors={"missing x": 900})}
    assert list(alarm.add(1.0, stats)) == []
    published = StepStats(rows_in=5000, failed=5000, reused=5000)
    assert list(alarm.add(2.0, {"download": published})) == []
    fresh = StepStats(rows_in=500, failed=500, computed=500, errors={"Timeout": 500})
    assert len(list(alarm.add(3.0, {"download": fresh}))) == 1


def test_the_statistic_is_that_of_two_proportions() -> None:
    # z = (p1 − p2) / sqrt(p (1 − p) (1/n1 + 1/n2)), by hand: 0.1 / sqrt(0.2 · 0.8 · 0.03)
    assert proportions_z(80, 300, 1, 1) < 0
    assert proportions_z(25, 100, 30, 200) == pytest.approx(0.1 / (0.55 / 3 * (1 - 0.55 / 3) * 0.015) ** 0.5)
    assert proportions_z(0, 10, 0, 10) == 0.0
    assert proportions_z(10, 10, 10, 10) == 0.0


def test_errors_survive_json_adding_and_subtracting() -> None:
    first = StepStats(failed=3)
    first.count_errors(["Timeout", "Timeout", "DNS failure"])
    earlier = decode_stats({"s": {**vars(StepStats()), "errors": {"Timeout": 1}, "failed": 1}})["s"]
    later = first.since(earlier)
    assert later.errors == {"Timeout": 1, "DNS failure": 1} and later.failed == 2
    first.add(later)
    assert first.errors == {"Timeout": 3, "DNS failure": 2} and first.failed == 5


def test_classes_without_end_take_no_memory_without_end() -> None:
    count = StepStats()
    count.count_errors(f"error {i}" for i in range(10_000))
    assert len(count.errors) == ERROR_CLASSES + 1
    assert sum(count.errors.values()) == 10_000 and count.errors[OTHER_ERRORS] == 10_000 - ERROR_CLASSES


def test_the_commonest_failures_in_words() -> None:
    reasons = Counter({("download", "failed", f"HTTPStatus {i}"): 10 - i for i in range(7)})
    reasons["keep", "rejected", "width"] = 1000
    told = failures_told(reasons, 100)
    assert told.startswith("download HTTPStatus 0 10 (10.0%), download HTTPStatus 1 9 (9.0%), ")
    assert told.endswith(", 2 others 9")
    assert "keep" not in told
    assert failures_told(reasons, 100, step="input") == ""


class Dying(BaseHTTPRequestHandler):
    """Answers so many requests well, and is busy for good from then on."""

    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16
    left = 0
    lock = threading.Lock()

    def do_GET(self) -> None:
        with self.lock:
            type(self).left -= 1
            is_well = self.left >= 0
        body = b"GIF89a" + b"\0" * 60
        self.send_response(200 if is_well else 403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        del format, args


@contextmanager
def dying_server(answers: int) -> Iterator[str]:
    Dying.left = answers
    server = ThreadingHTTPServer(("127.0.0.1", 0), Dying)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_a_run_whose_server_refuses_half_way_says_so_before_its_end(tmp_path: Path) -> None:
    rows = 1500
    with dying_server(rows // 2) as url:
        write_rows(tmp_path / "rows.parquet", range(rows), url=lambda i: f"{url}/{i}.gif")
        recipe = f"""
corpus: dying
input: {{path: '{tmp_path}/rows.parquet'}}
steps: [{{download: {{allow_hosts: ['127.0.0.1'], retries: 0, timeout_s: 10}}}}]
"""
        log = io.StringIO()
        prepared = prepare(parse_recipe(recipe, source="dying.yaml"), "dying.yaml")
        with Progress(log) as progress:
            result = run(prepared, str(tmp_path / "corpus"), RunOptions("inline", cpus=1), progress)
    lines = log.getvalue().splitlines()
    (warned,) = [i for i, line in enumerate(lines) if line.startswith("warning: download fails for ")]
    assert "HTTPStatus 403" in lines[warned] and lines[warned].endswith(HINTS["HTTPStatus 403"])
    ended = next(i for i, line in enumerate(lines) if "stream 1 of 1: " in line and "took" in line)
    assert warned < ended
    failed = result.stats["download"].failed
    assert result.stats["download"].errors == {"HTTPStatus 403": failed}
    assert 0 < failed < rows
    told = [line for line in result_lines(result) if line.startswith("failures: ")]
    assert told == [f"failures: download HTTPStatus 403 {failed:,} ({failed / rows:.1%})"]
    page = (tmp_path / "corpus/report/index.html").read_text()
    assert f"HTTPStatus 403 {failed:,} ({failed / rows:.1%})" in page
