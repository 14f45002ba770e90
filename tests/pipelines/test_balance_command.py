"""`corpusmith balance`: what the operator decides, on files however cut, and a clear word for what is wrong."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from captions import drawn_captions, emoji_names, real_titles
from shuffled import ShuffledRows, decided

from corpusmith.operators.balance.balance import Balance
from corpusmith.pipelines.cli import main
from corpusmith.schemas.identity import uids_of_urls

ROWS = 4000


def pool(count: int = ROWS) -> pa.Table:
    """Captions drawn from real titles, with URLs, one in fifty without a caption, one in a hundred the row before."""
    captions = pa.concat_arrays(list(drawn_captions(count))).to_pylist()
    captions = [None if i % 50 == 7 else caption for i, caption in enumerate(captions)]
    urls = [f"http://host/{i}" for i in range(count)]
    for i in range(100, count, 100):
        captions[i], urls[i] = captions[i - 1], urls[i - 1]
    return pa.table({"url": urls, "caption": captions, "n": pa.array(range(count), pa.int32())})


@pytest.fixture(scope="module")
def captions() -> pa.Table:
    return pool()


@pytest.fixture
def entries(tmp_path: Path) -> str:
    path = tmp_path / "entries.txt"
    path.write_text("\n".join([*real_titles(), real_titles()[0]]))
    return str(path)


def told(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    """Run the command: exit code, stdout, stderr."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["balance", *map(str, arguments)])
    assert isinstance(ended.value.code, int)
    out, error = capsys.readouterr()
    return ended.value.code, out, error


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """What the command says to something that the user can mend."""
    code, _, error = told(capsys, *arguments)
    assert code == 2
    assert "Traceback" not in error
    return " ".join(error.split())


def by_operator(table: pa.Table, folder: Path, seed: int = 0, **config: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """uid → decision, and the summary; rows that are alike count each, and have one decision."""
    uids = uids_of_urls(table.column("url").to_pylist(), table.column("caption").to_pylist())
    rows = table.append_column("uid", pa.array(uids))
    reduced = Balance(Balance.Config(**config), seed=seed).reduce(ShuffledRows(rows, folder, order=1))
    return {row["uid"]: row for row in decided(reduced).to_pylist()}, dict(reduced.summary)


def write_files(table: pa.Table, folder: Path, files: int, order: int) -> Path:
    """The rows shuffled, in so many files, in row groups of some size."""
    folder.mkdir()
    places = random.Random(order).sample(range(len(table)), len(table))
    cuts = [len(places) * i // files for i in range(files + 1)]
    for i in range(files):
        part = table.take(pa.array(places[cuts[i] : cuts[i + 1]], pa.int64()))
        pq.write_table(part, folder / f"{i:03d}.parquet", row_group_size=order + 50)
    return folder


def test_decides_as_the_operator_does(
    captions: pa.Table, entries: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pq.write_table(captions, tmp_path / "pool.parquet")
    arguments = ["--entries", entries, "--t", "5", "--seed", "3", "-o", tmp_path / "kept.parquet"]
    code, out, _ = told(capsys, tmp_path / "pool.parquet", *arguments)
    assert code == 0
    kept = pq.read_table(tmp_path / "kept.parquet")
    expected, summary = by_operator(captions, tmp_path, seed=3, entries=entries, t=5)
    uids = uids_of_urls(captions.column("url").to_pylist(), captions.column("caption").to_pylist())
    stay = pa.array([expected[uid]["fate"] is None for uid in uids])
    assert kept.equals(captions.filter(stay))
    assert 0 < kept.num_rows < 0.9 * len(captions)
    counts = json.loads((tmp_path / "kept.json").read_text())
    assert {key: counts[key] for key in summary} == summary
    assert (counts["identity"], counts["seed"], counts["files"]) == ("url and caption", 3, 1)
    assert f"t = 5: {kept.num_rows:,} of {len(captions):,} rows kept" in out
    assert f"{summary['failed']} without a text" in out


@pytest.mark.parametrize("arguments", [["--t", "4"], ["--tail-share", "0.2", "--online"]])
def test_order_and_sharding_change_nothing(
    arguments: Sequence[str], captions: pa.Table, entries: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcomes = []
    for order, files in enumerate((1, 7, 64)):
        folder = write_files(captions, tmp_path / f"in{files}", files, order)
        output = tmp_path / f"out{files}.parquet"
        assert told(capsys, folder, "--entries", entries, *arguments, "--cpus", str(order + 1), "-o", output)[0] == 0
        counts = json.loads(output.with_suffix(".json").read_text())
        assert counts.pop("files") == files
        outcomes.append((pq.read_table(output).sort_by("n").to_pydict(), counts))
    assert outcomes[0] == outcomes[1] == outcomes[2]


def test_rows_that_are_alike_stay_or_go_together(
    captions: pa.Table, entries: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pq.write_table(captions, tmp_path / "pool.parquet")
    assert (
        told(capsys, tmp_path / "pool.parquet", "--entries", entries, "--t", "3", "-o", tmp_path / "k.parquet")[0] == 0
    )
    kept = set(pq.read_table(tmp_path / "k.parquet").column("n").to_pylist())
    pairs = [(i in kept, i - 1 in kept) for i in range(100, ROWS, 100)]
    assert set(pairs) == {(True, True), (False, False)}


def test_all_of_one_kind_of_list(captions: pa.Table, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Entries that are made of the pool itself, over several files."""
    folder = write_files(captions, tmp_path / "in", 3, 0)
    assert told(capsys, folder, "--tail-share", "0.1", "-o", tmp_path / "kept.parquet")[0] == 0
    _, summary = by_operator(captions, tmp_path, entries="pool", tail_share=0.1)
    counts = json.loads((tmp_path / "kept.json").read_text())
    assert {key: counts[key] for key in summary} == summary
    assert counts["entries"] > 100


def test_online_writes_all_rows_and_their_weight(
    captions: pa.Table, entries: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pq.write_table(captions, tmp_path / "pool.parquet")
    arguments = ["--entries", entries, "--t", "5", "--online", "-o", tmp_path / "all.parquet"]
    _, out, _ = told(capsys, tmp_path / "pool.parquet", *arguments)
    weighted = pq.read_table(tmp_path / "all.parquet")
    assert weighted.drop_columns("balance_probability").equals(captions)
    expected, _ = by_operator(captions, tmp_path, entries=entries, t=5)
    uids = uids_of_urls(captions.column("url").to_pylist(), captions.column("caption").to_pylist())
    assert weighted.column("balance_probability").to_pylist() == [expected[u]["balance_probability"] for u in uids]
    assert weighted.column("balance_probability").null_count == captions.column("caption").null_count
    assert "taken by a draw" in out


def test_languages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tongues = ("en", "de", "ja", "ar", "zh")
    rows = [(language, name) for language in tongues for name in emoji_names(language)]
    table = pa.table(
        {
            "uid": [f"r{i}" for i in range(len(rows))],
            "text": [name for _, name in rows],
            "language": [language for language, _ in rows],
        }
    )
    lists = {language: [name for name in emoji_names(language) if len(name) < 12] for language in tongues}
    (tmp_path / "entries.json").write_text(json.dumps(lists))
    pq.write_table(table, tmp_path / "pool.parquet")
    arguments = ["--text-column", "text", "--language-column", "language", "--rule", "metaclip2", "--t", "3"]
    arguments += ["--entries", str(tmp_path / "entries.json"), "-o", str(tmp_path / "kept.parquet")]
    assert told(capsys, tmp_path / "pool.parquet", *arguments)[0] == 0
    counts = json.loads((tmp_path / "kept.json").read_text())
    assert {one["language"] for one in counts["languages"]} == set(tongues)
    assert all(0 < one["taken"] < one["rows"] for one in counts["languages"])
    kept = pq.read_table(tmp_path / "kept.parquet")
    config = Balance.Config(entries=arguments[-3], t=3, rule="metaclip2", language_column="language", column="text")
    rows_of = {row["uid"]: row for row in decided(Balance(config).reduce(ShuffledRows(table, tmp_path))).to_pylist()}
    assert set(kept.column("uid").to_pylist()) == {uid for uid, row in rows_of.items() if row["fate"] is None}


def test_a_column_of_ids(captions: pa.Table, entries: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows without one are drawn by URL and text."""
    ids = [None if i % 3 else f"id{i}" for i in range(ROWS)]
    table = captions.append_column("id", pa.array(ids, pa.string()))
    pq.write_table(table, tmp_path / "pool.parquet")
    arguments = ["--entries", entries, "--t", "5", "--uid-column", "id", "-o", tmp_path / "kept.parquet"]
    assert told(capsys, tmp_path / "pool.parquet", *arguments)[0] == 0
    identities = uids_of_urls(captions.column("url").to_pylist(), captions.column("caption").to_pylist())
    rows = captions.append_column("uid", pa.array([a or b for a, b in zip(ids, identities, strict=True)]))
    reduced = Balance(Balance.Config(entries=entries, t=5)).reduce(ShuffledRows(rows, tmp_path))
    fates = {row["uid"]: row["fate"] for row in decided(reduced).to_pylist()}
    stay = [fates[uid] is None for uid in rows.column("uid").to_pylist()]
    assert pq.read_table(tmp_path / "kept.parquet").column("n").to_pylist() == [i for i in range(ROWS) if stay[i]]


def test_dry_run_writes_nothing(
    captions: pa.Table, entries: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pq.write_table(captions, tmp_path / "pool.parquet")
    arguments = ["--entries", entries, "--t", "5", "--dry-run", "-o", tmp_path / "out" / "kept.parquet"]
    code, out, error = told(capsys, tmp_path / "pool.parquet", *arguments)
    assert code == 0
    assert f"of {ROWS:,} rows kept" in out
    assert "nothing is written" in error
    assert not (tmp_path / "out").exists()


def test_urls_of_file_systems(captions: pa.Table, entries: str, capsys: pytest.CaptureFixture[str]) -> None:
    memory = fsspec.filesystem("memory")
    with memory.open("/balance/in/pool.parquet", "wb") as file:
        pq.write_table(captions, file)
    arguments = ["--entries", entries, "--t", "5", "-o", "memory://balance/out/kept.parquet"]
    assert told(capsys, "memory://balance/in", *arguments)[0] == 0
    with memory.open("/balance/out/kept.parquet") as file:
        assert 0 < pq.read_table(file).num_rows < ROWS
    assert json.loads(memory.cat("/balance/out/kept.json"))["rows"] == ROWS
    assert "is there already" in refused(capsys, "memory://balance/in", *arguments)
    memory.rm("/balance", recursive=True)


def test_nothing_is_written_over(
    captions: pa.Table, entries: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pq.write_table(captions, tmp_path / "pool.parquet")
    arguments = [tmp_path / "pool.parquet", "--entries", entries, "--t", "5"]
    assert "the output is among the input" in refused(
        capsys, *arguments, "--overwrite", "-o", tmp_path / "pool.parquet"
    )
    (tmp_path / "kept.json").write_text("mine")
    assert "kept.json: is there already" in refused(capsys, *arguments, "-o", tmp_path / "kept.parquet")
    assert told(capsys, *arguments, "--overwrite", "-o", tmp_path / "kept.parquet")[0] == 0
    before = (tmp_path / "kept.parquet").read_bytes()
    assert "is there already" in refused(capsys, *arguments, "-o", tmp_path / "kept.parquet")
    assert (tmp_path / "kept.parquet").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--t", "0"], "--t: Input should be greater than or equal to 1"),
        (["--t", "5", "--tail-share", "0.1"], "not both"),
        (["--t", "5", "--rule", "metaclip3"], "--rule"),
        (["--t", "5", "--entries", "/nowhere/list.txt"], "--entries: "),
        (
            ["--t", "5", "--text-column", "text"],
            "there is no column 'text' --text-column NAME? columns: url, caption, n",
        ),
        (["--t", "5", "--language-column", "lang"], "there is no column 'lang'"),
        (["--t", "5", "--text-column", "n"], "'n' is int32 and not text"),
        (["--t", "5", "-o", "kept"], "one Parquet file"),
    ],
)
def test_what_is_refused(
    arguments: list[str], message: str, captions: pa.Table, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pq.write_table(captions.slice(0, 50), tmp_path / "pool.parquet")
    output = [] if "-o" in arguments else ["-o", str(tmp_path / "kept.parquet")]
    assert message in refused(capsys, tmp_path / "pool.parquet", *arguments, *output)
    assert not (tmp_path / "kept.parquet").exists()


def test_files_that_are_refused(captions: pa.Table, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = ["--t", "5", "-o", tmp_path / "kept.parquet"]
    assert "no such file" in refused(capsys, tmp_path / "none.parquet", *output)
    (tmp_path / "a.csv").write_text("caption\na\n")
    assert "no Parquet file" in refused(capsys, tmp_path / "a.csv", *output)
    (tmp_path / "b.parquet").write_bytes(b"PAR1 and not much more")
    assert "cannot be read" in refused(capsys, tmp_path / "b.parquet", *output)
    folder = write_files(captions, tmp_path / "in", 2, 0)
    pq.write_table(captions.drop_columns("n").append_column("n", pa.array(["1"] * ROWS)), folder / "009.parquet")
    assert "n is string, not int32" in refused(capsys, folder, *output)
    (folder / "009.parquet").unlink()
    whole = (folder / "001.parquet").read_bytes()
    (folder / "001.parquet").write_bytes(b"\0" * 20_000 + whole[20_000:])
    assert "cannot be read" in refused(capsys, folder, *output)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "b.parquet", "in"]


def test_pools_with_little_in_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = pa.table({"caption": pa.array([], pa.string())})
    invalid = pa.array([b"a word", b"\xff\xfe", b"", None]).cast(pa.binary()).view(pa.binary())
    texts = pa.Array.from_buffers(pa.string(), 4, invalid.buffers())
    for name, table in {"empty": empty, "invalid": pa.table({"caption": texts})}.items():
        pq.write_table(table, tmp_path / f"{name}.parquet")
        (tmp_path / "words.txt").write_text("word\nnever\n")
        arguments = ["--entries", tmp_path / "words.txt", "--t", "5", "-o", tmp_path / f"{name}-kept.parquet"]
        assert told(capsys, tmp_path / f"{name}.parquet", *arguments)[0] == 0
    assert pq.read_table(tmp_path / "empty-kept.parquet").equals(empty)
    assert pq.read_table(tmp_path / "invalid-kept.parquet").column("caption").to_pylist() == ["a word"]
    counts = json.loads((tmp_path / "invalid-kept.json").read_text())
    assert (counts["rows"], counts["failed"], counts["rows_unmatched"], counts["kept"]) == (4, 2, 1, 1)
