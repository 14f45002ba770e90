"""choose_text: the choice of a naive loop, the same in whatever batch a row comes, and draws that keep the weights."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pyarrow as pa
import pytest
import xxhash
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from corpusmith.operators.registry import operator_class
from corpusmith.operators.text.choose_text import ChooseText
from corpusmith.schemas.columns import TEXTS
from corpusmith.schemas.identity import uid_of

Texts = list[dict[str, str | None] | None] | None


def choose(rows: list[Texts], seed: int = 0, **config: Any) -> list[tuple[str | None, str | None] | None]:
    """(caption, kind) of each row, None for one that fails."""
    operator = ChooseText(ChooseText.Config(**config), seed=seed)
    uids = [uid_of(str(i)) for i in range(len(rows))]
    part = operator.process(pa.table({"uid": pa.array(uids, pa.string()), "texts": pa.array(rows, TEXTS.type)}))
    captions, kinds = (part.columns[name].to_pylist() for name in ("caption", "caption_kind"))  # pyright: ignore[reportAttributeAccessIssue]
    assert {error.error for error in part.errors.values()} <= {"missing text"}
    assert all(captions[i] is None for i in part.errors)
    return [None if i in part.errors else pair for i, pair in enumerate(zip(captions, kinds, strict=True))]


def texts_of(*pairs: tuple[str | None, str | None]) -> Texts:
    return [{"kind": kind, "text": text} for kind, text in pairs]


def reference(i: int, texts: Texts, seed: int, config: dict[str, Any]) -> tuple[str | None, str | None] | None:
    items = [(place, item["kind"], item["text"]) for place, item in enumerate(texts or []) if item]
    items = [(place, kind, text) for place, kind, text in items if text and text.strip()]
    by, kinds, weights = config["by"], config.get("kinds", []), config.get("weights")
    if by == "kind" or weights:
        items = [item for item in items if item[1] in (weights or kinds)]
    if not items:
        return None
    sharing = Counter(kind for _, kind, _ in items)

    def rank(item: tuple[int, str | None, str | None]) -> float:
        place, kind, text = item
        match by:
            case "longest":
                return -len(text or "")
            case "shortest":
                return len(text or "")
            case "kind":
                return kinds.index(kind)
            case "random":
                weight = weights[kind] / sharing[kind] if weights else 1.0
                drawn = xxhash.xxh64_intdigest(f"choose_text {place} {uid_of(str(i))}".encode(), seed) >> 11
                return -math.log((drawn + 1) / 2**53) / weight
        return 0

    _, kind, text = min(items, key=rank)
    return text, kind


KIND = st.none() | st.sampled_from(["alt", "title", "vlm"])
TEXT = (
    st.none()
    | st.sampled_from(["", " ", "\u3000\n", "a", "bb", "ccc", "日本語の", "\u202e", "e\u0301"])
    | st.text(max_size=4)
)
ITEM = st.none() | st.fixed_dictionaries({"kind": KIND, "text": TEXT.filter(lambda t: not t or t.isprintable())})
CONFIGS = [
    {"by": "first"},
    {"by": "longest"},
    {"by": "shortest"},
    {"by": "random"},
    {"by": "kind", "kinds": ["title", "alt"]},
    {"by": "random", "weights": {"alt": 0.8, "vlm": 0.2}},
]


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.none() | st.lists(ITEM, max_size=5), max_size=8),
    config=st.sampled_from(CONFIGS),
    seed=st.sampled_from([0, 9, 2**63 - 1]),
)
@example(rows=[None, [], [None]], config=CONFIGS[5], seed=0)
def test_is_the_rule(rows: list[Texts], config: dict[str, Any], seed: int) -> None:
    assert choose(rows, seed, **config) == [reference(i, texts, seed, config) for i, texts in enumerate(rows)]


@pytest.mark.parametrize("config", CONFIGS)
def test_batches_mean_nothing(config: dict[str, Any]) -> None:
    rows = [texts_of(*((k, f"{k} {i} {j}") for j, k in enumerate(["alt", "vlm", "vlm", "title"]))) for i in range(200)]
    operator = ChooseText(ChooseText.Config(**config), seed=3)
    table = pa.table({"uid": [uid_of(str(i)) for i in range(200)], "texts": pa.array(rows, TEXTS.type)})
    whole = operator.process(table).columns["caption"]
    cut = [operator.process(table.slice(i, 7)).columns["caption"] for i in range(0, 200, 7)]
    backwards = operator.process(table.take(pa.array(range(199, -1, -1)))).columns["caption"]
    assert pa.concat_arrays(cut).equals(whole)  # pyright: ignore[reportArgumentType]
    assert backwards.to_pylist()[::-1] == whole.to_pylist()  # pyright: ignore[reportAttributeAccessIssue]


def test_a_mix_keeps_its_weights() -> None:
    rows = [texts_of(("original", "o"), ("synthetic", "s1"), ("synthetic", "s2"), ("other", "x"))] * 4000
    weights = {"original": 0.8, "synthetic": 0.2}
    times = Counter(choose(rows, by="random", weights=weights))
    # Standard deviations: 25 of 3200, 19 of 400.
    assert abs(times["o", "original"] - 3200) < 130
    assert abs(times["s1", "synthetic"] - 400) < 100
    assert abs(times["s2", "synthetic"] - 400) < 100
    assert sum(times.values()) == 4000
    assert choose(rows, by="random") != choose(rows, seed=1, by="random")


def test_what_is_missing_is_said() -> None:
    operator = ChooseText(ChooseText.Config(by="kind", kinds=("alt", "title")))
    part = operator.process(pa.table({"uid": ["0"], "texts": pa.array([texts_of(("vlm", "a"))], TEXTS.type)}))
    assert (part.errors[0].error, part.errors[0].message) == ("missing text", "none of kind alt, title")


def test_long_texts_and_columns_without_any() -> None:
    long = "x" * 1_000_000
    assert choose([texts_of(("a", long), ("b", "short"))], by="longest") == [(long, "a")]
    part = ChooseText().process(pa.table({"uid": ["0", "1"], "texts": pa.nulls(2)}))
    assert sorted(part.errors) == [0, 1]
    empty = ChooseText().process(pa.table({"uid": pa.array([], pa.string()), "texts": pa.array([], TEXTS.type)}))
    assert len(empty.columns["caption"]) == 0


def test_what_recipes_write() -> None:
    assert operator_class("choose_text") is ChooseText
    for wrong in (
        {"by": "kind"},
        {"kinds": ["alt"]},
        {"by": "first", "weights": {"alt": 1}},
        {"by": "random", "weights": {"alt": 0}},
        {"by": "best"},
    ):
        with pytest.raises(ValidationError):
            ChooseText.Config.model_validate(wrong)
