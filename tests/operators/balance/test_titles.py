"""Titles by views: summed and chosen as a plain loop does, and what cannot be used is counted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corpusmith.operators.balance.titles import TitleChoice, count_titles

Row = tuple[str | None, int | None, str | None]
ROWS = st.lists(
    st.tuples(
        st.sampled_from([None, "", " ", "_", "A", "B_c", "B c", "Talk:A", "é", "a_b_c"]),
        st.sampled_from([None, -1, 0, 1, 5, 69, 70, 10**12]),
        st.sampled_from([None, "en", "fr"]),
    ),
    max_size=30,
)


def naive(rows: list[Row], choice: TitleChoice) -> list[tuple[str, str, str | None, int]]:
    found = []
    for language in sorted({language or "" for _, _, language in rows}):
        sums: Counter[str] = Counter()
        for title, views, own in rows:
            text = (title or "").replace("_", " ").strip()
            if (own or "") == language and text and ":" not in text and views is not None and views >= 0:
                sums[text] += views
        most = int(len(sums) * choice.share)
        most = most if choice.max_titles is None else min(most, choice.max_titles)
        ranked = sorted((t for t in sums if sums[t] >= choice.min_views), key=lambda t: (-sums[t], t.encode()))
        found += [(title, "title", language or None, sums[title]) for title in ranked[:most]]
    return found


@given(ROWS, st.builds(TitleChoice, st.sampled_from([1, 70]), st.sampled_from([1.0, 0.76]), st.sampled_from([None, 2])))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_titles_are_the_rule(tmp_path: Path, rows: list[Row], choice: TitleChoice) -> None:
    columns = [
        pa.array([row[i] for row in rows], type) for i, type in enumerate([pa.string(), pa.int64(), pa.string()])
    ]
    batches = [tuple(column.slice(start, 7) for column in columns) for start in range(0, len(rows), 7)]
    found = count_titles(((b[0], b[1], b[2]) for b in batches), choice, str(tmp_path))
    assert [tuple(row.values()) for row in found.table.to_pylist()] == naive(rows, choice)
    usable = [t for t, v, _ in rows if (t or "").replace("_", " ").strip() and v is not None and v >= 0]
    assert found.unusable == len(rows) - len(usable)
    assert found.with_colon == sum(":" in (title or "") for title in usable)


@pytest.mark.parametrize(
    ("views", "expected"),
    [
        (["70", " 71 ", "72.0", "x", "", "7e1", "-70", None, "71.5"], [72, 71, 70]),
        ([70, 71, None], [71, 70]),
        ([70.0, 71.0, float("nan"), float("inf"), 70.5], [71, 70]),
    ],
)
def test_views_that_are_no_whole_numbers(tmp_path: Path, views: list[object], expected: list[int]) -> None:
    titles = pa.array([f"title {i}" for i in range(len(views))])
    found = count_titles([(titles, pa.array(views), None)], TitleChoice(), str(tmp_path))
    assert found.table.column("views").to_pylist() == expected
    assert found.unusable == len(views) - len(expected)
