"""Steps over the whole pool whose work is mapped: workers of Ray decide as threads of one process do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from captions import emoji_names, icon_texts
from corpora import fates, outcome, run_recipe

from corpusmith.pipelines import run as run_module

STEPS = """
  - dedup.exact: {on: [caption], forms: {caption: text}}
  - dedup.minhash: {threshold: 0.6, mark: is_new}
  - dedup.semantic: {epsilon: 0.05, k: 4, mark: is_far}
  - balance: {entries: pool, t: 4, min_count: 2, mark: is_even}
  - resample: {by: language, keep: 0.7}
  - top_fraction: {by: score, keep: 0.9, within: language}
  - keep: "is_even AND (is_new OR is_far)"
"""


def write_pool(path: Path) -> None:
    icons = [f"{label}: {', '.join(terms)}" for label, terms in icon_texts()[:150]]
    texts = [*icons, *(text.upper() for text in icons[:30]), *emoji_names("en")[:150], *emoji_names("ja")[:60]]
    draw = np.random.default_rng(0)
    near = draw.normal(size=(20, 16))[draw.integers(0, 20, len(texts))] + draw.normal(size=(len(texts), 16)) * 0.1
    columns = {
        "url": [f"https://pictures.example/{i % 300}.png?utm_source={i}" for i in range(len(texts))],
        "caption": texts,
        "language": ["ja" if text in emoji_names("ja") else "en" for text in texts],
        "score": draw.integers(0, 50, len(texts)),
        "embedding": pa.array(list(near.astype(np.float32))),
    }
    pq.write_table(pa.table(columns), path)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_workers_decide_as_one_process_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pool(tmp_path / "pool.parquet")
    text = f"corpus: curated\ninput: {{path: {tmp_path / 'pool.parquet'}}}\nsteps:{STEPS}"
    run_recipe(text, tmp_path / "inline")
    monkeypatch.setattr(run_module, "CHEAP_STREAM_ROWS", 0)
    run_recipe(text, tmp_path / "ray", executor="ray")
    assert outcome(tmp_path / "ray") == outcome(tmp_path / "inline")
    steps = {row["step"] for row in fates(tmp_path / "ray").values() if row["fate"] == "rejected"}
    assert steps == {"dedup.exact", "resample", "top_fraction", "keep"}
