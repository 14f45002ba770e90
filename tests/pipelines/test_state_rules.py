"""The proof of the state rules: whatever happened before, a run ends equal to a fresh one.

A history of events (kills at random places, appended rows, edited thresholds and parameters, reordered steps) is played
over three annotations, a split and a reduce, with rows that fail and rows that kill their worker. At its end the corpus
must equal, in shard bytes and in every row's fate, the corpus that a fresh run makes of the final input and recipe.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from corpora import fates, outcome, run_recipe, shard_bytes, write_rows
from fakes import calls, forget_calls
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corpusmith.pipelines.storage import Storage
from corpusmith.pipelines.verify import verify

pytestmark = pytest.mark.usefixtures("counted")


@dataclass
class World:
    """Input and recipe as they stand."""

    folder: Path
    files: int = 0
    rows: int = 0
    threshold: int = 100
    salt: str = ""
    shrink: int = 32
    keep: float = 0.7
    select_first: bool = False
    is_deadly: bool = False

    def append(self, number: int) -> None:
        """Add a file of rows; some fail, and in a deadly world one in a hundred kills its worker."""
        rows = range(self.rows, self.rows + number)
        path = self.folder / "input" / f"{self.files:03d}.parquet"
        kinds = {i: "die" if self.is_deadly and i % 97 == 13 else "fail" if i % 10 == 3 else "ok" for i in rows}
        write_rows(path, rows, url=lambda i: f"http://web/{kinds[i]}/{i}")
        self.files += 1
        self.rows += number

    def recipe(self, sleep_s: float = 0.0) -> str:
        """The recipe as YAML. Sleeping is a parameter, so it must be the same in all runs that share state."""
        first = [f"- fake_score: {{salt: '{self.salt}', sleep_s: {sleep_s}}}", f"- keep: score >= {self.threshold}"]
        fetch = [f"- fake_fetch: {{size: 64, sleep_s: {sleep_s}}}", "- keep: size_bytes > 90"]
        start = [*first, *fetch] if self.select_first else [first[0], *fetch, first[1]]
        steps = [*start, f"- fake_shrink: {{keep: {self.shrink}}}", "- fake_rank", f"- fake_top: {{keep: {self.keep}}}"]
        steps += ["- fake_crops", "- keep: crop < 2 OR rank % 2 = 0"]
        lines = ["corpus: world", f"input: {{path: '{self.folder}/input/*.parquet'}}", "steps:", *steps]
        return "\n".join([*lines, "output: {samples_per_shard: 37}", ""])


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
import fakes
from corpora import run_recipe
run_recipe(open({recipe!r}).read(), {output!r})
"""


def run_and_kill(world: World, output: Path, after_s: float) -> bool:
    """Run in a process of its own; kill -9 it after a while. Whether it was killed before its end."""
    recipe = world.folder / "recipe.yaml"
    recipe.write_text(world.recipe(SLEEP_S))
    script = SCRIPT.format(tests=str(Path(__file__).parent.parent), recipe=str(recipe), output=str(output))
    process = subprocess.Popen([sys.executable, "-c", script], start_new_session=True, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not (output / ".work" / "results").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(after_s)
    killed = process.poll() is None
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    _, errors = process.communicate()
    assert killed or process.returncode == 0, errors.decode()[-2000:]
    return killed


SLEEP_S = 0.002


def test_fresh_runs_are_equal(tmp_path: Path) -> None:
    world = World(tmp_path, is_deadly=True)
    world.append(150)
    run_recipe(world.recipe(), tmp_path / "a")
    run_recipe(world.recipe(), tmp_path / "b", cpus=1)
    assert outcome(tmp_path / "a") == outcome(tmp_path / "b")
    assert len(shard_bytes(tmp_path / "a")) >= 4
    assert verify(Storage(str(tmp_path / "a"))) == []


def test_a_second_run_computes_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.append(150)
    run_recipe(world.recipe(), tmp_path / "a")
    first = outcome(tmp_path / "a")
    assert len(calls("fake_score")) == 150
    forget_calls()
    result = run_recipe(world.recipe(), tmp_path / "a")
    for operator in ("fake_score", "fake_fetch", "fake_shrink", "fake_rank", "fake_top"):
        assert calls(operator) == [], operator
    assert result.stats["fake_fetch"].computed == 0
    assert outcome(tmp_path / "a") == first


def test_every_fate_is_told(tmp_path: Path) -> None:
    world = World(tmp_path, is_deadly=True)
    world.append(300)
    run_recipe(world.recipe(), tmp_path / "a")
    rows = fates(tmp_path / "a")
    reasons = {(r["fate"], r["step"], (r["reason"] or "").split(": ")[0], r["error"]) for r in rows.values()}
    assert ("failed", "fake_fetch", "no such picture", "HTTPStatus 404") in reasons
    assert any(r["error"] == "worker died" for r in rows.values())
    assert ("rejected", "fake_top", "top 0.7", None) in reasons
    split = [r for r in rows.values() if r["fate"] == "split"]
    made = [r for r in rows.values() if r["parent_uid"] is not None]
    assert sum(r["children"] for r in split) == len(made) > 0
    assert len(rows) == 300 + len(made)


def test_a_changed_threshold_scores_nothing_again(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.append(150)
    run_recipe(world.recipe(), tmp_path / "a")
    forget_calls()
    world.threshold = 400
    run_recipe(world.recipe(), tmp_path / "a")
    assert calls("fake_score") == calls("fake_fetch") == calls("fake_shrink") == calls("fake_rank") == []
    run_recipe(world.recipe(), tmp_path / "fresh")
    assert outcome(tmp_path / "a") == outcome(tmp_path / "fresh")


def test_appended_rows_alone_are_computed(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.append(150)
    run_recipe(world.recipe(), tmp_path / "a")
    forget_calls()
    world.append(40)
    run_recipe(world.recipe(), tmp_path / "a")
    assert len(calls("fake_score")) == 40
    assert len(set(calls("fake_fetch"))) <= 40
    run_recipe(world.recipe(), tmp_path / "fresh")
    assert outcome(tmp_path / "a") == outcome(tmp_path / "fresh")


def test_a_changed_operator_redoes_its_column_and_its_readers(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.append(120)
    run_recipe(world.recipe(), tmp_path / "a")
    forget_calls()
    world.salt = "other"
    run_recipe(world.recipe(), tmp_path / "a")
    assert len(calls("fake_score")) == 120
    assert calls("fake_rank")
    # media does not depend on the score: only what the old score had dropped must be fetched, to be shrunk
    assert sorted(calls("fake_fetch")) == sorted(calls("fake_shrink"))
    assert 0 < len(calls("fake_fetch")) < 60


def test_a_changed_reader_of_lost_media_fetches_again(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.append(120)
    run_recipe(world.recipe(), tmp_path / "a")
    forget_calls()
    world.shrink = 16
    run_recipe(world.recipe(), tmp_path / "a")
    fetched, shrunk = calls("fake_fetch"), calls("fake_shrink")
    # originals are not staged, so what is shrunk again must be fetched again, and nothing else is
    assert sorted(fetched) == sorted(shrunk)
    run_recipe(world.recipe(), tmp_path / "fresh")
    assert outcome(tmp_path / "a") == outcome(tmp_path / "fresh")


def test_kept_originals_are_not_fetched_again(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.append(120)
    recipe = world.recipe().replace("samples_per_shard: 37", "samples_per_shard: 37, keep_originals: true")
    run_recipe(recipe, tmp_path / "a")
    forget_calls()
    run_recipe(recipe.replace("keep: 32}", "keep: 16}"), tmp_path / "a")
    assert calls("fake_shrink")
    assert calls("fake_fetch") == []


def test_killed_again_and_again(tmp_path: Path) -> None:
    world = World(tmp_path, is_deadly=True)
    world.append(400)
    kills = sum(run_and_kill(world, tmp_path / "a", 0.05 + 0.25 * i) for i in range(4))
    assert kills >= 2
    run_recipe(world.recipe(SLEEP_S), tmp_path / "a")
    run_recipe(world.recipe(SLEEP_S), tmp_path / "fresh")
    assert outcome(tmp_path / "a") == outcome(tmp_path / "fresh")
    assert verify(Storage(str(tmp_path / "a"))) == []


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 60)),
        st.tuples(st.just("threshold"), st.sampled_from([0, 100, 400, 900])),
        st.tuples(st.just("salt"), st.sampled_from(["", "x"])),
        st.tuples(st.just("shrink"), st.sampled_from([16, 32])),
        st.tuples(st.just("keep"), st.sampled_from([0.3, 0.7, 1.0])),
        st.tuples(st.just("reorder"), st.booleans()),
        st.tuples(st.just("run"), st.just(None)),
    ),
    min_size=2,
    max_size=7,
)


def play(world: World, event: tuple[str, object], output: Path) -> None:
    """Let one event happen."""
    name, value = event
    if name == "append":
        assert isinstance(value, int)
        world.append(value)
    elif name == "reorder":
        world.select_first = bool(value)
    elif name == "run":
        run_recipe(world.recipe(), output)
    else:
        setattr(world, name, value)


@settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
    derandomize=True,
)
@given(events=EVENTS, start=st.integers(1, 80))
def test_any_history_ends_equal_to_a_fresh_run(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[str, object]], start: int
) -> None:
    folder = tmp_path_factory.mktemp("history")
    world = World(folder)
    world.append(start)
    for event in events:
        play(world, event, folder / "a")
    run_recipe(world.recipe(), folder / "a")
    run_recipe(world.recipe(), folder / "fresh")
    assert outcome(folder / "a") == outcome(folder / "fresh")
    assert verify(Storage(str(folder / "a"))) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_any_history_with_kills(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    world = World(tmp_path, is_deadly=True)
    world.append(200)
    for _ in range(6):
        event = chance.choice(
            [
                ("append", chance.randint(1, 80)),
                ("threshold", chance.choice([0, 300])),
                ("salt", chance.choice(["", "y"])),
                ("shrink", chance.choice([16, 32])),
                ("reorder", chance.random() < 0.5),
            ]
        )
        play(world, event, tmp_path / "a")
        run_and_kill(world, tmp_path / "a", chance.random() * 1.5)
    run_recipe(world.recipe(SLEEP_S), tmp_path / "a")
    run_recipe(world.recipe(SLEEP_S), tmp_path / "fresh")
    assert outcome(tmp_path / "a") == outcome(tmp_path / "fresh")
