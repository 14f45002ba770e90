"""`corpusmith entries`: lists from every source by commands alone, and what is said when one cannot be made."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from captions import drawn_captions, emoji_languages, emoji_names
from wordnet_files import write_wordnet

from corpusmith.operators.balance.entry_files import list_metadata, read_entries, read_table
from corpusmith.pipelines.cli import main


def corpusmith(*arguments: str | Path) -> int:
    """Run a command in this process; returns its exit code."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: texts, titles, a WordNet and a list lie there."""
    write_wordnet(tmp_path / "wordnet")
    texts = [text for batch in drawn_captions(3000, 2) for text in batch.to_pylist()]
    pq.write_table(pa.table({"caption": texts}), tmp_path / "captions.parquet")
    (tmp_path / "views.csv").write_text("title,views\nNew_York,60\nNew_York,10\nTalk:Cats,900\nrare,3\nbad,x\n!,99\n")
    (tmp_path / "list.txt").write_text("cat\ndog\ncat\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path


def entries_of(path: Path, source: str) -> list[str]:
    return [row["entry"] for row in read_table(str(path)).to_pylist() if row["source"] == source]


def test_help_has_examples_as_they_are_typed(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("build", "show"):
        assert corpusmith("entries", command, "--help") == 0
        text = capsys.readouterr().out
        assert f"    corpusmith entries {command} " in text
        for ugly in ("\b", "list[", "<bool>", "Annotated"):
            assert ugly not in text
    assert corpusmith("--help") == 0
    assert "\n  entries " in capsys.readouterr().out


def test_all_sources_together(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--texts", "captions.parquet", "--min-count", 20, "--bigrams", "--min-pmi", 4, "--min-pair-count", 5]
    sources = [*options, "--wordnet-path", "wordnet", "--titles", "views.csv", "--from", "list.txt"]
    assert corpusmith("entries", "build", "out.parquet", *map(str, sources)) == 0
    told = capsys.readouterr()
    table = read_table("out.parquet")
    order = list(dict.fromkeys(table.column("source").to_pylist()))
    assert order == ["number", "wordnet", "unigram", "bigram", "title", "list"]
    assert entries_of(folder / "out.parquet", "number") == [str(number) for number in range(100)]
    assert entries_of(folder / "out.parquet", "title") == ["New York"]
    # WordNet has a dog already; of the list's own twins both stay
    assert entries_of(folder / "out.parquet", "list") == ["cat", "cat"]
    for row in table.to_pylist():
        assert (row["count"] is not None) == (row["source"] in ("unigram", "bigram"))
        assert (row["pmi"] is not None and row["pmi"] >= 4) == (row["source"] == "bigram")
        assert row["views"] == (70 if row["source"] == "title" else None)
    assert f"{table.num_rows:,} entries" in told.out and read_entries("out.parquet").fingerprint in told.out
    assert "rows whose title has a colon: 1" in told.err
    assert "rows without a title or a whole number of views: 1" in told.err
    assert "entries punctuation alone: 1" in told.err
    built = list_metadata(table)["built"]
    assert [source["source"] for source in built["sources"]] == ["wordnet", "texts", "titles", "list"]
    assert built["sources"][1]["min_pmi"] == 4


def test_order_and_files_of_texts_do_not_matter(folder: Path) -> None:
    options = ["--min-count", "5", "--bigrams", "--min-pmi", "3"]
    assert corpusmith("entries", "build", "one.parquet", "--texts", "captions.parquet", *options) == 0
    texts = pq.read_table("captions.parquet").column("caption").to_pylist()
    random.Random(1).shuffle(texts)
    (folder / "parts").mkdir()
    for part in range(7):
        pq.write_table(pa.table({"caption": texts[part::7]}), folder / "parts" / f"{part}.parquet")
    assert corpusmith("entries", "build", "many.parquet", "--texts", "parts", *options) == 0
    one, many = read_table("one.parquet"), read_table("many.parquet")
    assert one.num_rows > 500
    assert one.equals(many)
    assert list_metadata(one)["fingerprint"] == list_metadata(many)["fingerprint"]


@pytest.mark.parametrize("form", ["csv", "jsonl.gz", "txt"])
def test_formats_of_texts(folder: Path, form: str) -> None:
    texts = [text for text in pq.read_table("captions.parquet").column("caption").to_pylist() if '"' not in text][:500]
    path = folder / f"texts.{form}"
    if form == "csv":
        path.write_text("caption\n" + "".join(f'"{text}"\n' for text in texts), "utf-8")
    elif form == "txt":
        path.write_text("\n".join(texts), "utf-8")
    else:
        path.write_bytes(gzip.compress("".join(json.dumps({"caption": text}) + "\n" for text in texts).encode()))
    pq.write_table(pa.table({"caption": texts}), folder / "same.parquet")
    for name in (path.name, "same.parquet"):
        assert corpusmith("entries", "build", f"{name}.parquet", "--texts", name, "--min-count", "5") == 0
    assert read_table(f"{path.name}.parquet").equals(read_table("same.parquet.parquet"))


def test_lists_of_languages(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [(name, language) for language in emoji_languages() for name in emoji_names(language)[:300]]
    rows += [("ignored ignored", None), (None, "en")]
    pq.write_table(pa.table({"text": [t for t, _ in rows], "lang": [lang for _, lang in rows]}), folder / "ml.parquet")
    texts = ["--texts", "ml.parquet", "--text-column", "text", "--language-column", "lang", "--min-count", "2"]
    chosen = ["--word-share", "0.5", "--max-words", "50", "--bigrams", "--min-pmi", "3", "--max-pairs", "20"]
    assert corpusmith("entries", "build", "ml.out.parquet", "--wordnet-path", "wordnet", *texts, *chosen) == 0
    table = read_table("ml.out.parquet")
    sizes = table.group_by(["language", "source"]).aggregate([([], "count_all")]).to_pylist()
    counts = {(row["language"], row["source"]): row["count_all"] for row in sizes}
    assert {language for language, _ in counts} == {None, *emoji_languages()}
    assert counts[None, "number"] == 100 and counts["en", "wordnet"] > 20
    assert all(
        size <= (50 if source == "unigram" else 20) for (_, source), size in counts.items() if source.endswith("gram")
    )
    assert "ignored" not in table.column("entry").to_pylist()
    assert "rows without a language: 1" in capsys.readouterr().err
    pairs = [row["entry"] for row in table.to_pylist() if (row["language"], row["source"]) == ("zh", "bigram")]
    assert pairs and not any(" " in pair for pair in pairs)


def test_one_language_for_all_that_names_none(folder: Path) -> None:
    (folder / "lists.json").write_text(json.dumps({"ja": ["猫"], "zh": ["猫", "狗"]}))
    sources = ["--numbers", "--titles", "views.csv", "--from", "lists.json", "--from", "list.txt"]
    assert corpusmith("entries", "build", "out.parquet", *sources, "--language", "en") == 0
    found = [(row["entry"], row["language"]) for row in read_table("out.parquet").to_pylist()[100:]]
    assert found == [
        *(("New York", "en"), ("猫", "ja"), ("猫", "zh"), ("狗", "zh")),
        *(("cat", "en"), ("dog", "en"), ("cat", "en")),
    ]


def test_lists_of_other_forms(folder: Path) -> None:
    (folder / "metadata.json").write_text(json.dumps(["b", "a", "b", ""]))
    assert corpusmith("entries", "build", "one.parquet", "--from", "metadata.json") == 0
    assert read_entries("one.parquet").texts.to_pylist() == ["b", "a", "b", ""]
    pq.write_table(pa.table({"entry": ["x", None, "x", "y"], "language": ["en", "en", None, "fr"]}), "table.parquet")
    assert corpusmith("entries", "build", "two.parquet", "--from", "table.parquet", "--from", "one.parquet") == 0
    found = [(row["entry"], row["language"]) for row in read_table("two.parquet").to_pylist()]
    assert found == [("x", "en"), ("x", None), ("y", "fr"), ("b", None), ("a", None), ("b", None), ("", None)]


def test_thresholds_that_are_out_of_reach(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["--texts", "captions.parquet", "--bigrams"]
    assert corpusmith("entries", "build", "out.parquet", *texts) == 0
    assert "no word pair reaches a PMI of 30 bits, the highest has 14." in capsys.readouterr().err
    assert corpusmith("entries", "build", "none.parquet", *texts, "--min-count", "100000") == 2
    assert "no entry was found" in capsys.readouterr().err
    assert not (folder / "none.parquet").exists()


def test_a_dry_run_looks_and_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(folder.iterdir())
    sources = [
        "--wordnet-path",
        "wordnet",
        "--texts",
        "captions.parquet",
        "--titles",
        "views.csv",
        "--from",
        "list.txt",
    ]
    assert corpusmith("entries", "build", "out.parquet", *sources, "--dry-run") == 0
    told = capsys.readouterr().out
    for part in ("wordnet", "captions.parquet; min-count 100", "views.csv; min-views 70", "list.txt, 3 entries"):
        assert part in told
    assert sorted(folder.iterdir()) == before


def test_what_is_there_is_not_replaced_unasked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "out.parquet").write_bytes(b"precious")
    assert corpusmith("entries", "build", "out.parquet", "--numbers") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (folder / "out.parquet").read_bytes() == b"precious"
    assert corpusmith("entries", "build", "out.parquet", "--numbers", "--overwrite") == 0
    first = (folder / "out.parquet").read_bytes()
    assert corpusmith("entries", "build", str(folder / "new" / "out.parquet"), "--numbers") == 0
    assert (folder / "new" / "out.parquet").read_bytes() == first
    assert [path.name for path in (folder / "new").iterdir()] == ["out.parquet"]


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["out.parquet"], "needs a source"),
        (["out.txt", "--numbers"], "is a Parquet"),
        (["out.parquet", "--texts", "nowhere.parquet"], "nowhere.parquet: there is no such file"),
        (["out.parquet", "--texts", "views.csv"], "no column 'caption'"),
        (["out.parquet", "--titles", "list.txt"], "no column 'views'"),
        (["out.parquet", "--titles", "views.csv", "--views-column", "hits"], "set --views-column to one of"),
        (["out.parquet", "--texts", "captions.parquet", "--language-column", "lang"], "set --language-column"),
        (["out.parquet", "--from", "captions.parquet"], "no column 'entry'"),
        (["out.parquet", "--from", "nowhere.json"], "cannot be read"),
        (["out.parquet", "--bigrams", "--numbers"], "--bigrams: word pairs are taken from texts"),
        (
            ["out.parquet", "--texts", "captions.parquet", "--bigrams", "--min-pmi", "nan"],
            "--min-pmi: nan is no number",
        ),
        (["out.parquet", "--texts", "captions.parquet", "--min-count", "0"], "--min-count"),
        (["out.parquet", "--wordnet-path", "nowhere"], "wordnet-base"),
    ],
)
def test_mistakes(folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], what: str) -> None:
    assert corpusmith("entries", "build", *arguments) == 2
    assert what in capsys.readouterr().err
    assert not (folder / "out.parquet").exists()


def test_rows_that_cannot_be_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "bad.txt").write_bytes(b"cat cat\n\xff\xfe cat\n\ncat\n")
    assert corpusmith("entries", "build", "out.parquet", "--texts", "bad.txt", "--min-count", "1") == 0
    assert read_table("out.parquet").column("count").to_pylist() == [3]
    assert "rows that cannot be read: 1" in capsys.readouterr().err


def test_show(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert corpusmith("entries", "show", "list.txt") == 0
    told = capsys.readouterr().out
    assert read_entries("list.txt").fingerprint in told
    assert '"cat", "dog", "cat"' in told
    assert corpusmith("entries", "build", "out.parquet", "--numbers", "--from", "list.txt", "--language", "en") == 0
    capsys.readouterr()
    assert corpusmith("entries", "show", "out.parquet") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[1::2]] == [["number", "100"], ["list", "en", "3"]]
    assert corpusmith("entries", "show", "captions.parquet") == 2
    assert "no entries file" in capsys.readouterr().err
