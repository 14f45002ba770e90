"""`Rows.map`: pieces of the live rows, in threads here or in workers of Ray, each row once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from corpora import fates, outcome, run_recipe, write_rows

from corpusmith.operators.contract import Reduce, Reduced, Rows
from corpusmith.operators.registry import register
from corpusmith.pipelines import run as run_module

ROWS = 600


class CountWords:
    """Counts words by the number that a table holds for each; the table stands for a large list."""

    def __init__(self) -> None:
        self.table = np.arange(1 << 20)

    def __call__(self, piece: pa.Table) -> tuple[list[str], int, int]:
        assert piece.schema.names == ["uid", "caption"]
        return piece.column("uid").to_pylist(), int(self.table[piece.num_rows]), id(self.table)


@register
class FakeMapped(Reduce, name="fake_mapped", version=1):
    """Rejects rows that come in pieces of odd length: none, where each row comes once."""

    @property
    def requires(self) -> tuple[str, ...]:
        return ("caption",)

    def reduce(self, rows: Rows) -> Reduced:
        seen: Counter[str] = Counter()
        sizes = []
        for uids, size, _ in rows.map(CountWords(), ["caption"]):
            seen.update(uids)
            sizes.append(size)
        assert sum(sizes) == rows.count == len(seen)
        decided: dict[str, Any] = {"uid": sorted(seen), "fate": pa.nulls(len(seen), pa.string())}
        nothing = pa.nulls(len(seen), pa.string())
        return Reduced(pa.table({**decided, "reason": nothing, "error": nothing}), {"pieces": len(sizes)})


def recipe(folder: Path) -> str:
    steps = ["fake_score", "keep: score < 500", "fake_mapped"]
    lines = "\n".join(f"  - {step}" for step in steps)
    return f"corpus: m\ninput: {{path: {folder / 'in.parquet'}}}\nsteps:\n{lines}\n"


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_each_live_row_comes_once_in_threads_and_on_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_rows(tmp_path / "in.parquet", range(ROWS))
    run_recipe(recipe(tmp_path), tmp_path / "inline")
    monkeypatch.setattr(run_module, "CHEAP_STREAM_ROWS", 0)
    run_recipe(recipe(tmp_path), tmp_path / "ray", executor="ray")
    assert outcome(tmp_path / "inline") == outcome(tmp_path / "ray")
    assert 0 < sum(row["fate"] == "kept" for row in fates(tmp_path / "ray").values()) < ROWS
