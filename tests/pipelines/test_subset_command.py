"""`corpusmith subset`: what NumPy reads is what DataComp's code would have written; and back in as a step."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from captions import emoji_names
from corpora import fates, run_recipe

from corpusmith.pipelines.cli import main
from corpusmith.schemas.identity import uid_of

RECIPE = """
corpus: pool
input: {{path: {path}, url: null, caption: text, source_uid: uid}}
steps:
  - keep: "length(caption) > 10"
  - keep: "caption LIKE '% %'"
"""


def corpusmith(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return int(str(caught.value.code))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of names of emoji whose source gives ids as DataComp's metadata does."""
    folder = tmp_path_factory.mktemp("pool")
    texts = list(emoji_names("en"))[:300]
    ids = [uid_of("theirs", text) for text in texts]
    pq.write_table(pa.table({"uid": ids, "text": texts}), folder / "pool.parquet")
    run_recipe(RECIPE.format(path=folder / "pool.parquet"), folder / "out")
    return folder / "out"


def datacomp_array(uids: list[str]) -> np.ndarray:
    """What DataComp's baselines save: the expression is theirs."""
    array = np.array([(int(uid[:16], 16), int(uid[16:32], 16)) for uid in uids], np.dtype("u8,u8"))
    array.sort()
    return array


@pytest.mark.parametrize(
    ("options", "by", "fate", "step"),
    [
        ((), "source_uid", "kept", None),
        (("--uid", "uid"), "uid", "kept", None),
        (("--step", "keep#2"), "source_uid", "rejected", "keep#2"),
        (("--fate", "rejected"), "source_uid", "rejected", ...),
        (("--fate", "failed", "--step", "keep"), "source_uid", "failed", "keep"),
    ],
)
def test_files_are_those_that_datacomp_writes(
    corpus: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    by: str,
    fate: str,
    step: str | None,
) -> None:
    wanted = [row[by] for row in fates(corpus).values() if row["fate"] == fate and step in (row["step"], ...)]
    assert corpusmith("subset", str(corpus), str(tmp_path / "out.npy"), *options) == 0
    array = np.load(tmp_path / "out.npy")
    expected = datacomp_array(wanted)
    assert array.dtype == expected.dtype == np.dtype("u8,u8")
    assert array.tolist() == expected.tolist()
    assert bool(wanted) == (fate != "failed")
    assert capsys.readouterr().out == f"wrote {len(wanted):,} ids to {tmp_path / 'out.npy'}\n"
    np.save(tmp_path / "theirs.npy", expected)
    assert (tmp_path / "out.npy").read_bytes() == (tmp_path / "theirs.npy").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.npy", "theirs.npy"]


def test_a_subset_goes_back_in_as_a_step(corpus: Path, tmp_path: Path) -> None:
    assert corpusmith("subset", str(corpus), str(tmp_path / "kept.npy")) == 0
    pool = corpus.parent / "pool.parquet"
    head = f"corpus: again\ninput: {{path: {pool}, url: null, caption: text, source_uid: uid}}\n"
    run_recipe(f"{head}steps: [subset: {json.dumps(str(tmp_path / 'kept.npy'))}]", tmp_path / "out")
    again, before = fates(tmp_path / "out"), fates(corpus)
    assert {uid: row["fate"] for uid, row in again.items()} == {uid: row["fate"] for uid, row in before.items()}


def test_ids_that_are_no_numbers_and_steps_that_are_none(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pq.write_table(pa.table({"uid": ["a7"], "text": ["a long text of words"]}), tmp_path / "pool.parquet")
    run_recipe(RECIPE.format(path=tmp_path / "pool.parquet"), tmp_path / "out")
    output = str(tmp_path / "x.npy")
    assert corpusmith("subset", str(tmp_path / "out"), output) == 2
    assert "the id 'a7' as source_uid" in (told := capsys.readouterr().err) and "--uid uid" in told
    assert corpusmith("subset", str(tmp_path / "out"), output, "--uid", "uid") == 0
    assert corpusmith("subset", str(corpus), output, "--step", "image") == 2
    assert "steps that decided fates: keep, keep#2" in capsys.readouterr().err
    assert corpusmith("subset", str(corpus), str(tmp_path / "no" / "x.npy")) == 2
    assert "no such folder" in capsys.readouterr().err


def test_samples_that_share_an_id_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pa.table({"uid": ["0" * 32] * 2, "text": ["one text of words", "another text of words"]})
    pq.write_table(table, tmp_path / "pool.parquet")
    run_recipe(RECIPE.format(path=tmp_path / "pool.parquet"), tmp_path / "out")
    assert corpusmith("subset", str(tmp_path / "out"), str(tmp_path / "x.npy")) == 0
    assert "1 samples have an id that another has" in capsys.readouterr().err
    assert np.load(tmp_path / "x.npy").tolist() == [(0, 0)]
