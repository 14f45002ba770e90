"""Shares: limits of a run as a whole are kept however many workers there are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import ray_fakes  # noqa: F401 (registers operators)
from corpora import run_recipe, write_rows
from fakes import calls

from corpusmith.pipelines.cluster import RayExecutor

pytestmark = pytest.mark.usefixtures("counted")


def shares(folder: Path, executor: str, *, rows: int = 1200) -> dict[int, float]:
    """Process → share, of the workers that a run has set up."""
    write_rows(folder / "rows.parquet", range(rows))
    recipe = f"corpus: shares\ninput: {{path: '{folder}/rows.parquet'}}\nsteps: [fake_score, fake_share]\n"
    run_recipe(recipe, folder / "corpus", executor=executor)
    told = [call.split(":") for call in calls("fake_share")]
    assert len(told) == len({pid for pid, _ in told}), "each worker is set up once"
    return {int(pid): float(share) for pid, share in told}


def test_one_process_does_all(tmp_path: Path) -> None:
    assert shares(tmp_path, "inline") == {os.getpid(): 1.0}


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_workers_of_a_ray_that_was_there_share_alike(tmp_path: Path) -> None:
    assert list(shares(tmp_path, "ray").values()) == [0.5, 0.5]


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_the_driver_that_begins_has_its_share_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = RayExecutor.__init__

    def on_this_machine(self: RayExecutor, *arguments: object) -> None:
        before(self, *arguments)  # type: ignore[arg-type]
        self._is_local = True

    monkeypatch.setattr(RayExecutor, "__init__", on_this_machine)
    found = shares(tmp_path, "ray")
    assert os.getpid() in found, "the driver works, too"
    assert len(found) == 3
    assert sum(found.values()) == pytest.approx(1.0)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_a_single_unit_has_one_worker_with_all(tmp_path: Path) -> None:
    assert list(shares(tmp_path, "ray", rows=20).values()) == [1.0]
