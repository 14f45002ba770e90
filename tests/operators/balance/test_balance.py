"""balance: the published rule with the draws at hand, the same outcome in any order, as many rows as it says."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from corpusmith.operators.balance.balance import Balance, draw, tail_threshold
from corpusmith.operators.balance.entries import fingerprint
from corpusmith.operators.balance.matching import space_text
from corpusmith.operators.contract import Reduced
from corpusmith.operators.registry import operator_class
from corpusmith.schemas.errors import UserError
from corpusmith.schemas.identity import uid_of


class ShuffledRows:
    """Live rows over a table, in an order and in batches that each reader draws anew."""

    def __init__(self, table: pa.Table, scratch_dir: Path, order: int) -> None:
        self.count = table.num_rows
        self.seed = 0
        self.scratch_dir = str(scratch_dir)
        self._table = table
        self._random = random.Random(order)

    def reader(self, columns: Sequence[str]) -> pa.RecordBatchReader:
        places = self._random.sample(range(self.count), self.count)
        shuffled = self._table.select(list(dict.fromkeys(["uid", *columns]))).take(pa.array(places, pa.int64()))
        batches = shuffled.to_batches(max_chunksize=self._random.randint(1, 1 + self.count // 3))
        return pa.RecordBatchReader.from_batches(shuffled.schema, batches)


def table_of(captions: Sequence[str | None]) -> pa.Table:
    uids = [uid_of("row", str(i)) for i in range(len(captions))]
    return pa.table({"uid": pa.array(uids, pa.string()), "caption": pa.array(captions, pa.string())})


def balance(table: pa.Table, folder: Path, *, seed: int = 0, order: int = 0, **config: Any) -> Reduced:
    reduced = Balance(Balance.Config(**config), seed=seed).reduce(ShuffledRows(table, folder, order))
    assert sorted(reduced.decisions.column("uid").to_pylist()) == sorted(table.column("uid").to_pylist())
    json.dumps(reduced.summary)
    return reduced


def by_uid(reduced: Reduced) -> dict[str, dict[str, Any]]:
    return {row["uid"]: row for row in reduced.decisions.to_pylist()}


def kept(reduced: Reduced) -> set[str]:
    return {row["uid"] for row in reduced.decisions.to_pylist() if row["fate"] is None}


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
        drawn = (xxhash.xxh64(f"balance {uid}".encode(), seed=seed).intdigest() >> 11) / 2**53
        decided[uid] = (None if drawn < 1 - miss else "rejected", 1 - miss if found else 0.0, len(found))
    return decided


WORDS = st.lists(st.sampled_from(["a", "b", "c", "New", "York", "", "x,", "é"]), max_size=8).map(" ".join)
ENTRIES = ["a", "New York", "b", "b c", "é", "", ",", "a", "never seen", "x"]


@given(st.lists(st.none() | WORDS, max_size=25), st.integers(1, 6), st.integers(0, 2**32), st.integers(0, 99))
@example([], 1, 0, 0)
@example([None, None], 1, 0, 0)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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


def test_tail_threshold() -> None:
    counts = np.array([0, 1, 1, 2, 6, 10, 20, 60])
    tails = {t: int(counts[counts < t].sum()) / 100 for t in (1, 2, 6, 10, 20, 60)}
    assert tails == {1: 0.0, 2: 0.02, 6: 0.04, 10: 0.1, 20: 0.2, 60: 0.4}
    for share in (0.001, 0.03, 0.05, 0.06, 0.08, 0.3, 0.9):
        assert tail_threshold(counts, share) == min(tails, key=lambda t: (abs(tails[t] - share), t))
    assert tail_threshold(np.array([7, 7, 7]), 0.5) == 7
    assert tail_threshold(np.array([0, 0]), 0.5) == 1
    assert tail_threshold(np.zeros(0, np.int64), 0.5) == 1


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
    draws = np.array([draw(uid, 7) for uid in uids])
    assert np.abs(np.histogram(draws, 20, (0, 1))[0] - 1000).max() < 150
    sampled = np.array([xxhash.xxh64_intdigest(uid.encode(), 7) / 2**64 for uid in uids])
    assert abs(np.corrcoef(draws, sampled)[0, 1]) < 0.03
    assert abs(np.corrcoef(draws, [draw(uid, 8) for uid in uids])[0, 1]) < 0.03
    assert draw("a", -1) == draw("a", 2**64 - 1)


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
    assert Balance.seeded
    assert cloudpickle.loads(cloudpickle.dumps(operator)).config == operator.config
