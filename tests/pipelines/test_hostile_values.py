"""Values that attack whoever prints, stores or opens them, through whole runs: they stay values.

Captions, URLs, ids, carried columns and their names, reasons: nothing of them leaves the corpus' folder, breaks a tar
or a Parquet, or becomes markup in the report; and the report stays small.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import duckdb
import fakes  # noqa: F401 - registers the fake operators
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
from corpora import fates, run_recipe, write_rows

from corpusmith.operators.contract import AnnotateRows
from corpusmith.operators.registry import register
from corpusmith.pipelines.report.collect import REPORT_PATH
from corpusmith.pipelines.storage import Storage
from corpusmith.pipelines.verify import verify
from corpusmith.schemas.columns import Column
from corpusmith.schemas.errors import UserError
from corpusmith.schemas.fates import RowFailed

pytestmark = pytest.mark.usefixtures("counted")

MB = 1_000_000
REPORT_MAX_BYTES = 3_000_000

HOSTILE = (
    "plain",
    "../../../../tmp/escaped",
    "/etc/passwd",
    "..",
    "C:\\windows\\system32",
    "a/b/c.jpg",
    "name.tar.gz.jpg.txt.json",
    "one\ntwo\r\nthree\rfour\u2028five\x85six",
    "nul\x00in the middle",
    "\x1b[31mred\x1b]0;title\x07 bell",
    "' OR 1=1; DROP TABLE rows; --",
    'double " quotes "" and \\" more',
    "`id` $(id) ${HOME} %s %n %00",
    "</script><script>alert(1)</script>",
    "</style></pre></td></svg><img src=x onerror=alert(2)>",
    '"><svg/onload=alert(3)>',
    "<!--", "]]>", "--><b>", "&lt;img src=x onerror=alert(4)&gt; &#x3c;b&#x3e;",
    "javascript:alert(5)",
    "data:text/html,<script>alert(6)</script>",
    "{{ 7*7 }}{% for x in y %}{{ config }}{# never closed",
    "=cmd|' /C calc'!A0",
    '@SUM(1+1)*cmd, +1-1, -2+3, =HYPERLINK("http://a.example")',
    "\u202eright to left\u202c \u2066isolated",
    "\ufeffmark \u200b\u200d zero \ufffd \U0010ffff \ud7ff",
    "e\u0301" * 300,
    "NULL", "null", "None", "nan", "-inf", "true", "0x10", "1e999",
    " ", "\t", ",;|\t:", "# comment", "- yaml: [", "!!python/object/apply:os.system [id]", "? \u0000 : &a *a",
    "L" * MB,
    "<b>" * (MB // 3),
    "\n" * 10_000 + "end",
)  # fmt: skip

NAMES = (
    "with space",
    "with.dot",
    "../up",
    "a/b",
    'dou"ble',
    "sin'gle",
    "new\nline",
    "tab\there",
    "<script>alert(7)</script>",
    "{{ 7*7 }}",
    "=formula",
    "SELECT",
    "x; DROP TABLE __rows; --",
    "naïve 写真",
    "\u202eltr",
    "back\\slash",
    "nul\x00l",
    "",
    "%s",
    "\ufeffbom",
    "N" * 5000,
)
"""Names of carried columns."""


@register
class FakeAccuse(AnnotateRows, name="fake_accuse", version=1):
    """Fails for each row with the row's own caption as class and message."""

    isolated = False

    @property
    def requires(self) -> tuple[str, ...]:
        return ("caption", "url")

    @property
    def produces(self) -> tuple[Column, ...]:
        return (Column("accused", pa.bool_(), "never"),)

    def process_row(self, row: dict[str, Any]) -> dict[str, Any]:
        if "accuse" not in row["url"]:
            return {"accused": False}
        raise RowFailed(row["caption"], row["caption"])


class Page(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.comments: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)

    @property
    def vocabulary(self) -> set[tuple[str, str]]:
        """Each tag with each of its attributes."""
        return {(tag, name) for tag, attributes in self.tags for name in ("", *attributes)}


def carried(value: str) -> str:
    """What the columns of hostile names hold: hostile too, but twenty megabytes a row would only be slow."""
    return value[:1000]


def input_of(path: Path, values: Sequence[str], *, names: Sequence[str] = (), url: str = "http://web/{}?{}") -> None:
    """Rows whose every text is hostile; their URLs tell them apart."""
    columns: dict[str, Any] = {
        "url": [url.format(i, value) for i, value in enumerate(values)],
        "caption": list(values),
        "uid": list(values),
        "key": list(values),
        **{name: [carried(value) for value in reversed(values)] for name in names},
    }
    pq.write_table(pa.table(columns), path)


def recipe(source: Path, *steps: str, description: str = "") -> str:
    """A recipe over one file, with shards of ten samples."""
    lines = [
        f"description: {json.dumps(description)}",
        "corpus: hostile",
        f"input: {{path: {json.dumps(str(source))}}}",
    ]
    return "\n".join([*lines, "steps:", *(f"- {step}" for step in steps), "output: {samples_per_shard: 10}", ""])


def listing(folder: Path) -> set[str]:
    """All that lies below a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def check_shards(corpus: Path) -> list[dict[str, Any]]:
    """All readers agree on the samples; returns the Parquets' rows."""
    assert verify(Storage(str(corpus))) == []
    rows: list[dict[str, Any]] = []
    tars = sorted((corpus / "shards").glob("*.tar"))
    for tar_path in tars:
        table = pq.read_table(tar_path.with_suffix(".parquet")).to_pylist()
        rows += table
        with tarfile.open(tar_path) as tar:
            names = [member.name for member in tar]
            assert all(member.isreg() for member in tar)
        assert all(re.fullmatch(r"\d{9}\.(bin|txt|json)", name) for name in names), names
    samples = list(webdataset.WebDataset([str(tar) for tar in tars], shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == [row["key"] for row in rows]
    for sample, row in zip(samples, rows, strict=True):
        assert sample.get("txt", b"").decode() == (row["caption"] or "")
        told = json.loads(sample["json"])
        assert {k: v for k, v in row.items() if k not in ("tar_offset", "tar_size")} == told
    (counted,) = duckdb.execute(f"SELECT count(DISTINCT uid) FROM '{corpus}/shards/*.parquet'").fetchall()
    assert counted == (len(rows),)
    return rows


@pytest.fixture(scope="module")
def plain_page(tmp_path_factory: pytest.TempPathFactory, calls_path: Path) -> Page:
    """The report of a run with the same steps and nothing hostile, which has every part that a report may have."""
    tmp_path = tmp_path_factory.mktemp("plain")
    write_rows(tmp_path / "plain.parquet", range(400), url=lambda i: f"http://web/{'accuse' if i % 2 else 'fine'}/{i}")
    run_recipe(recipe(tmp_path / "plain.parquet", *STEPS), tmp_path / "plain")
    return Page((tmp_path / "plain" / REPORT_PATH).read_text())


STEPS = ("fake_score", "fake_accuse", "keep: \"url NOT LIKE '%/9%'\"", "keep: \"caption <> 'plain'\"", "fake_fetch")


def check_report(corpus: Path, plain: Page) -> None:
    """Its markup is that of a plain run's report, whatever the values; it is small, and has no odd characters."""
    raw = (corpus / REPORT_PATH).read_bytes()
    assert len(raw) < REPORT_MAX_BYTES
    html = raw.decode("utf-8")
    page = Page(html)
    assert page.vocabulary <= plain.vocabulary, page.vocabulary - plain.vocabulary
    assert page.comments == plain.comments
    for tag, attributes in page.tags:
        assert tag not in ("script", "iframe", "object", "embed", "form", "base"), tag
        assert not any(name.startswith("on") for name in attributes), attributes
        assert (attributes.get("href") or "#").startswith("#" if tag == "a" else ("#", "data:,"))
        assert (attributes.get("src") or "data:image/").startswith("data:image/")
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u202a-\u202e\u2066-\u2069]", html)


def test_hostile_texts_of_kept_rejected_and_failed_rows(tmp_path: Path, plain_page: Page) -> None:
    place = tmp_path / "place"
    place.mkdir()
    kept, accused = len(HOSTILE), len(HOSTILE)
    input_of(tmp_path / "a.parquet", HOSTILE, names=NAMES)
    input_of(tmp_path / "b.parquet", HOSTILE, names=NAMES, url="http://web/accuse/{}?{}")
    before = listing(tmp_path)
    text = recipe(tmp_path / "[ab].parquet", *STEPS, description=HOSTILE[14])
    result = run_recipe(text, place / "corpus")
    assert {name.split("/")[0] for name in listing(tmp_path) - before} == {"place"}
    assert {path.name for path in place.iterdir()} == {"corpus"}
    assert not Path("/tmp/escaped").exists()

    counts = result.manifest.counts
    assert (counts.rows_in, counts.failed) == (kept + accused, accused)
    rows = check_shards(place / "corpus")
    assert sorted(row["caption"] for row in rows) == sorted(
        value for i, value in enumerate(HOSTILE) if value != "plain" and "/9" not in f"/{i}?{value}"
    )
    values = {value: carried(HOSTILE[-1 - i]) for i, value in enumerate(HOSTILE)}
    for row in rows:
        assert row["source_uid"] == row["source_key" if "source_key" in row else "source_uid"] == row["caption"]
        assert all(row[name] == values[row["caption"]] for name in NAMES)
    check_report(place / "corpus", plain_page)


@pytest.mark.parametrize("count", [2_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_as_many_reasons_as_rows(count: int, tmp_path: Path, plain_page: Page) -> None:
    """Each row fails for a reason of its own: they are counted, and the rarer ones share a line."""
    write_rows(
        tmp_path / "many.parquet", range(count), url=lambda i: f"http://web/accuse/{i}", caption="<i>{}</i>".format
    )
    result = run_recipe(recipe(tmp_path / "many.parquet", "fake_accuse"), tmp_path / "corpus")
    assert result.manifest.counts.failed == count
    assert verify(Storage(str(tmp_path / "corpus"))) == []
    errors = {row["error"] for row in fates(tmp_path / "corpus").values()}
    assert errors == {f"<i>{i}</i>" for i in range(count)}
    check_report(tmp_path / "corpus", plain_page)


def test_predicates_over_columns_of_hostile_names(tmp_path: Path, plain_page: Page) -> None:
    """Each `keep` rejects its own row, with a reason that names the column and the value; SQL in a name is a name."""
    names = [name for name in NAMES if name and "\0" not in name]
    count = len(names) + 5
    columns = {name: [f"v{i}" if i == k else "fine" for i in range(count)] for k, name in enumerate(names)}
    urls = [f"http://web/{i}" for i in range(count)]
    pq.write_table(pa.table({"url": urls, "caption": urls, **columns}), tmp_path / "rows.parquet")
    quoted = ['"' + name.replace('"', '""') + '"' for name in names]
    keeps = [f"keep: {json.dumps(f'{name} = {chr(39)}fine{chr(39)}')}" for name in quoted]
    result = run_recipe(recipe(tmp_path / "rows.parquet", *keeps, "fake_score", "fake_fetch"), tmp_path / "corpus")
    assert (result.manifest.counts.kept, result.manifest.counts.rejected) == (5, len(names))
    reasons = sorted(row["reason"] for row in fates(tmp_path / "corpus").values() if row["reason"])
    assert reasons == sorted(f"{q} = 'fine': {n} = 'v{k}'" for k, (q, n) in enumerate(zip(quoted, names, strict=True)))
    check_shards(tmp_path / "corpus")
    check_report(tmp_path / "corpus", plain_page)


@pytest.mark.parametrize("name", ['""', '"new\nline', "x; DROP TABLE __rows; --", "*", "(SELECT 1)"])
def test_predicates_that_name_no_column_are_refused(name: str, tmp_path: Path) -> None:
    pq.write_table(pa.table({"url": ["http://web/1"], "caption": ["a"], "": ["c"]}), tmp_path / "a.parquet")
    with pytest.raises(UserError) as refused:
        run_recipe(recipe(tmp_path / "a.parquet", f"keep: {json.dumps(f'{name} IS NOT NULL')}"), tmp_path / "corpus")
    assert "keep" in str(refused.value)
    assert not (tmp_path / "corpus" / "manifest.json").exists()
