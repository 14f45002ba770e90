"""Verification: a sound corpus has no problem, and each kind of damage is found and named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fakes  # noqa: F401 (registers operators)
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import run_recipe, write_rows

from corpusmith.pipelines.run import record_of
from corpusmith.pipelines.storage import Storage
from corpusmith.pipelines.verify import finished_manifest, verify
from corpusmith.schemas.errors import UserError


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory, calls_path: Path) -> Path:
    """A corpus with all four fates and several shards, without its work folder."""
    folder = tmp_path_factory.mktemp("sound")
    write_rows(folder / "in.parquet", range(120), url=lambda i: f"http://web/{'fail' if i % 10 == 3 else 'ok'}/{i}")
    steps = ["fake_score", {"fake_fetch": {"size": 64}}, {"keep": "score >= 200"}, "fake_crops"]
    recipe = {"corpus": "sound", "input": {"path": str(folder / "in.parquet")}, "steps": steps}
    run_recipe(json.dumps({**recipe, "output": {"samples_per_shard": 30}}), folder / "corpus")
    shutil.rmtree(folder / "corpus" / ".work")
    return folder / "corpus"


@pytest.fixture
def corpus(sound: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(sound, tmp_path / "corpus"))


def problems(corpus: Path) -> list[str]:
    """What verification finds."""
    return verify(Storage(str(corpus)))


def change_manifest(corpus: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Edit the manifest as JSON."""
    manifest = json.loads((corpus / "manifest.json").read_text())
    change(manifest)
    (corpus / "manifest.json").write_text(json.dumps(manifest))


def change_ledger(corpus: Path, change: Callable[[pa.Table], pa.Table], *, hide: bool = True) -> None:
    """Edit the ledger; if `hide`, the manifest gets the new file's hash, so that only its content can tell."""
    path = corpus / "ledger" / "00000.parquet"
    pq.write_table(change(pq.read_table(path)), path)
    if hide:
        record = record_of(Storage(str(corpus)), "ledger/00000.parquet").model_dump()
        change_manifest(corpus, lambda manifest: manifest["ledger"].update({"ledger/00000.parquet": record}))


def with_fate(table: pa.Table, row: int, fate: str) -> pa.Table:
    """The ledger with one row's fate changed."""
    fates = table.column("fate").to_pylist()
    fates[row] = fate
    return table.set_column(table.schema.get_field_index("fate"), "fate", pa.array(fates))


def test_a_sound_corpus_has_no_problem(corpus: Path) -> None:
    stages: list[str] = []
    assert verify(Storage(str(corpus)), stages.append) == []
    assert len(stages) == 3
    counts = finished_manifest(Storage(str(corpus))).counts
    assert min(counts.kept, counts.rejected, counts.failed, counts.split, counts.rows_made) > 0
    assert len(list((corpus / "shards").glob("*.tar"))) >= 3


@pytest.mark.parametrize("suffix", [".tar", ".parquet"])
def test_a_flipped_byte(corpus: Path, suffix: str) -> None:
    path = corpus / "shards" / f"00001{suffix}"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert problems(corpus) == [f"shards/00001{suffix}: its sha256 is not the manifest's"]


def test_a_flipped_byte_of_the_ledger(corpus: Path) -> None:
    path = corpus / "ledger" / "00000.parquet"
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    assert problems(corpus) == ["ledger/00000.parquet: its sha256 is not the manifest's"]


def test_a_file_cut_short(corpus: Path) -> None:
    path = corpus / "shards" / "00000.tar"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-512])
    assert problems(corpus) == [f"shards/00000.tar: {size - 512} bytes, the manifest says {size}"]


def test_deleted_files(corpus: Path) -> None:
    for path in (corpus / "shards").glob("00002*"):
        path.unlink()
    assert problems(corpus) == [f"shards/00002{suffix}: missing" for suffix in (".tar", ".parquet", "_stats.json")]


def test_an_extra_shard(corpus: Path) -> None:
    shutil.copy(corpus / "shards" / "00000.tar", corpus / "shards" / "00009.tar")
    assert problems(corpus) == ["shards/00009.tar: not in the manifest"]


def test_a_shard_swapped_for_another(corpus: Path) -> None:
    """Whole in itself, in the wrong place."""
    shutil.copy(corpus / "shards" / "00000.parquet", corpus / "shards" / "00001.parquet")
    record = record_of(Storage(str(corpus)), "shards/00001.parquet").model_dump()
    change_manifest(corpus, lambda m: m["shards"][1]["files"].update({"shards/00001.parquet": record}))
    found = problems(corpus)
    assert any("sample missing in the tar" in problem for problem in found)
    assert "shards: some uid is there more than once" in found


def test_a_ledger_row_that_stands_twice(corpus: Path) -> None:
    change_ledger(corpus, lambda table: pa.concat_tables([table, table.slice(0, 1)]))
    found = problems(corpus)
    assert "ledger: some uid has more than one fate" in found
    assert any("do not add up" in problem for problem in found)


def test_a_ledger_row_that_is_gone(corpus: Path) -> None:
    change_ledger(corpus, lambda table: table.slice(1))
    assert any("do not add up" in problem for problem in problems(corpus))


@pytest.mark.parametrize("fate", ["rejected", "failed", "lost"])
def test_a_changed_fate(corpus: Path, fate: str) -> None:
    kept = pq.read_table(corpus / "ledger" / "00000.parquet").column("fate").to_pylist().index("kept")
    change_ledger(corpus, lambda table: with_fate(table, kept, fate))
    found = problems(corpus)
    assert any(problem.startswith("shards hold ") for problem in found)
    assert any(" rows kept, the manifest says " in problem for problem in found)
    assert any("unknown fates ['lost']" in problem for problem in found) == (fate == "lost")


def test_two_fates_exchanged_so_that_the_counts_agree(corpus: Path) -> None:
    fates = pq.read_table(corpus / "ledger" / "00000.parquet").column("fate").to_pylist()
    kept, rejected = fates.index("kept"), fates.index("rejected")
    change_ledger(corpus, lambda table: with_fate(with_fate(table, kept, "rejected"), rejected, "kept"))
    (problem,) = problems(corpus)
    assert "1 of them not in the ledger" in problem


@pytest.mark.parametrize("count", ["kept", "rejected", "failed", "split", "rows_made", "rows_in"])
def test_a_changed_count(corpus: Path, count: str) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["counts"][count] += 1

    change_manifest(corpus, change)
    (problem,) = problems(corpus)
    assert problem.startswith("ledger: ")


def test_a_changed_number_of_samples(corpus: Path) -> None:
    change_manifest(corpus, lambda manifest: manifest["shards"][1].update(samples=5))
    (problem,) = problems(corpus)
    assert problem.startswith("shards/00001.parquet: ")
    assert problem.endswith("the manifest says 5")


def test_a_gap_in_the_numbers(corpus: Path) -> None:
    for path in (corpus / "shards").glob("00001*"):
        path.unlink()
    change_manifest(corpus, lambda manifest: manifest["shards"].pop(1))
    assert problems(corpus) == ["shard numbers have gaps: 1 missing"]


def test_a_shard_under_a_wrong_number(corpus: Path) -> None:
    change_manifest(corpus, lambda manifest: manifest["shards"].reverse())
    assert problems(corpus) == ["shard numbers are out of order, or some come twice"]


def test_a_manifest_without_a_shards_file(corpus: Path) -> None:
    change_manifest(corpus, lambda manifest: manifest["shards"][0]["files"].pop("shards/00000.tar"))
    assert problems(corpus) == [
        "shard 0: the manifest lists no .tar file",
        "shards/00000.tar: not in the manifest",
    ]


@pytest.mark.parametrize("damage", ["{", '{"format": 1}', ""])
def test_a_damaged_manifest_is_told(corpus: Path, damage: str) -> None:
    (corpus / "manifest.json").write_text(damage)
    with pytest.raises(UserError, match="damaged"):
        problems(corpus)


def test_what_is_not_finished_cannot_be_verified(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no manifest"):
        problems(tmp_path)


def test_a_corpus_without_samples_is_sound(tmp_path: Path, calls_path: Path) -> None:
    write_rows(tmp_path / "in.parquet", range(5))
    recipe = f"corpus: none\ninput: {{path: '{tmp_path}/in.parquet'}}\nsteps: [fake_score, {{keep: score < 0}}]\n"
    run_recipe(recipe, tmp_path / "corpus")
    assert problems(tmp_path / "corpus") == []
    assert list((tmp_path / "corpus" / "shards").glob("*")) == []
