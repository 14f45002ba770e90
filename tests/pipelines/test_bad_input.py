"""What goes wrong outside corpusmith: each obstacle is told (what, where, what to do); nothing is lost or hangs."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import cli_command, fates, outcome, run_recipe, write_rows
from fakes import calls, forget_calls

from corpusmith.pipelines.cli import main
from corpusmith.pipelines.lock import CorpusLock, lock_text
from corpusmith.pipelines.storage import Storage
from corpusmith.pipelines.verify import verify
from corpusmith.schemas.errors import UserError
from corpusmith.schemas.manifest import WORK_FOLDER

pytestmark = pytest.mark.usefixtures("counted")

GOOD_STEPS = ["- fake_score: {salt: a}", "- fake_moody", "- keep: score >= 300"]


@dataclass(frozen=True)
class Place:
    """A folder with an input, where commands are run."""

    folder: Path
    capsys: pytest.CaptureFixture[str]

    def write(self, *steps: str, path: str = "urls.parquet") -> None:
        """Write the recipe: its first step stands in line 4."""
        lines = ["corpus: tiny", f"input: {{path: '{path}'}}", "steps:", *(f"  {step}" for step in steps)]
        (self.folder / "tiny.yaml").write_text("\n".join([*lines, ""]))

    def run(self, *arguments: str) -> tuple[int, str]:
        """Run the recipe inline; returns exit code and stderr."""
        with pytest.raises(SystemExit) as ended:
            main(["run", "tiny.yaml", "--executor", "inline", *arguments])
        assert isinstance(ended.value.code, int)
        return ended.value.code, self.capsys.readouterr().err

    def refused(self, *arguments: str) -> str:
        """Run the recipe; it must be refused in one piece. Returns what was told."""
        code, told = self.run(*arguments)
        assert code == 2, told
        assert "Traceback" not in told
        assert [line[:7] for line in told.splitlines() if line.startswith("error: ")] == ["error: "]
        return told


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Place:
    """A folder with an input of 40 rows and a good recipe."""
    write_rows(tmp_path / "urls.parquet", range(40))
    monkeypatch.chdir(tmp_path)
    place = Place(tmp_path, capsys)
    place.write(*GOOD_STEPS)
    return place


# --- recipes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        (["- fake_scores"], ["tiny.yaml:4: unknown step 'fake_scores'", "did you mean 'fake_score'?", "operators: "]),
        (["- fake_score: {salz: a}"], ["tiny.yaml:4: ", "no parameter 'salz'", "did you mean 'salt'?"]),
        (["- fake_score: {sleep_s: soon}"], ["tiny.yaml:4: ", "sleep_s = 'soon'", "number"]),
        (["- fake_score: {salt: [1]}"], ["tiny.yaml:4: ", "salt = [1]", "string"]),
        (["- fake_score", "- keep: scor >= 3"], ["tiny.yaml:5: ", "'scor'", "did you mean 'score'?"]),
        (["- fake_score", "- keep: score >="], ["tiny.yaml:5: ", "keep"]),
        (["- fake_rank"], ["tiny.yaml:4: ", "needs the column 'score'", "fake_score"]),
        (["- keep"], ["tiny.yaml:4: ", "where"]),
        (["- fake_score: {a: {b: c}"], ["tiny.yaml:", "no valid YAML"]),
        (["- fake_score: {on_error: ignore}"], ["tiny.yaml:4: ", "on_error", "ignore"]),
        (["- 3"], ["tiny.yaml:4: "]),
    ],
)
def test_a_wrong_step(place: Place, steps: list[str], told: list[str]) -> None:
    place.write(*steps)
    error = place.refused()
    assert all(text in error for text in told), error
    assert not (place.folder / "tiny").exists(), "nothing was started"


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("fake_scor.salt=b", ["fake_scor.salt=b", "did you mean 'fake_score'?"]),
        ("fake_score.salz=b", ["fake_score.salz=b", "did you mean 'salt'?"]),
        ("fake_score.sleep_s=soon", ["fake_score.sleep_s=soon", "number"]),
        ("input.urls=x", ["input.urls=x", "did you mean 'url'?"]),
        ("output.samples_per_shard=0", ["samples_per_shard", "greater than or equal to 1"]),
        ("seed", ["KEY=VALUE"]),
    ],
)
def test_a_wrong_setting(place: Place, setting: str, told: list[str]) -> None:
    error = place.refused("--set", setting)
    assert all(text in error for text in told), error


def test_a_recipe_that_is_not_there(place: Place) -> None:
    (place.folder / "tiny.yaml").rename("tini.yaml")
    error = place.refused()
    assert "there is no recipe 'tiny.yaml'" in error
    assert "datacomp-basic" in error


def test_a_recipe_that_is_none(place: Place) -> None:
    shutil.copy("urls.parquet", "tiny.yaml")
    assert "UTF-8" in place.refused()


# --- input -----------------------------------------------------------------------------------------------------------


def test_an_input_that_is_not_there(place: Place) -> None:
    error = place.refused("--input", "url.parquet")
    assert "url.parquet: there is no such file" in error


def test_no_input_at_all(place: Place) -> None:
    (place.folder / "tiny.yaml").write_text("corpus: tiny\nsteps: [fake_score]\n")
    assert "give --input FILE" in place.refused()


def test_a_pattern_that_matches_nothing(place: Place) -> None:
    assert "no file matches" in place.refused("--input", "urls/*.parquet")


def test_an_empty_input(place: Place) -> None:
    write_rows(place.folder / "urls.parquet", range(0))
    assert "the input has no rows" in place.refused()


@pytest.mark.parametrize(
    "content", [b"", b"PAR1", b"no parquet at all, but long enough to have a footer", b"PAR1" * 40]
)
def test_an_unreadable_input(place: Place, content: bytes) -> None:
    (place.folder / "urls.parquet").write_bytes(content)
    error = place.refused()
    assert "urls.parquet" in error


def test_an_input_cut_short(place: Place) -> None:
    """The footer is whole, what it speaks of is not."""
    data = bytearray((place.folder / "urls.parquet").read_bytes())
    data[4 : len(data) // 3] = bytes(len(data) // 3 - 4)
    (place.folder / "urls.parquet").write_bytes(data)
    assert "urls.parquet" in place.refused()


def test_an_input_cut_anywhere(place: Place) -> None:
    data = (place.folder / "urls.parquet").read_bytes()
    for length in range(0, len(data), max(1, len(data) // 24)):
        (place.folder / "urls.parquet").write_bytes(data[:length])
        assert "urls.parquet" in place.refused()


ABSURD_COLUMNS = {
    "nested": pa.array([[[[{"a": [{"b": None}]}]]], None]),
    "map": pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int8())),
    "decimal": pa.array([None, 10**60], pa.decimal256(76, 3)),
    "span": pa.array([1, None], pa.duration("ns")),
    "spans": pa.array([[1, None], None], pa.list_(pa.duration("s"))),
    "nothing": pa.nulls(2),
    "words": pa.array(["x", "y"]).dictionary_encode(),
    "bytes": pa.array([b"\0\xff", None], pa.binary(2)),
    "half": pa.array([np.float16(1.5), None], pa.float16()),
    "halves": pa.array([[np.float16(1.5), None], None], pa.list_(pa.float16())),
    "embedding": pa.array([[np.float16(1), np.float16(2)], None], pa.list_(pa.float16(), 2)),
    "day": pa.array([0, 86_400_000], pa.date64()),
    "far": pa.array([2**62, -(2**62)], pa.timestamp("us")),
    "zoned": pa.array([0, 1], pa.timestamp("ns", "Asia/Kathmandu")),
    "nanoseconds": pa.array([1, 10**13], pa.time64("ns")),
    "NaN": pa.array([float("nan"), float("-inf")]),
}


def test_columns_of_absurd_types_reach_the_shards(place: Place) -> None:
    """With the types and the values that they came with."""
    urls = ["http://web/1", "http://web/2"]
    pq.write_table(pa.table({"url": urls, "caption": urls, **ABSURD_COLUMNS}), place.folder / "urls.parquet")
    place.write("- fake_score", "- fake_fetch")
    code, told = place.run()
    assert code == 0, told
    assert verify(Storage(str(place.folder / "tiny"))) == []
    found = pq.read_table(place.folder / "tiny" / "shards" / "00000.parquet").sort_by("url")
    came = pq.read_table(place.folder / "urls.parquet")
    for name in ABSURD_COLUMNS:
        if name == "nothing":
            continue  # a column of nulls alone comes in as texts
        kind = came.schema.field(name).type
        assert found.column(name).cast(kind).equals(came.column(name)) or name == "NaN", name
        if name != "words":
            assert found.schema.field(name).type == kind
    assert str(found.column("NaN").to_pylist()) == "[nan, -inf]"


LONG_BYTES = 24 << 20
"""Longer than a line may be."""


@pytest.mark.parametrize(
    ("file", "start", "end"),
    [
        ("a.csv", b"url,caption\nhttp://web/1,", b"\nhttp://web/2,b\n"),
        ("a.tsv", b"url\tcaption\nhttp://web/1\t", b"\n"),
        ("a.jsonl", b'{"url": "http://web/1", "caption": "', b'"}\n'),
        ("a.txt", b"http://web/", b"\n"),
    ],
)
def test_a_line_without_an_end(place: Place, file: str, start: bytes, end: bytes) -> None:
    (place.folder / file).write_bytes(start + b"x" * LONG_BYTES + end)
    error = place.refused("--input", file)
    assert file in error and "a line is longer than" in error


@pytest.mark.parametrize("end", ["]" * 10_000, "", "]" * 9_000])
def test_json_nested_ten_thousand_deep_costs_its_own_row(place: Place, end: str) -> None:
    lines = ['{"url": "http://web/1", "caption": "a"}', '{"url": "http://web/2", "x": ' + "[" * 10_000 + end + "}"]
    (place.folder / "deep.jsonl").write_text("\n".join(lines))
    code, told = place.run("--input", "deep.jsonl", "--set", "input.caption=caption")
    assert code == 0, told
    (failed,) = [row for row in fates(place.folder / "tiny").values() if row["step"] == "input"]
    assert failed["error"] == "bad row" and "deep.jsonl:2" in failed["reason"]


@pytest.mark.parametrize("file", ["a.csv", "a.parquet"])
def test_more_columns_than_anybody_means(place: Place, file: str) -> None:
    names = ["url", "caption", *(f"c{i}" for i in range(200_000 if file == "a.csv" else 20_000))]
    if file == "a.csv":
        (place.folder / file).write_text(",".join(names) + "\n" + ",".join("x" for _ in names) + "\n")
    else:
        pq.write_table(pa.table({name: ["x"] for name in names}), place.folder / file)
    started = time.monotonic()
    error = place.refused("--input", file)
    assert time.monotonic() - started < 20
    assert file in error and "columns" in error
    assert len(error) < 10_000


MEASURED = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
"""Runs a command from a small process: the peak of a child begins with the memory of the process that it forks from."""


@pytest.mark.parametrize("start", ["url,caption\nhttp://web/1,", '{"url": "http://web/1", "caption": "'])
def test_a_compressed_bomb_is_refused_in_bounded_memory(place: Place, start: str) -> None:
    """2 MB that unpack to 2 GB."""
    name = "bomb.csv.gz" if start.startswith("url") else "bomb.jsonl.gz"
    piece = gzip.compress(b"a" * (1 << 20))
    (place.folder / name).write_bytes(gzip.compress(start.encode()) + piece * 2000)
    command = cli_command("run", "tiny.yaml", "--executor", "inline", "--input", name)
    ended = subprocess.run([sys.executable, "-c", MEASURED, *command], capture_output=True, text=True, check=False)
    code, peak_kb = map(int, ended.stdout.split())
    assert code == 2, ended.stderr
    assert name in ended.stderr and "Traceback" not in ended.stderr
    assert peak_kb < 400_000


def test_a_column_that_the_input_lacks(place: Place) -> None:
    error = place.refused("--set", "input.caption=captions")
    assert "there is no column 'captions' for caption" in error
    assert "input.caption=caption?" in error


# --- output ----------------------------------------------------------------------------------------------------------


def test_an_output_below_a_file(place: Place) -> None:
    error = place.refused("--output", "urls.parquet/corpus")
    assert "urls.parquet/corpus" in error
    assert "choose another --output" in error


def test_an_output_that_is_a_file(place: Place) -> None:
    error = place.refused("--output", "tiny.yaml")
    assert "choose another --output" in error
    assert (place.folder / "tiny.yaml").read_text().startswith("corpus: tiny"), "the file is as it was"


def test_an_output_of_an_unknown_kind(place: Place) -> None:
    assert "gopher://x/corpus" in place.refused("--output", "gopher://x/corpus")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize(
    "size_kb", [24, 1700, *(pytest.param(size_kb, marks=pytest.mark.slow) for size_kb in (400, 800, 2200))]
)
def test_a_full_disk(place: Place, small_disk: Path, size_kb: int) -> None:
    """It fills up in the middle: at the input, in a stream, in the shards. With more room the run goes on."""
    write_rows(place.folder / "urls.parquet", range(300))
    place.write("- fake_score", "- fake_fetch: {size: 4096}")
    resize = ["mount", "-o", "remount,size={}k", str(small_disk)]
    subprocess.run([part.format(size_kb) for part in resize], check=True)
    error = place.refused("--output", str(small_disk / "corpus"))
    assert "No space left on device" in error
    assert "make room" in error
    subprocess.run([part.format(64_000) for part in resize], check=True)
    done = set(calls("fake_fetch"))
    forget_calls()
    code, told = place.run("--output", str(small_disk / "corpus"))
    assert code == 0, told
    assert len(calls("fake_fetch")) <= 300
    if size_kb > 1500:
        assert len(calls("fake_fetch")) < len(done), "what was published is used"
    assert verify(Storage(str(small_disk / "corpus"))) == []
    assert place.run("--output", "fresh")[0] == 0
    assert outcome(small_disk / "corpus") == outcome(place.folder / "fresh")


def test_a_changed_recipe_over_an_old_run(place: Place) -> None:
    assert place.run()[0] == 0
    forget_calls()
    place.write("- fake_score: {salt: b}", "- fake_moody", "- keep: score >= 500")
    assert place.run()[0] == 0
    assert len(calls("fake_score")) == 40
    assert calls("fake_moody") == [], "what did not change is not computed again"
    assert place.run("--output", "fresh")[0] == 0
    assert outcome(place.folder / "tiny") == outcome(place.folder / "fresh")


# --- the lock --------------------------------------------------------------------------------------------------------


def test_a_second_run_is_refused_at_once(place: Place) -> None:
    assert place.run()[0] == 0
    before = outcome(place.folder / "tiny")
    with CorpusLock(Storage(str(place.folder / "tiny" / WORK_FOLDER))):
        started = time.monotonic()
        error = place.refused()
        assert time.monotonic() - started < 5
        assert f"process {os.getpid()} on {socket.gethostname()}" in error
        with pytest.raises(SystemExit):
            main(["clean", "tiny"])
        assert "another run is at work" in place.capsys.readouterr().err
    assert outcome(place.folder / "tiny") == before
    assert place.run()[0] == 0


def lock_of(place: Place, **changes: object) -> None:
    """Leave the lock of another holder."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    lock = {"token": "t", "host": socket.gethostname(), "pid": ended.pid, "started": 1.0, "refreshed": time.time()}
    path = place.folder / "tiny" / WORK_FOLDER / "lock.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**lock, **changes}))


@pytest.mark.parametrize(
    "changes",
    [{}, {"pid": os.getpid()}, {"host": "elsewhere", "refreshed": 1.0}],
    ids=["its process is gone", "its process id is another's now", "its machine was lost"],
)
def test_the_lock_of_a_dead_run_is_taken_over(place: Place, changes: dict[str, object]) -> None:
    lock_of(place, **changes)
    assert "is gone" in (lock_text(Storage(str(place.folder / "tiny" / WORK_FOLDER))) or "")
    code, told = place.run()
    assert code == 0, told
    assert not (place.folder / "tiny" / WORK_FOLDER / "lock.json").exists()


def test_a_torn_lock_is_taken_over(place: Place) -> None:
    lock_of(place)
    (place.folder / "tiny" / WORK_FOLDER / "lock.json").write_text("{")
    assert place.run()[0] == 0


def test_the_lock_of_a_run_on_another_machine_is_respected(place: Place) -> None:
    lock_of(place, host="elsewhere", pid=7)
    assert "process 7 on elsewhere" in place.refused()


@pytest.mark.parametrize("is_stale", [False, True])
def test_one_of_many_gets_the_lock(place: Place, is_stale: bool) -> None:
    """Also where all of them find the lock of a dead run."""
    if is_stale:
        lock_of(place)
    work = Storage(str(place.folder / "tiny" / WORK_FOLDER))
    start = threading.Barrier(8)
    release = threading.Event()
    held: list[int] = []

    def take(number: int) -> None:
        start.wait()
        try:
            with CorpusLock(work):
                held.append(number)
                release.wait(10)
        except UserError:
            return

    threads = [threading.Thread(target=take, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 10
    while not held and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.7)
    assert len(held) == 1
    release.set()
    for thread in threads:
        thread.join()
    assert lock_text(work) is None


# --- ctrl-C ----------------------------------------------------------------------------------------------------------

ROWS = 200
SLOW = ["- fake_score", "- fake_fetch: {sleep_s: 0.02}", "- keep: score >= 300"]
STUCK = ["- fake_score", "- fake_fetch: {sleep_s: 3.0}", "- keep: score >= 300"]


@dataclass(frozen=True)
class Interrupted:
    """How a run ended that was interrupted."""

    code: int
    told: str
    seconds: float
    orphans: list[str]


def interrupt(place: Place, *arguments: str, signals: int = 1, after_s: float = 0.7) -> Interrupted:
    """Run in a process group of its own; ctrl-C, as a terminal sends it, once workers are at work."""
    command = cli_command("run", "tiny.yaml", *arguments)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 60
    while not calls("fake_fetch") and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    time.sleep(after_s)
    children = psutil.Process(process.pid).children(recursive=True)
    assert children, "there are workers to be orphaned"
    started = time.monotonic()
    for i in range(signals):
        time.sleep(0.5 * (i > 0))
        os.killpg(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=60)
    seconds = time.monotonic() - started
    _, alive = psutil.wait_procs(children, timeout=3)
    orphans = [" ".join(child.cmdline()) for child in alive]
    for child in alive:
        child.kill()
    return Interrupted(process.returncode, told.decode(), seconds, orphans)


def check_interrupted(place: Place, ended: Interrupted) -> None:
    """A clear message, the right code, nobody left behind; and the same command goes on to the same corpus."""
    assert ended.code == 130, ended.told
    assert "stopping" in ended.told
    assert "the same command goes on from there" in ended.told
    assert "Traceback" not in ended.told
    assert ended.orphans == []
    assert not (place.folder / "tiny" / "manifest.json").exists(), "it was interrupted in the middle"
    assert 0 < len(calls("fake_fetch")) < ROWS
    forget_calls()
    code, told = place.run()
    assert code == 0, told
    assert 0 < len(calls("fake_fetch")) < ROWS, "what was published is not computed again"
    run_recipe((place.folder / "tiny.yaml").read_text(), place.folder / "fresh")
    assert outcome(place.folder / "tiny") == outcome(place.folder / "fresh")
    assert verify(Storage(str(place.folder / "tiny"))) == []


def test_ctrl_c(place: Place) -> None:
    write_rows(place.folder / "urls.parquet", range(ROWS))
    place.write(*SLOW)
    ended = interrupt(place, "--executor", "inline")
    assert ended.seconds < 10
    check_interrupted(place, ended)


@pytest.mark.slow
def test_ctrl_c_while_workers_take_long(place: Place) -> None:
    """Each batch takes a minute: after the grace the process ends without them, and no row is blamed for it."""
    write_rows(place.folder / "urls.parquet", range(ROWS))
    place.write(*STUCK)
    ended = interrupt(place, "--executor", "inline")
    assert 4 < ended.seconds < 12
    assert ended.code == 130
    assert ended.orphans == []
    assert published_errors(place) <= {None}, "the interrupt is no row's error"
    code, told = place.run("--set", "fake_fetch.sleep_s=0")
    assert code == 0, told


def test_ctrl_c_twice_ends_at_once(place: Place) -> None:
    write_rows(place.folder / "urls.parquet", range(ROWS))
    place.write(*STUCK)
    ended = interrupt(place, "--executor", "inline", signals=2)
    assert ended.code == 130
    assert ended.seconds < 4
    assert ended.orphans == []
    assert published_errors(place) <= {None}


def published_errors(place: Place) -> set[str | None]:
    """Errors among the published results of the fetches; None for those that went well."""
    files = (place.folder / "tiny" / WORK_FOLDER / "results").glob("fake_fetch-*/*.parquet")
    return {error for path in files for error in pq.read_table(path).column("result_error").to_pylist()}


@pytest.mark.slow
@pytest.mark.ray
def test_ctrl_c_under_ray(place: Place) -> None:
    write_rows(place.folder / "urls.parquet", range(ROWS))
    place.write("- fake_score", "- fake_fetch: {sleep_s: 0.05}", "- keep: score >= 300")
    ended = interrupt(place, "--executor", "ray", "--cpus", "2", after_s=2.5)
    assert ended.seconds < 20
    check_interrupted(place, ended)
