"""Steps over the whole pool decide the same however the pool is cut, and by whomever it is worked on."""

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
  - text_counts: {column: url}
  - dedup.perceptual: {radius: 3, only_if: [language], mark: is_unlike}
  - dedup.minhash: {threshold: 0.6, mark: is_new}
  - dedup.semantic: {epsilon: 0.05, k: 4, mark: is_far}
  - balance: {entries: pool, t: 4, min_count: 2, mark: is_even}
  - cluster_select: {reference: REFERENCE, k: 6, mark: in_clusters}
  - resample: {by: language, keep: 0.8}
  - quota: {by: cluster, at_most: 60}
  - top_fraction: {by: score, keep: 0.9, within: language}
  - keep: "is_even AND (is_new OR is_far OR is_unlike OR in_clusters)"
"""


def pool() -> pa.Table:
    icons = [f"{label}: {', '.join(terms)}" for label, terms in icon_texts()[:150]]
    texts = [*icons, *(text.upper() for text in icons[:30]), *emoji_names("en")[:150], *emoji_names("ja")[:60]]
    draw = np.random.default_rng(0)
    near = draw.normal(size=(20, 16))[draw.integers(0, 20, len(texts))] + draw.normal(size=(len(texts), 16)) * 0.1
    hashes = draw.integers(0, 2**63, 40)[draw.integers(0, 40, len(texts))] ^ (1 << draw.integers(0, 60, len(texts)))
    columns = {
        "url": [f"https://pictures.example/{i % 300}.png" for i in range(len(texts))],
        "caption": texts,
        "language": ["ja" if text in emoji_names("ja") else "en" for text in texts],
        "score": draw.integers(0, 50, len(texts)),
        "phash": [f"{number:016x}" for number in hashes.tolist()],
        "embedding": pa.array(list(near.astype(np.float32))),
    }
    return pa.table(columns)


def recipe(folder: Path, rows: pa.Table, files: int) -> str:
    """A recipe over the rows, shuffled and cut into so many files."""
    (folder / f"in-{files}").mkdir()
    shuffled = rows.take(pa.array(np.random.default_rng(files).permutation(rows.num_rows)))
    for file, places in enumerate(np.array_split(np.arange(rows.num_rows), files)):
        pq.write_table(shuffled.take(pa.array(places)), folder / f"in-{files}" / f"{file}.parquet")
    np.save(folder / "reference.npy", np.stack(rows.column("embedding").to_pylist()[:40]))
    steps = STEPS.replace("REFERENCE", str(folder / "reference.npy"))
    return f"corpus: curated\ninput: {{path: {folder / f'in-{files}'}}}\nsteps:{steps}"


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_neither_files_nor_workers_change_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = pool()
    run_recipe(recipe(tmp_path, rows, 1), tmp_path / "1")
    one = outcome(tmp_path / "1")
    steps = {row["step"] for row in fates(tmp_path / "1").values() if row["fate"] == "rejected"}
    assert steps == {"dedup.exact", "resample", "quota", "top_fraction", "keep"}
    for files in (7, 64):
        run_recipe(recipe(tmp_path, rows, files), tmp_path / str(files))
        assert outcome(tmp_path / str(files)) == one
    monkeypatch.setattr(run_module, "CHEAP_STREAM_ROWS", 0)
    run_recipe(recipe(tmp_path, rows, 2), tmp_path / "ray", executor="ray")
    assert outcome(tmp_path / "ray") == one
