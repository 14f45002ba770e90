"""Groups: what is told of each row, whatever the slices, and the twin found again in the words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmith.operators.dedup import groups
from corpusmith.operators.dedup.groups import Grouping, Twin
from corpusmith.schemas.identity import uid_of

ROW = st.tuples(st.integers(0, 11), st.booleans(), st.none() | st.integers(0, 3))


def grouping(rows: list[tuple[int, bool, int | None]], others: int) -> tuple[Grouping, list[dict[str, Any]]]:
    """N rows, each with a member that represents it, whether it failed, and a distance; and what is to be told."""
    count = len(rows)
    uids = [uid_of(str(i)) for i in range(count + others)]
    corpora = [f"corpus-{i % 2}" for i in range(others)]
    places = [place % (count + others) for place, _, _ in rows]
    sizes = [1 + places.count(place) for place in places]
    expected = []
    for i, (_, has_failed, distance) in enumerate(rows):
        place = places[i]
        told: dict[str, Any] = {"uid": uids[i], "fate": None, "reason": None, "error": None}
        if has_failed:
            told |= {"fate": "failed", "reason": f"detail {i}", "error": "malformed x", "dedup_group": None}
            expected.append({**told, "dedup_size": None})
            continue
        if place != i:
            reason = f"near-duplicate x: of {uids[place]}"
            reason += f" in {corpora[place - count]}" if place >= count else ""
            reason += f" (distance {distance})" if distance is not None else ""
            told |= {"fate": "rejected", "reason": reason}
        expected.append({**told, "dedup_group": uids[place], "dedup_size": sizes[i]})
    failed = [row[1] for row in rows]
    made = Grouping(
        pa.array(uids, pa.large_string()),
        np.array(places, np.int64),
        np.array(sizes, np.int64),
        pa.array(["malformed x" if f else None for f in failed], pa.string()),
        pa.array([f"detail {i}" if f else None for i, f in enumerate(failed)], pa.string()),
        pa.array(corpora, pa.string()),
    )
    return made, expected


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(ROW, max_size=12), others=st.integers(0, 3), slice_rows=st.sampled_from([1, 4, 1 << 18]))
def test_what_is_told(rows: list[tuple[int, bool, int | None]], others: int, slice_rows: int) -> None:
    made, expected = grouping(rows, others if rows else 0)

    def measures(start: int, stop: int) -> pa.Array:
        found = [None if distance is None else f"distance {distance}" for _, _, distance in rows[start:stop]]
        return pa.array(found, pa.string())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(groups, "_SLICE_ROWS", slice_rows)
        told = made.told("near-duplicate x", measures).read_all().to_pylist()
    assert told == expected
    fates = [row["fate"] for row in expected]
    corpora = [Twin.named_in(row["reason"]) for row in told if row["fate"] == "rejected"]
    elsewhere = {"dropped_against_corpora": sum(twin is not None and twin.corpus is not None for twin in corpora)}
    assert made.summary() == {
        "rows": len(rows),
        "groups": fates.count(None),
        "dropped": fates.count("rejected"),
        "failed": fates.count("failed"),
        "largest": max([row["dedup_size"] for row in expected if row["fate"] != "failed"], default=0),
        **(elsewhere if others and rows else {}),
    }
    for row in told:
        twin = Twin.named_in(row["reason"])
        assert (twin.uid if twin else None) == (row["dedup_group"] if row["fate"] == "rejected" else None)


def test_without_errors_details_or_measures() -> None:
    nothing = pa.nulls(2)
    made = Grouping(
        pa.array(["a" * 32, "b" * 32], pa.large_string()),
        np.array([0, 0]),
        np.array([2, 2]),
        nothing,
        nothing,
        pa.array([], pa.string()),
    )
    kept, dropped = made.told("duplicate url").read_all().to_pylist()
    assert (kept["fate"], kept["reason"], kept["dedup_size"]) == (None, None, 2)
    assert (dropped["fate"], dropped["reason"]) == ("rejected", f"duplicate url: of {'a' * 32}")


UID = "0123456789abcdef" * 2


@pytest.mark.parametrize(
    ("reason", "twin"),
    [
        (f"duplicate url: of {UID}", Twin(UID)),
        (f"duplicate url, caption (form text): of {UID} in my-corpus.2", Twin(UID, "my-corpus.2")),
        (f"near-duplicate phash: of {UID} in other (distance 3)", Twin(UID, "other")),
        (f"near-duplicate a: of {'f' * 32}: of {UID} (cosine 0.97)", Twin(UID)),
        (f"duplicate url: of {UID[:-1]}", None),
        (f"duplicate url: of {UID} and more", None),
        (f"caption = '{UID}'", None),
        ("width > 200: width = 3", None),
        ("", None),
        (None, None),
    ],
)
def test_the_twin_that_a_reason_names(reason: str | None, twin: Twin | None) -> None:
    assert Twin.named_in(reason) == twin
