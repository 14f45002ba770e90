"""balance: the published rule with the draws at hand, the same outcome in any order, as many rows as it says."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shuffled
import xxhash
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from shuffled import ShuffledRows, decided

from corpusmith.operators.balance.balance import Balance
from corpusmith.operators.balance.entry_files import SCHEMA, entries_table, fingerprint
from corpusmith.operators.balance.matching import space_text
from corpusmith.operators.balance.rule import SALT
from corpusmith.operators.balance.thresholds import tail_share, tail_threshold
from corpusmith.operators.balance.wording import quoted, three_digits
from corpusmith.operators.draws import fractions
from corpusmith.operators.registry import operator_class
from corpusmith.schemas.errors import UserError
from corpusmith.schemas.identity import uid_of


def table_of(captions: Sequence[str | None], **columns: Any) -> pa.Table:
    return shuffled.table_of(caption=pa.array(captions, pa.string()), **columns)


@dataclass(frozen=True)
class Outcome:
    """Decisions in one piece, and the summary."""

    decisions: pa.Table
    summary: Mapping[str, Any]


def balance(table: pa.Table, folder: Path, *, seed: int = 0, order: int = 0, **config: Any) -> Outcome:
    reduced = Balance(Balance.Config(**config), seed=seed).reduce(ShuffledRows(table, folder, order))
    summary = json.loads(json.dumps(reduced.summary))
    decisions = decided(reduced)
    assert sorted(decisions.column("uid").to_pylist()) == sorted(table.column("uid").to_pylist())
    assert not list(folder.glob("*.arrow"))
    return Outcome(decisions, summary)


def by_uid(reduced: Outcome) -> dict[str, dict[str, Any]]:
    return {row["uid"]: row for row in reduced.decisions.to_pylist()}


def kept(reduced: Outcome) -> set[str]:
    return {row["uid"] for row in reduced.decisions.to_pylist() if row["fate"] is None}


def draw(uid: str, seed: int) -> float:
    """A row's draw, by its definition."""
    return (xxhash.xxh64_intdigest(f"balance {uid}".encode(), seed) >> 11) / 2**53


def write_entries(folder: Path, entries: Sequence[str]) -> str:
    path = folder / "entries.json"
    path.write_text(json.dumps(entries))
    return str(path)


def published_rule(table: pa.Table, entries: Sequence[str], t: int, seed: int) -> dict[str, tuple[Any, ...]]:
    """Count, then decide, one row and one entry at a time: uid → (fate, probability, matches)."""
    matched = {
        row["uid"]: [k for k, entry in enumerate(entries) if f" {entry} " in space_text(row["caption"])]
        for row in table.to_pylist()
        if row["caption"] is not None
    }
    counts = [sum(k in found for found in matched.values()) for k in range(len(entries))]
    decided: dict[str, tuple[Any, ...]] = dict.fromkeys(table.column("uid").to_pylist(), ("failed", None, None))
    for uid, found in matched.items():
        miss = 1.0
        for k in found:
            miss *= 1 - min(1.0, t / counts[k])
        decided[uid] = (None if draw(uid, seed) < 1 - miss else "rejected", 1 - miss if found else 0.0, len(found))
    return decided


WORDS = st.lists(st.sampled_from(["a", "b", "c", "New", "York", "", "x,", "é"]), max_size=8).map(" ".join)
ENTRIES = ["a", "New York", "b", "b c", "é", "", ",", "a", "never seen", "x"]


@given(st.lists(st.none() | WORDS, max_size=25), st.integers(1, 6), st.integers(0, 2**32), st.integers(0, 99))
@example([], 1, 0, 0)
@example([None, None], 1, 0, 0)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_is_the_published_rule(tmp_path: Path, captions: list[str | None], t: int, seed: int, order: int) -> None:
    table = table_of(captions)
    reduced = balance(table, tmp_path, seed=seed, order=order, entries=write_entries(tmp_path, ENTRIES), t=t)
    decided = by_uid(reduced)
    expected = published_rule(table, ENTRIES, t, seed)
    for uid, row in decided.items():
        assert (row["fate"], row["balance_probability"], row["balance_matches"]) == expected[uid]
        assert (row["error"] == "missing caption") == (row["fate"] == "failed")
        assert (row["reason"] is not None) == (row["fate"] == "rejected")
    fates = [fate for fate, _, _ in expected.values()]
    unmatched = sum(number == 0 for _, _, number in expected.values())
    told = {name: reduced.summary[name] for name in ("t", "entries", "rows", "rows_unmatched", "kept")}
    assert told == {
        "t": t, "entries": len(ENTRIES), "rows": len(captions), "rows_unmatched": unmatched, "kept": fates.count(None)
    }  # fmt: skip


def zipfian(count: int, longest: int = 6) -> list[str | None]:
    """Captions of up to `longest` words, the k-th word about as frequent as 1 / k."""
    drawn = random.Random(0)
    weights = [1 / (k + 1) for k in range(300)]
    return [
        " ".join(drawn.choices([f"w{k}" for k in range(300)], weights, k=drawn.randint(1, longest)))
        for _ in range(count)
    ]


def test_order_and_batches_mean_nothing(tmp_path: Path) -> None:
    table = table_of(zipfian(3000))
    outcomes = [balance(table, tmp_path, order=order, entries="pool", seed=4) for order in range(3)]
    assert by_uid(outcomes[0]) == by_uid(outcomes[1]) == by_uid(outcomes[2])
    assert outcomes[0].summary == outcomes[1].summary == outcomes[2].summary
    assert 0 < outcomes[0].summary["kept"] < 3000


def test_keeps_as_many_as_the_probabilities_say(tmp_path: Path) -> None:
    table = table_of(zipfian(6000))
    draws: list[set[str]] = []
    for seed in (1, 2):
        reduced = balance(table, tmp_path, seed=seed, t=25)
        probabilities = np.array(reduced.decisions.column("balance_probability").to_pylist())
        deviation = math.sqrt((probabilities * (1 - probabilities)).sum())
        assert abs(reduced.summary["kept"] - probabilities.sum()) < 4 * deviation
        assert probabilities.sum() < 0.8 * table.num_rows
        draws.append(kept(reduced))
    assert draws[0] != draws[1]
    certain = {row["uid"] for row in by_uid(reduced).values() if row["balance_probability"] == 1}
    assert certain <= draws[0] & draws[1]


def test_flattens_the_head_and_spares_the_tail(tmp_path: Path) -> None:
    summary = balance(table_of(zipfian(6000, longest=1)), tmp_path, t=25).summary
    ranks, before, after = zip(*summary["curve"], strict=True)
    assert ranks[0] == 1
    assert ranks[-1] == summary["matched_entries"] == summary["entries"]
    assert len(ranks) <= 200
    assert list(before) == sorted(before, reverse=True)
    assert all(b == a for b, a in zip(before, after, strict=True) if b <= 25)
    assert before[0] > 500
    assert all(abs(a - 25) < 5 * math.sqrt(25) for b, a in zip(before, after, strict=True) if b > 25)
    assert summary["top"][0] == ["w0", before[0], after[0]]
    assert len(summary["top"]) == 20


def test_a_high_t_keeps_all_that_match(tmp_path: Path) -> None:
    captions = [*zipfian(500), "nothing of it", None]
    path = write_entries(tmp_path, [f"w{k}" for k in range(300)])
    reduced = balance(table_of(captions), tmp_path, entries=path, t=500)
    assert (reduced.summary["kept"], reduced.summary["rows_unmatched"]) == (500, 1)
    fates = [row["fate"] for row in by_uid(reduced).values()]
    assert (fates.count("rejected"), fates.count("failed")) == (1, 1)


def test_reasons_name_the_numbers(tmp_path: Path) -> None:
    path = write_entries(tmp_path, ["the", "icon", "a", "of", "x" * 90])
    captions = ["the icon"] * 300 + ["the icon of a"] * 300 + ["x" * 90] * 300 + ['no "match"\nhere' + "y" * 90]
    table = table_of(captions)
    decided = by_uid(balance(table, tmp_path, seed=3, entries=path, t=20))
    reasons = {caption: set[str]() for caption in captions}
    for uid, caption in zip(*table.to_pydict().values(), strict=True):
        row = decided[uid]
        if row["reason"]:
            probability, drawn = row["balance_probability"], draw(uid, 3)
            known = f"balance t=20: p = {probability:.3g}, draw = {drawn:.3g}, matched "
            reasons[caption].add(row["reason"].removeprefix(known))
    assert reasons["the icon"] == {'"the", "icon"'}
    assert reasons["the icon of a"] == {'"the", "icon", "a", …'}
    assert reasons["x" * 90] == {f'"{"x" * 60}…"'}
    assert reasons[captions[-1]] == {f'no entry matched: caption = "no \\"match\\"\\nhere{"y" * 45}…"'}


def published_t(counts: Sequence[int], share: float) -> int:
    """MetaCLIP 2's step from a share to a count, over entries that have a row."""
    ascending = sorted(count for count in counts if count)
    so_far = [sum(ascending[: i + 1]) / sum(ascending) for i in range(len(ascending))]
    return min(zip(so_far, ascending, strict=True), key=lambda one: (abs(one[0] - share), one[1]))[1]


@given(st.lists(st.integers(0, 40), min_size=1, max_size=30).filter(any), st.floats(0, 1))
@example([0, 1, 1, 2, 6, 10, 20, 60], 0.06)
@example([7, 7, 7], 0.5)
@settings(max_examples=200, deadline=None)
def test_tail_threshold(counts: list[int], share: float) -> None:
    assert tail_threshold(np.array(counts), share) == published_t(counts, share)


def test_tail_share_of_a_count() -> None:
    counts = np.array([0, 1, 1, 2, 6, 10, 20, 60])
    found = {t: tail_share(counts, t) for t in (1, 2, 3, 6, 60, 61)}
    assert found == {1: 0.0, 2: 0.02, 3: 0.04, 6: 0.04, 60: 0.4, 61: 1.0}
    assert tail_share(np.zeros(3, np.int64), 5) == 0.0
    assert tail_threshold(np.zeros(0, np.int64), 0.5) == tail_threshold(np.array([0, 0]), 0.5) == 1


def test_t_from_the_tail_share(tmp_path: Path) -> None:
    table = table_of(zipfian(4000))
    default, same, half = (balance(table, tmp_path, tail_share=share).summary for share in (None, 0.06, 0.5))
    assert default == same
    assert abs(default["tail_share"] - 0.06) < 0.02
    assert abs(half["tail_share"] - 0.5) < 0.1
    assert half["t"] > default["t"]
    assert half["kept"] > default["kept"]


def test_draws_are_uniform_and_not_those_of_sample() -> None:
    uids = [uid_of("row", str(i)) for i in range(20_000)]
    draws, others = (fractions(pa.array(uids), seed, SALT) for seed in (7, 8))
    assert np.abs(np.histogram(draws, 20, (0, 1))[0] - 1000).max() < 150
    sampled = np.array([xxhash.xxh64_intdigest(uid.encode(), 7) / 2**64 for uid in uids])
    assert abs(np.corrcoef(draws, sampled)[0, 1]) < 0.03
    assert abs(np.corrcoef(draws, others)[0, 1]) < 0.03


def test_a_changed_list_is_another_step(tmp_path: Path) -> None:
    path = write_entries(tmp_path, ["a", "b"])
    config = Balance.Config(entries=path, t=5)
    assert config.entries_sha256 == fingerprint(["a", "b"])
    assert Balance.Config.model_validate(config.model_dump()) == config
    stale = Balance(config)
    write_entries(tmp_path, ["a", "c"])
    assert Balance.Config(entries=path, t=5).entries_sha256 == fingerprint(["a", "c"])
    with pytest.raises(UserError, match="changed"):
        stale.reduce(ShuffledRows(table_of(["a"]), tmp_path, 0))
    with pytest.raises(ValidationError, match="another one"):
        Balance.Config.model_validate(config.model_dump())


LISTED = [
    *(("a", "en"), ("b", "en"), ("New York", None), ("a", "de"), ("é", "fr"), ("c", None), ("a", None)),
    *(("x", "xx"), ("b", "en"), ("b", "de")),
]
TONGUES = st.sampled_from(["en", "de", "fr", "zz", None])


def write_languages(folder: Path) -> str:
    columns = {"entry": [entry for entry, _ in LISTED], "language": [language for _, language in LISTED]}
    nulls = {name: pa.nulls(len(LISTED), SCHEMA.field(name).type) for name in ("count", "pmi", "views")}
    table = pa.table({**columns, "source": ["list"] * len(LISTED), **nulls})
    pq.write_table(entries_table(table, {}), folder / "entries.parquet")
    return str(folder / "entries.parquet")


def worldwide_rule(table: pa.Table, t: int, seed: int) -> dict[str, tuple[Any, ...]]:
    """MetaCLIP 2's rule, one row and one entry at a time; entries without a language are of all languages."""
    matched, tongues = {}, {}
    for row in table.to_pylist():
        if row["caption"] is not None and row["language"] is not None:
            tongues[row["uid"]] = row["language"]
            matched[row["uid"]] = [
                k
                for k, (entry, language) in enumerate(LISTED)
                if language in (None, row["language"]) and f" {entry} " in space_text(row["caption"])
            ]
    counts = {
        tongue: [sum(k in matched[u] for u in matched if tongues[u] == tongue) for k in range(len(LISTED))]
        for tongue in set(tongues.values())
    }
    share = sum(count for count in counts["en"] if count < t) / sum(counts["en"])
    own_t = {tongue: published_t(own, share) if any(own) else 1 for tongue, own in counts.items()} | {"en": t}
    fates: dict[str, tuple[Any, ...]] = dict.fromkeys(table.column("uid").to_pylist(), ("failed", None, None))
    for uid, found in matched.items():
        miss = 1.0
        for k in found:
            miss *= 1 - min(1.0, own_t[tongues[uid]] / counts[tongues[uid]][k])
        fates[uid] = (None if draw(uid, seed) < 1 - miss else "rejected", 1 - miss if found else 0.0, len(found))
    return fates


@given(st.lists(st.tuples(st.none() | WORDS, TONGUES), max_size=25), st.integers(1, 6), st.integers(0, 99))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_is_the_rule_of_each_language(tmp_path: Path, rows: list[tuple[Any, Any]], t: int, order: int) -> None:
    rows = [*rows, ("a b", "en")]
    captions, languages = zip(*rows, strict=True)
    table = table_of(captions, language=pa.array(languages, pa.string()))
    config: dict[str, Any] = {"entries": write_languages(tmp_path), "language_column": "language", "t": t}
    reduced = balance(table, tmp_path, seed=order, order=order, **config)
    expected = worldwide_rule(table, t, order)
    for uid, row in by_uid(reduced).items():
        assert (row["fate"], row["balance_probability"], row["balance_matches"]) == expected[uid]
    assert reduced.summary["t"] == t
    assert sum(one["rows"] for one in reduced.summary["languages"]) == len(rows) - reduced.summary["failed"]


def test_languages_are_balanced_by_themselves(tmp_path: Path) -> None:
    """A language of a tenth of the rows has a t of its own; a row without one says what is missing."""
    big, small = zipfian(3000), zipfian(300)
    languages = ["en"] * 3000 + ["fr"] * 300 + [None]
    table = table_of([*big, *small, "w1"], language=pa.array(languages, pa.string()))
    reduced = balance(table, tmp_path, t=30, language_column="language", min_count=2)
    english, french = reduced.summary["languages"]
    assert (english["language"], english["t"], french["language"]) == ("en", 30, "fr")
    assert 1 <= french["t"] < 15
    assert reduced.summary["top"][0][0] == "w0 (en)"
    assert abs(english["tail_share"] - french["tail_share"]) < 0.1
    errors = [row["error"] for row in by_uid(reduced).values() if row["fate"] == "failed"]
    assert errors == ["missing language"]
    shared = balance(table, tmp_path, tail_share=0.2, language_column="language", min_count=2).summary
    assert all(abs(one["tail_share"] - 0.2) < 0.15 for one in shared["languages"])


def test_a_reference_language_that_matches_nothing(tmp_path: Path) -> None:
    table = table_of(["un", "deux"], language=pa.array(["fr", "fr"]))
    with pytest.raises(UserError, match="reference language 'en' matches"):
        balance(table, tmp_path, t=5, language_column="language", min_count=1)
    assert balance(table, tmp_path, tail_share=0.5, language_column="language", min_count=1).summary["kept"] == 2
    nothing = table_of([], language=pa.array([], pa.string()))
    assert balance(nothing, tmp_path, t=5, language_column="language").summary["rows"] == 0


def test_what_is_no_column_of_languages(tmp_path: Path) -> None:
    table = table_of(["a"] * 1100, language=pa.array([str(i) for i in range(1100)]))
    with pytest.raises(UserError, match="more than 1,000 values"):
        balance(table, tmp_path, t=5, language_column="language")
    numbers = table_of(["a"], language=pa.array([1]))
    with pytest.raises(UserError, match="'language' is int64 and not text"):
        balance(numbers, tmp_path, t=5, language_column="language")


def test_online_cuts_nothing_and_weighs(tmp_path: Path) -> None:
    table = table_of([*zipfian(2000), "no entry", None])
    path = write_entries(tmp_path, [f"w{k}" for k in range(300)])
    cut, online = (balance(table, tmp_path, entries=path, t=20, mode=mode) for mode in ("cut", "online"))
    weights = {uid: row["balance_probability"] for uid, row in by_uid(online).items()}
    assert weights == {uid: row["balance_probability"] for uid, row in by_uid(cut).items()}
    assert [row["fate"] for row in by_uid(online).values()].count("failed") == 1
    assert online.summary["kept"] == 2001 > cut.summary["kept"] == online.summary["taken"]
    assert online.summary["curve"] == cut.summary["curve"]
    assert weights[table.column("uid")[2000].as_py()] == 0.0
    assert online.summary["expected"] == pytest.approx(sum(filter(None, weights.values())), abs=1e-6)


def test_an_entry_keeps_t_rows_on_average(tmp_path: Path) -> None:
    """Over many seeds: rows of one entry alone, and rows that two entries let through."""
    path = write_entries(tmp_path, ["a", "b", "rare"])
    table = table_of(["a"] * 60 + ["a b"] * 40 + ["rare a"] * 5)
    p_a, p_b = 20 / 105, 20 / 40
    expected = 60 * p_a + 40 * (1 - (1 - p_a) * (1 - p_b)) + 5
    taken = [balance(table, tmp_path, seed=seed, entries=path, t=20).summary["kept"] for seed in range(60)]
    variance = 60 * p_a * (1 - p_a) + 40 * (1 - p_a) * (1 - p_b) * (1 - (1 - p_a) * (1 - p_b))
    assert abs(np.mean(taken) - expected) < 4 * math.sqrt(variance / 60)
    assert np.var(taken) == pytest.approx(variance, rel=0.75)


def test_pools_without_text(tmp_path: Path) -> None:
    for captions in ([], [None, None], ["", " "]):
        summary = balance(table_of(captions), tmp_path).summary
        assert (summary["entries"], summary["kept"], summary["curve"], summary["t"]) == (0, 0, [], 1)
        assert summary["expected"] == 0


def test_entries_that_match_nothing(tmp_path: Path) -> None:
    path = write_entries(tmp_path, ["St. Louis", "(a|b)*", "\u0000", "مرحبا"])
    captions = ["St. Louis", "ab", "x" * 1_000_000, "a\x00b\x1b[0m", "\u202eمرحبا", "مرحبا بالعالم", "(a|b)*"]
    reduced = balance(table_of(captions), tmp_path, entries=path, t=5)
    assert [row["balance_matches"] for row in by_uid(reduced).values()].count(1) == 2
    assert all(len(row["reason"] or "") < 200 for row in by_uid(reduced).values())


@given(st.lists(st.floats(0, 1), max_size=20))
@example([5e-324, 0.0, 1.0, 0.1125, 0.9995, 0.99949999, 1e-300, 1e-5, 0.0625, 1 - 2**-53])
@settings(max_examples=200, deadline=None)
def test_three_digits(values: list[float]) -> None:
    assert three_digits(np.array(values)).to_pylist() == [f"{value:.3g}" for value in values]


@given(st.lists(st.none() | st.text(max_size=80), max_size=9))
@settings(max_examples=200, deadline=None)
def test_quoted(texts: list[str | None]) -> None:
    cut = [text if text is None or len(text) <= 60 else f"{text[:60]}…" for text in texts]
    expected = [None if text is None else json.dumps(text, ensure_ascii=False) for text in cut]
    assert quoted(pa.array(texts, pa.string())).to_pylist() == expected


def test_wordnet_and_pool_together(tmp_path: Path) -> None:
    for name in ("noun", "verb", "adj", "adv"):
        (tmp_path / f"data.{name}").write_text(
            "00001740 03 n 01 snow_leopard 0 000 | a cat\n" if name == "noun" else ""
        )
    captions = ["a snow leopard", "number 7"] + ["word"] * 4 + ["7"]
    config: dict[str, Any] = {"entries": "pool+wordnet", "wordnet_path": str(tmp_path), "min_count": 3, "t": 50}
    reduced = balance(table_of(captions), tmp_path, **config)
    assert reduced.summary["entries"] == 1 + 100 + 1
    assert sorted(reduced.summary["top"]) == [["7", 2, 2], ["snow leopard", 1, 1], ["word", 4, 4]]
    config["entries"] = "wordnet"
    alone = balance(table_of(captions), tmp_path, **config)
    assert (alone.summary["entries"], alone.summary["rows_unmatched"]) == (101, 4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"t": 5, "tail_share": 0.1}, "not both"),
        ({"t": 0}, "greater than or equal to 1"),
        ({"t": -3}, "greater than or equal to 1"),
        ({"rule": "metaclip3"}, "metaclip2"),
        ({"tail_share": 1.0}, "less than 1"),
        ({"entries": "wordnt"}, "pool, wordnet"),
        ({"entries": "/nowhere/entries.txt"}, "cannot be read"),
        ({"entries": "wordnet", "wordnet_path": "/nowhere"}, "wordnet-base"),
    ],
)
def test_parameters_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Balance.Config(**wrong)


def test_what_recipes_write() -> None:
    assert operator_class("balance") is Balance
    operator = Balance(Balance.Config(column="text", t=20), seed=1)
    assert operator.requires == ("text",)
    assert Balance(Balance.Config(language_column="language")).requires == ("caption", "language")
    assert Balance.seeded
    assert cloudpickle.loads(cloudpickle.dumps(operator)).config == operator.config
