"""dedup.minhash: sets of shingles as defined, groups as all pairs make them, whatever the order, in bounded time."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from all_pairs import components
from captions import drawn_captions, emoji_languages, emoji_names
from corpora import fates, outcome, run_recipe
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from near_captions import edited_captions
from pydantic import ValidationError
from shuffled import ShuffledRows, decided, table_of

from corpusmith.operators.contract import Reduced
from corpusmith.operators.dedup import compared_texts, minhash_kernels
from corpusmith.operators.dedup.compared_texts import ComparedTexts
from corpusmith.operators.dedup.minhash import MAX_PERMUTATIONS, MinHash, bands_of
from corpusmith.operators.dedup.normal_forms import normal_form
from corpusmith.operators.dedup.shingles import TextForm, forms_of
from corpusmith.operators.dedup.signed_texts import SignedTexts, permutations
from corpusmith.operators.registry import operator_class
from corpusmith.schemas.errors import UserError

Shingles = frozenset[tuple[str, ...]]


# The definition, in plain Python -------------------------------------------------------------------------------------


def forms_by_definition(texts: Sequence[str], form: TextForm = "text") -> list[str]:
    """What is compared; normal forms of one by one would compile their patterns anew for each."""
    folded = normal_form(pa.array(texts, pa.string()), "text").to_pylist() if form == "text" else texts
    return [" ".join(text.split()) for text in folded]


def sets_of(texts: Sequence[str]) -> list[Shingles]:
    return [shingles_of(form) for form in forms_by_definition(texts)]


def shingles_of(
    text: str, shingles: str = "auto", word_size: int = 5, character_size: int = 5, auto_words: int = 10
) -> Shingles:
    words = text.split(" ")
    by_words = shingles == "words" or (shingles == "auto" and len(words) >= auto_words)
    items, size = (words, word_size) if by_words else (list(text), character_size)
    runs = range(max(len(items) - size, 0) + 1)
    return frozenset(("words" if by_words else "characters", *items[i : i + size]) for i in runs)


def jaccard(a: Shingles, b: Shingles) -> float:
    return len(a & b) / len(a | b)


def expected(
    table: pa.Table,
    threshold: float = 0.8,
    only_if: Sequence[str] = (),
    prefer: str | None = None,
    form: TextForm = "text",
    **cut: Any,
) -> dict[str, dict[str, Any]]:
    """What all pairs say."""
    decisions: dict[str, dict[str, Any]] = {}
    rows = []
    forms = forms_by_definition([text or "" for text in table["caption"].to_pylist()], form)
    for row, text in zip(table.to_pylist(), forms, strict=True):
        blank = {"uid": row["uid"], "fate": None, "reason": None, "error": None}
        decisions[row["uid"]] = {**blank, "dedup_group": None, "dedup_size": None}
        absent = [name for name in ("caption", *only_if) if row[name] is None]
        if absent:
            decisions[row["uid"]] |= {"fate": "failed", "error": f"missing {absent[0]}"}
        elif not text:
            decisions[row["uid"]] |= {"fate": "failed", "error": "missing caption", "reason": "the text is empty"}
        else:
            rows.append({**row, "set": shingles_of(text, **cut), "context": [row[name] for name in only_if]})

    def is_edge(i: int, j: int) -> bool:
        return rows[i]["context"] == rows[j]["context"] and jaccard(rows[i]["set"], rows[j]["set"]) >= threshold

    for group in components(len(rows), is_edge):
        members = [rows[i] for i in group]
        scores = [row[prefer] for row in members if row[prefer] is not None] if prefer else []
        best = [row for row in members if prefer and scores and row[prefer] == max(scores)] or members
        kept = min(best, key=lambda row: row["uid"])
        for row in members:
            decision = decisions[row["uid"]]
            decision |= {"dedup_group": kept["uid"], "dedup_size": len(members)}
            if row is not kept:
                measure = f"Jaccard {np.round(100 * jaccard(row['set'], kept['set'])) / 100:.2f}"
                reason = f"near-duplicate caption: of {kept['uid']} ({measure})"
                decision |= {"fate": "rejected", "reason": reason}
    return decisions


def decide(table: pa.Table, folder: Path, order: int = 0, **config: Any) -> tuple[dict[str, dict[str, Any]], Reduced]:
    reduced = MinHash(MinHash.Config(**config)).reduce(ShuffledRows(table, folder, order))
    found = decided(reduced)
    decisions = {row["uid"]: row for row in found.to_pylist()}
    assert len(decisions) == found.num_rows == table.num_rows
    return decisions, reduced


def groups_in(decisions: dict[str, dict[str, Any]]) -> set[frozenset[str]]:
    """Groups of more than one row."""
    groups: dict[str, set[str]] = {}
    for uid, decision in decisions.items():
        if decision["dedup_group"] is not None:
            groups.setdefault(decision["dedup_group"], set()).add(uid)
    return {frozenset(group) for group in groups.values() if len(group) > 1}


# Sets of shingles ----------------------------------------------------------------------------------------------------

ODD_TEXTS = (
    "a",
    "Straße  ＡＢＣ ﬁne",
    "سوشي مع الأرز والسمك",
    "\u202bعربي\u202c mixed \u200f right to left",
    "寿司とラーメンが食べたいです",
    "ทดสอบข้อความที่ไม่มีช่องว่าง",
    "tab\tnew\nline\x0bfeed\x1cpage\u3000wide\u2028end",
    "\x00null\x07bell\x7f delete",
    "👩‍🚀 astronaut 👩🏽‍🚀",
    "aaaaaaaaaaaaaaaaaaaaaaa",
    "one two three four five six seven eight nine ten eleven",
    "one two three four five six seven eight nine",
)
TEXT = st.one_of(
    st.text(alphabet=st.characters(codec="utf-8"), max_size=40),
    st.text(alphabet="ab \u00a0é寿👩", max_size=30),
    st.sampled_from(ODD_TEXTS),
)
CUT = st.fixed_dictionaries(
    {
        "shingles": st.sampled_from(["auto", "words", "characters"]),
        "word_size": st.integers(1, 6),
        "character_size": st.integers(1, 8),
        "auto_words": st.integers(1, 11),
    }
)


@given(texts=st.lists(TEXT, min_size=2, max_size=20), cut=CUT, form=st.sampled_from(["text", "plain"]))
@example(texts=list(ODD_TEXTS), cut={}, form="text")
@example(texts=list(ODD_TEXTS), cut={"character_size": 1, "shingles": "characters"}, form="plain")
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_similarities_are_those_of_the_sets(
    tmp_path: Path, texts: list[str], cut: dict[str, Any], form: TextForm
) -> None:
    operator = MinHash(MinHash.Config(form=form, recall=1, **cut))
    table = table_of(caption=pa.array(texts, pa.string()))
    found = SignedTexts(str(tmp_path), 1)
    found.extend(ShuffledRows(table, tmp_path).map(operator._signing(None), ["caption"]))
    found.close()
    forms = dict(zip(table["uid"].to_pylist(), forms_by_definition(texts, form), strict=True))
    ordered = [forms[uid] for uid in found.uids.to_pylist()]
    offsets, data = found.offsets(), found.texts()
    assert [bytes(data[a:b]).decode() for a, b in pairwise(offsets)] == ordered
    pairs = [(i, j) for i, j in combinations(range(len(ordered)), 2) if ordered[i] and ordered[j]]
    if pairs:
        compared = ComparedTexts.of(found, operator._sizes, 0.5)
        lefts, rights = (np.array(ends) for ends in zip(*pairs, strict=True))
        sets = [shingles_of(text, **cut) for text in ordered]
        similar = minhash_kernels.similarities(lefts, rights, compared.texts, compared.room)
        assert similar.tolist() == [jaccard(sets[i], sets[j]) for i, j in pairs]


def test_languages_have_as_many_hashes_as_shingles(tmp_path: Path) -> None:
    """No two of a hundred thousand different shingles share a hash."""
    from corpusmith.operators.dedup.minhash_kernels import hashes_of

    names = [name for language in emoji_languages() for name in emoji_names(language)]
    names += [caption for batch in drawn_captions(5_000) for caption in batch.to_pylist()]
    table = table_of(caption=names)
    operator = MinHash()
    found = SignedTexts(str(tmp_path), 14)
    found.extend(ShuffledRows(table, tmp_path).map(operator._signing(None), ["caption"]))
    found.close()
    compared = ComparedTexts.of(found, operator._sizes, 0.5)
    hashes, _ = hashes_of(np.arange(found.count), compared.texts, compared.room)
    distinct = set().union(*sets_of(names))
    assert len(np.unique(hashes)) == len(distinct) > 100_000


# Groups --------------------------------------------------------------------------------------------------------------


@st.composite
def edited(draw: st.DrawFn) -> str:
    """One of a few texts with some of its parts changed."""
    base = list(
        draw(st.sampled_from(["the quick brown fox jumps over", "寿司とラーメンが食べたい", "ab", *ODD_TEXTS[-3:]]))
    )
    for place, new in draw(st.lists(st.tuples(st.integers(0, 60), st.sampled_from(["", "x", " ", "é"])), max_size=3)):
        base[place % len(base)] = new
    return "".join(base)


ROW = st.tuples(
    st.none() | edited() | st.sampled_from(["", " \t", "AB", "ab"]),
    st.none() | st.sampled_from(["", "a", "A"]),
    st.none() | st.integers(-1, 1),
)


@given(
    rows=st.lists(ROW, max_size=40),
    threshold=st.sampled_from([0.05, 0.5, 0.8, 1.0]),
    only_if=st.sampled_from([(), ("site",), ("site", "score")]),
    prefer=st.sampled_from([None, "score"]),
    cut=CUT,
    few=st.sampled_from([1, 2, 32]),
    order=st.integers(0, 99),
)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_recall_1_is_all_pairs(
    tmp_path: Path,
    rows: list[tuple[Any, ...]],
    threshold: float,
    only_if: tuple[str, ...],
    prefer: str | None,
    cut: dict[str, Any],
    few: int,
    order: int,
) -> None:
    captions, sites, scores = ([row[i] for row in rows] for i in range(3))
    columns = {"site": pa.array(sites, pa.string()), "score": pa.array(scores, pa.int64())}
    table = table_of(caption=pa.array(captions, pa.string()), **columns)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(minhash_kernels, "FEW", few)
        patch.setattr(compared_texts, "_POSTINGS_AT_ONCE", few)
        config = {"threshold": threshold, "only_if": only_if, "prefer": prefer, **cut}
        decisions, reduced = decide(table, tmp_path, order, recall=1, **config)
    assert decisions == expected(table, **config)
    found = [decision["fate"] for decision in decisions.values()]
    told = (reduced.summary["groups"], reduced.summary["dropped"], reduced.summary["failed"])
    assert told == (found.count(None), found.count("rejected"), found.count("failed"))


@pytest.mark.parametrize(("threshold", "recall"), [(0.8, 0.92), (0.6, 0.99), (0.72, 0.64)])
@pytest.mark.parametrize("few", [1, 32])
def test_groups_are_those_of_the_pairs_that_agree_in_a_band(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threshold: float, recall: float, few: int
) -> None:
    """Bands worked out in Python, from the definition of the permutations; so no pair is wrong and none is lost."""
    monkeypatch.setattr(minhash_kernels, "FEW", few)
    table = table_of(caption=edited_captions(1_500))
    decisions, reduced = decide(table, tmp_path, threshold=threshold, recall=recall)
    bands, rows = reduced.summary["bands"], reduced.summary["rows_per_band"]
    forms = forms_of(table["caption"], form="text", column="caption")
    keys = _band_keys_by_definition(forms.data, forms.offsets, bands, rows)
    sets = sets_of(table["caption"].to_pylist())
    is_pair = (keys[:, None, :] == keys[None, :, :]).any(axis=2)
    alike = np.zeros((len(sets), len(sets)), bool)
    for i, j in np.argwhere(is_pair):
        alike[i, j] = jaccard(sets[i], sets[j]) >= threshold
    uids = table["uid"].to_pylist()
    groups = components(len(sets), lambda i, j: bool(alike[i, j]))
    assert groups_in(decisions) == {frozenset(uids[i] for i in group) for group in groups if len(group) > 1}


def _band_keys_by_definition(data: np.ndarray, offsets: np.ndarray, bands: int, rows: int) -> np.ndarray:
    """(N, bands) numbers of the tuples of minima."""
    multipliers, addends = permutations(bands * rows)
    room, sizes = minhash_kernels.room_for(1 << 12), MinHash()._sizes
    minima = []
    for i in range(len(offsets) - 1):
        texts = minhash_kernels.Texts(data, offsets, sizes, 0.5)
        hashes = minhash_kernels.hashes_of(np.array([i]), texts, room)[0].astype(np.uint32)
        minima.append((hashes[:, None] * multipliers + addends).min(axis=0))
    banded = np.array(minima).reshape(-1, bands, rows)
    return np.stack([np.unique(banded[:, b], axis=0, return_inverse=True)[1] for b in range(bands)], axis=1)


def test_recall_is_what_the_bands_promise(tmp_path: Path) -> None:
    """Over the pairs of edited captions that are alike, the share that ends in one group."""
    captions = edited_captions(900, seed=1)
    table = table_of(caption=captions)
    uids, sets = table["uid"].to_pylist(), sets_of(captions)
    similar = {(i, j): jaccard(sets[i], sets[j]) for i, j in combinations(range(len(sets)), 2)}
    for threshold, recall in ((0.8, 0.92), (0.8, 0.99), (0.5, 0.95)):
        decisions, _ = decide(table, tmp_path, threshold=threshold, recall=recall)
        alike = [pair for pair, similarity in similar.items() if threshold <= similarity < 1]
        found = sum(decisions[uids[i]]["dedup_group"] == decisions[uids[j]]["dedup_group"] for i, j in alike)
        assert len(alike) > 100
        assert found / len(alike) >= recall


def test_bands() -> None:
    assert bands_of(0.8, 0.92) == bands_of(0.72, 0.64) == (14, 8)
    assert bands_of(1, 0.5) == (1, MAX_PERMUTATIONS)
    assert bands_of(0.8, 1) == (1, 0)
    for threshold in (0.1, 0.3, 0.5, 0.72, 0.9, 0.99):
        for recall in (0.5, 0.9, 0.99, 0.999):
            bands, rows = bands_of(threshold, recall)
            assert bands * rows <= MAX_PERMUTATIONS
            assert 1 - (1 - threshold**rows) ** bands >= recall - 1e-12
    with pytest.raises(ValueError, match="lower `recall`"):
        bands_of(0.01, 0.99)


# Rules ---------------------------------------------------------------------------------------------------------------


def test_order_means_nothing_and_what_is_left_stays(tmp_path: Path) -> None:
    drawn = random.Random(3)
    captions = edited_captions(3_000, seed=2)
    table = table_of(caption=captions, width=[drawn.choice([None, float("nan"), 100.0, 200.0]) for _ in captions])
    outcomes = [decide(table, tmp_path, order, prefer="width")[0] for order in range(3)]
    assert outcomes[0] == outcomes[1] == outcomes[2]
    kept = {uid for uid, decision in outcomes[0].items() if decision["fate"] is None}
    assert len(kept) < 2_900
    again = table.filter(pa.array([uid in kept for uid in table["uid"].to_pylist()]))
    assert all(decision["fate"] is None for decision in decide(again, tmp_path, prefer="width")[0].values())


def test_a_chain_is_one_group(tmp_path: Path) -> None:
    letters = "".join(chr(0x4E00 + i) for i in range(200))
    table = table_of(caption=[letters[i * 5 : i * 5 + 100] for i in range(20)])
    decisions, _ = decide(table, tmp_path, recall=1)
    assert decisions == expected(table)
    assert {decision["dedup_size"] for decision in decisions.values()} == {20}
    assert min(float(d["reason"].split("Jaccard ")[1][:-1]) for d in decisions.values() if d["reason"]) < 0.3


@pytest.mark.timeout(120)
@pytest.mark.parametrize("recall", [0.92, 1])
def test_clusters_cost_no_pairs(tmp_path: Path, recall: float) -> None:
    """Five thousand of nearly one text, three thousand of a form that is most of each: all pairs would be many."""
    titles = sorted({caption for batch in drawn_captions(3_000) for caption in batch.to_pylist()})
    near = [f"a photograph of a lighthouse on a rocky island in the evening light number {i}" for i in range(5_000)]
    forms = [f"royalty free high resolution stock: {title}" for title in titles]
    table = table_of(caption=[*near, *forms])
    decide(table.slice(0, 100), tmp_path, shingles="characters", recall=recall)
    started = time.process_time()
    decisions, reduced = decide(table, tmp_path, shingles="characters", recall=recall)
    assert time.process_time() - started < 15
    assert reduced.summary["largest"] >= 5_000
    assert len({decisions[uid]["dedup_group"] for uid in table["uid"].to_pylist()[:5_000]}) == 1


def test_what_is_no_text_fails(tmp_path: Path) -> None:
    raw = [
        b"fine text here",
        b"\xff\xfe",
        None,
        b"",
        b" \t\n\xe3\x80\x80",
        b"cut \xe5\xaf",
        b"\xed\xa0\x80",
        b"FINE text  here",
    ]
    binary = pa.array(raw, pa.binary())
    table = table_of(caption=pa.Array.from_buffers(pa.string(), len(raw), binary.buffers()))
    decisions, reduced = decide(table, tmp_path)
    rows = [decisions[uid] for uid in table["uid"].to_pylist()]
    malformed, missing = "malformed caption", "missing caption"
    assert [row["error"] for row in rows] == [None, malformed, missing, missing, missing, malformed, malformed, None]
    assert [row["reason"] for row in rows[2:5]] == [None, "the text is empty", "the text is empty"]
    assert rows[0]["dedup_size"] == rows[7]["dedup_size"] == 2
    assert reduced.summary["failed"] == 6
    with pytest.raises(UserError, match="holds int64, not texts"):
        decide(table_of(caption=[1, 2]), tmp_path)
    with pytest.raises(UserError, match="cannot be compared"):
        decide(table_of(caption=["a"], tags=[["x"]]), tmp_path, only_if=("tags",))


@pytest.mark.parametrize("kind", [pa.large_string(), pa.dictionary(pa.int32(), pa.string()), pa.null()])
def test_any_kind_of_text(tmp_path: Path, kind: pa.DataType) -> None:
    texts = pa.nulls(2) if pa.types.is_null(kind) else pa.array(["Same text", "same  TEXT"]).cast(kind)
    decisions, _ = decide(table_of(caption=texts), tmp_path)
    fates_found = sorted(decision["fate"] or "" for decision in decisions.values())
    assert fates_found == (["failed", "failed"] if pa.types.is_null(kind) else ["", "rejected"])


def test_long_texts(tmp_path: Path) -> None:
    words = [f"w{i}" for i in range(200_000)]
    long, other = " ".join(words), " ".join([*words[:100_000], "changed", *words[100_000:]])
    characters = "寿" * 400_000
    table = table_of(caption=[long, other, characters, characters + "司", "short"])
    decisions, reduced = decide(table, tmp_path)
    assert sorted(decision["dedup_size"] for decision in decisions.values()) == [1, 1, 1, 2, 2]
    assert reduced.summary["dropped"] == 1


def test_no_rows(tmp_path: Path) -> None:
    decisions, reduced = decide(table_of(caption=pa.array([], pa.string())), tmp_path)
    assert decisions == {}
    assert reduced.summary["rows"] == reduced.summary["groups"] == reduced.summary["largest"] == 0


# Recipes -------------------------------------------------------------------------------------------------------------


def test_files_and_order_mean_nothing(tmp_path: Path) -> None:
    captions = edited_captions(400, seed=5)
    table = pa.table({"url": [f"http://web/{i}" for i in range(len(captions))], "caption": captions})
    drawn, outcomes = random.Random(0), []
    for files in (1, 7, 64):
        shuffled = table.take(pa.array(drawn.sample(range(table.num_rows), table.num_rows)))
        folder = tmp_path / f"in_{files}"
        folder.mkdir()
        for i in range(files):
            pq.write_table(shuffled.take(pa.array(range(i, table.num_rows, files))), folder / f"{i}.parquet")
        run_recipe(_recipe(folder, "dedup.minhash: 0.7"), tmp_path / f"out_{files}")
        outcomes.append(outcome(tmp_path / f"out_{files}"))
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert any(fate[0] == "rejected" for fate in outcomes[0][1].values())


def test_against_finished_corpora(tmp_path: Path) -> None:
    """Their rows represent groups, the first of the list before others, and join what they are both near to."""
    pools = {
        "elder": ["a red lighthouse on a rock", "two boats in the harbour", None],
        "younger": ["a red lighthouse on a rock"],
        "new": ["A red lighthouse on a rock today", "the red lighthouse on a rock", "something else entirely", "zwei"],
    }
    for name, captions in pools.items():
        urls = [f"http://{name}/{i}" for i in range(len(captions))]
        pq.write_table(pa.table({"url": urls, "caption": captions}), tmp_path / f"{name}.parquet")
    for name in ("elder", "younger"):
        run_recipe(_recipe(tmp_path / f"{name}.parquet", "keep: 'true'", corpus=name), tmp_path / name)
    for first, second in (("elder", "younger"), ("younger", "elder")):
        folders = f"['{tmp_path / first}', '{tmp_path / second}']"
        step = f"dedup.minhash: {{threshold: 0.7, recall: 1, against: {folders}}}"
        out = tmp_path / f"out_{first}"
        run_recipe(_recipe(tmp_path / "new.parquet", step), out)
        found = list(fates(out).values())
        reasons = sorted(row["reason"] for row in found if row["fate"] == "rejected")
        assert sorted(row["fate"] for row in found) == ["kept", "kept", "rejected", "rejected"]
        twins = {uid for uid, row in fates(tmp_path / first).items() if row["fate"] == "kept"}
        for reason, measure in zip(sorted(reasons, key=lambda reason: reason[-5:]), ("0.79", "0.84"), strict=True):
            uid, _, rest = reason.removeprefix("near-duplicate caption: of ").partition(" ")
            assert uid in twins
            assert rest == f"in {first} (Jaccard {measure})"


def test_a_corpus_that_changed_is_another_step(tmp_path: Path) -> None:
    pq.write_table(pa.table({"url": ["http://web/1"], "caption": ["a"]}), tmp_path / "in.parquet")
    run_recipe(_recipe(tmp_path / "in.parquet", "keep: 'true'"), tmp_path / "old")
    config = MinHash.Config(against=(str(tmp_path / "old"),))
    assert config.against_sha256 is not None
    with pytest.raises(ValidationError, match="the corpora of `against` are others"):
        MinHash.Config(against=config.against, against_sha256="0" * 64)


def test_what_recipes_write(tmp_path: Path) -> None:
    assert operator_class("dedup.minhash") is MinHash
    assert MinHash().requires == ("caption",)
    config = MinHash.Config(column="title", only_if=("site",), prefer="width")
    assert MinHash(config).requires == ("title", "site", "width")
    for wrong in (
        {"threshold": 0},
        {"threshold": 1.1},
        {"recall": 0},
        {"threshold": 0.01, "recall": 0.999},
        {"word_size": 0},
        {"shingles": "lines"},
        {"against": [str(tmp_path)]},
    ):
        with pytest.raises(ValidationError):
            MinHash.Config.model_validate(wrong)


def _recipe(source: Path, step: str, corpus: str = "t") -> str:
    return f"""
        corpus: {corpus}
        input: {{path: {source}}}
        steps:
          - {step}
    """
