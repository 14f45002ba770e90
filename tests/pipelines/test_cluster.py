"""Ray: the same bytes and fates as inline, whatever dies: a row's child, an actor, a driver, a whole node.

Tests share the session's Ray where they can. Those that lose a node or need a card start one in a process of its own.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
import ray_fakes
from corpora import fates, outcome, run_recipe, shard_bytes, write_rows
from fakes import calls, forget_calls

from corpusmith.pipelines import cluster
from corpusmith.pipelines import run as run_module
from corpusmith.pipelines.cluster import RayExecutor
from corpusmith.pipelines.run import WORK_FOLDER
from corpusmith.pipelines.storage import Storage
from corpusmith.pipelines.verify import verify
from corpusmith.schemas.errors import UserError

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("counted")]

on_session = pytest.mark.usefixtures("ray_session")

RECIPE = """
corpus: world
input: {{path: '{folder}/rows.parquet'}}
steps:
- fake_score
- keep: score >= 100
- fake_wait
- fake_place
- fake_fetch: {{sleep_s: {sleep_s}}}
- keep: size_bytes > 90
- fake_shrink
- fake_top: {{keep: 0.7}}
- fake_rank
- fake_crops
- keep: crop < 2 OR rank % 2 = 0
output: {{samples_per_shard: 37}}
"""
ROWS = 240
DEADLY = (14, 110)
"""Rows that kill the child process that fetches them."""


def url_of(number: int) -> str:
    kind = "die" if number in DEADLY else "fail" if number % 10 == 3 else "ok"
    return f"http://web/{kind}/{number}"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A recipe of two streams, in which every kind of step stands; some of its steps wait, some rows kill."""
    folder = tmp_path_factory.mktemp("world")
    write_rows(folder / "rows.parquet", range(ROWS), url=url_of)
    return RECIPE.format(folder=folder, sleep_s=0.006)


@pytest.fixture(scope="module")
def expected(recipe: str, calls_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the recipe makes inline, on one core and on two."""
    del calls_path
    folder = tmp_path_factory.mktemp("expected")
    for cpus in (1, 2):
        run_recipe(recipe, folder / str(cpus), cpus=cpus)
    assert outcome(folder / "1") == outcome(folder / "2")
    assert len(shard_bytes(folder / "1")) >= 6
    return outcome(folder / "1")


def play(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    """Start `ray_fakes` as a program, in a process group of its own."""
    environment = {**os.environ, "PYTHONPATH": str(Path(ray_fakes.__file__).parent), "RAY_BACKEND_LOG_LEVEL": "fatal"}
    command = [sys.executable, ray_fakes.__file__, *arguments]
    return subprocess.Popen(
        command, start_new_session=True, stderr=subprocess.PIPE, text=True, env=environment, **options
    )


def played(*arguments: str) -> None:
    """Let `ray_fakes` play to its end; none of its processes outlives it."""
    process = play(*arguments)
    try:
        _, errors = process.communicate(timeout=150)
        assert process.returncode == 0, errors[-3000:]
    finally:
        kill_group(process)


def kill_group(process: subprocess.Popen[str]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # all of them have ended
    process.wait()


@on_session
def test_ray_makes_what_inline_makes(
    recipe: str, expected: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "FEW_SAMPLES", 0)  # shards are Ray's tasks, too
    run_recipe(recipe, tmp_path / "ray", executor="ray")
    assert outcome(tmp_path / "ray") == expected
    assert verify(Storage(str(tmp_path / "ray"))) == []
    rows = fates(tmp_path / "ray").values()
    fetched = [row for row in rows if row["step"] == "fake_fetch"]
    assert Counter(row["error"] for row in fetched if "die" in row["url"]) == {"worker died": len(DEADLY)}
    assert {row["error"] for row in fetched if "die" not in row["url"]} == {"HTTPStatus 404"}, "nobody else is harmed"
    assert len(calls("fake_wait")) == len(calls("fake_place")) > 200, "nothing is computed twice"


@on_session
def test_a_driver_is_killed_and_another_goes_on(recipe: str, expected: Any, tmp_path: Path) -> None:
    """The first run's workers are Ray's to end; the second run takes over what they published."""
    address = ray.get_runtime_context().gcs_address
    first = play("attached", address, recipe, str(tmp_path / "ray"))
    deadline = time.monotonic() + 90
    while not published(tmp_path / "ray", "fake_fetch") and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert first.poll() is None, first.communicate()[1]
    kill_group(first)
    assert not (tmp_path / "ray" / "manifest.json").exists()
    done = published(tmp_path / "ray", "fake_fetch")
    forget_calls()
    run_recipe(recipe, tmp_path / "ray", executor="ray")
    assert outcome(tmp_path / "ray") == expected
    assert done
    assert not done & set(calls("fake_fetch")), "what was published is used"


def published(corpus: Path, operator: str) -> set[str]:
    """Uids with a published result of an operator."""
    work = Storage(str(corpus / WORK_FOLDER))
    tables = [work.read_table(e.path, ["uid"]) for e in work.list("results") if operator in e.path]
    return {uid for table in tables for uid in table.column("uid").to_pylist()}


def killer_recipe(folder: Path, marker: str) -> str:
    write_rows(folder / "rows.parquet", range(160), url=lambda i: f"http://web/{'kill' if i == 77 else 'ok'}/{i}")
    steps = f"[fake_score, fake_killer: {{marker: '{marker}'}}]"
    return f"corpus: killer\ninput: {{path: '{folder}/rows.parquet'}}\nsteps: {steps}\n"


@on_session
def test_an_actor_that_is_killed_once_costs_nothing(tmp_path: Path) -> None:
    recipe = killer_recipe(tmp_path, str(tmp_path / "marker"))
    run_recipe(recipe, tmp_path / "ray", executor="ray")
    assert len(calls("fake_killer")) == 1
    run_recipe(recipe, tmp_path / "inline")
    assert outcome(tmp_path / "ray") == outcome(tmp_path / "inline")


@on_session
def test_a_step_that_kills_its_worker_each_time_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "TASK_RETRIES", 1)
    started = time.monotonic()
    with pytest.raises(UserError, match=r"Ray lost its workers time and again, \d+ units are not done") as told:
        run_recipe(killer_recipe(tmp_path, ""), tmp_path / "ray", executor="ray")
    assert time.monotonic() - started < 90
    assert "isolated" in str(told.value.hint)
    assert "\n" not in told.value.what
    assert 4 <= len(calls("fake_killer")) <= 2 * cluster.STREAM_ATTEMPTS
    done = published(tmp_path / "ray", "fake_score")
    assert len(done) > 80
    forget_calls()
    innocent = killer_recipe(tmp_path, "").replace(", fake_killer: {marker: ''}", "")
    run_recipe(innocent, tmp_path / "ray")
    assert not done & set(calls("fake_score")), "what was published is used"


@on_session
def test_an_error_of_our_own_is_raised_as_it_is() -> None:
    """It is no lost worker: nothing is tried again."""

    def broken(number: int) -> int:
        raise UserError(f"no room for shard {number}", where="disk", hint="make room")

    executor = RayExecutor()
    with pytest.raises(UserError, match="no room for shard 0") as told:
        list(executor.run_tasks(broken, [0]))
    assert told.value.hint == "make room"


@on_session
def test_a_task_that_kills_its_worker_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "TASK_RETRIES", 1)
    executor = RayExecutor()

    def deadly(path: Path) -> None:
        with path.open("a") as file:
            file.write("x")
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(UserError, match="1 tasks are not done"):
        list(executor.run_tasks(deadly, [tmp_path / "deaths"]))
    assert (tmp_path / "deaths").read_text() == "xx"


@on_session
def test_cores_that_others_use_are_not_waited_for(tmp_path: Path) -> None:
    others: Any = ray.remote(num_cpus=1)(Counter)
    busy = others.remote()
    ray.get(busy.total.remote())
    write_rows(tmp_path / "rows.parquet", range(64))
    try:
        run_recipe(
            f"corpus: c\ninput: {{path: '{tmp_path}/rows.parquet'}}\nsteps: [fake_score]\n",
            tmp_path / "ray",
            executor="ray",
        )
    finally:
        ray.kill(busy)
    assert sorted(calls("fake_score")) == sorted(fates(tmp_path / "ray"))


def test_a_node_is_lost_in_the_middle(recipe: str, expected: Any, tmp_path: Path) -> None:
    played("two_nodes", recipe, str(tmp_path / "ray"))
    assert len(set(calls("fake_place"))) == 2, "both nodes have worked"
    assert outcome(tmp_path / "ray") == expected
    assert verify(Storage(str(tmp_path / "ray"))) == []


def card_recipe(folder: Path, keep: int) -> str:
    write_rows(folder / "rows.parquet", range(100), url=lambda i: f"http://web/{'fail' if i % 10 == 3 else 'ok'}/{i}")
    steps = f"[fake_score, fake_fetch, fake_card: {{keep: {keep}}}, fake_rank]"
    return f"corpus: card\ninput: {{path: '{folder}/rows.parquet'}}\nsteps: {steps}\n"


def test_cards_have_workers_of_their_own(tmp_path: Path) -> None:
    """Media passes from stage to stage; the first tells by the later steps which media has to be made again."""
    recipes = [card_recipe(tmp_path, 32), card_recipe(tmp_path, 16)]
    played("one_card", str(tmp_path / "ray"), *recipes)
    cards = Counter(calls("fake_card"))
    assert {card.split(":")[1] for card in cards} == {"0"}
    assert sorted(cards.values()) == [90, 90], "one worker a run has the card"
    assert len(calls("fake_fetch")) == 100 + 90, "failures are not fetched again, lost media is"
    run_recipe(recipes[1], tmp_path / "inline")
    assert outcome(tmp_path / "ray") == outcome(tmp_path / "inline")


@on_session
def test_what_no_node_has_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no node of this Ray has what the steps fake_card need: 1 GPU"):
        run_recipe(card_recipe(tmp_path, 32), tmp_path / "ray", executor="ray")


def elsewhere(answer: Callable[[], Any]) -> Callable[[], Any]:
    """A function that gives another answer in other processes."""
    here = os.getpid()
    return lambda: answer() if os.getpid() != here else {"corpusmith": "0.1.0"}


@on_session
def test_versions_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster._compare_versions()
    monkeypatch.setattr(cluster, "_versions", elsewhere(lambda: {"corpusmith": "9.9"}))
    with pytest.raises(UserError, match=r"runs {'corpusmith': '9\.9'}, this process {'corpusmith': '0\.1\.0'}") as told:
        cluster._compare_versions()
    assert "same corpusmith wheel" in str(told.value.hint)

    def missing() -> None:
        raise ModuleNotFoundError("No module named 'corpusmith'")

    monkeypatch.setattr(cluster, "_versions", elsewhere(missing))
    with pytest.raises(UserError, match="no corpusmith that could be asked"):
        cluster._compare_versions()


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if no Ray had been started in this process."""
    monkeypatch.setattr(ray, "is_initialized", lambda: False)


@pytest.mark.usefixtures("no_ray")
@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere.invalid:6379", "bogus"])
def test_a_wrong_address_is_told_at_once(address: str) -> None:
    started = time.monotonic()
    with pytest.raises(UserError, match=f"no Ray cluster to be used at {address}"):
        RayExecutor(address)
    assert time.monotonic() - started < 20
