"""sample: a row's draw is its own, nested over rates, and as frequent as the rate says."""

from __future__ import annotations

import itertools
import random

import cloudpickle
import pyarrow as pa
import pytest
import xxhash
from pydantic import ValidationError

from corpusmith.operators.select.sample import Sample
from corpusmith.schemas.identity import uid_of

UIDS = [uid_of("row", str(i)) for i in range(20_000)]


def kept(rate: float, uids: list[str] = UIDS, seed: int = 0) -> set[str]:
    decision = Sample(Sample.Config(rate=rate), seed=seed).decide(pa.table({"uid": uids}))
    assert sorted(decision.reasons) == [i for i, keep in enumerate(decision.keep) if not keep]
    assert not decision.errors
    return {uid for uid, keep in zip(uids, decision.keep, strict=True) if keep}


def test_does_not_depend_on_order_or_batches() -> None:
    shuffled = random.Random(1).sample(UIDS, len(UIDS))
    in_batches = [kept(0.3, shuffled[start : start + 37]) for start in range(0, 3700, 37)]
    assert kept(0.3, shuffled) == kept(0.3)
    assert set().union(*in_batches) == kept(0.3) & set(shuffled[:3700])


def test_lower_rates_are_nested_in_higher_ones() -> None:
    chosen = [kept(rate) for rate in (0.0, 0.01, 0.1, 0.5, 0.9, 1.0)]
    assert all(fewer < more for fewer, more in itertools.pairwise(chosen))
    assert chosen[0] == set()
    assert chosen[-1] == set(UIDS)


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("seed", [0, 7, -1, 2**64 + 5])
def test_keeps_about_the_rate(rate: float, seed: int) -> None:
    deviation = (rate * (1 - rate) / len(UIDS)) ** 0.5
    assert abs(len(kept(rate, seed=seed)) / len(UIDS) - rate) < 4.5 * deviation


def test_seeds_draw_independently() -> None:
    both = kept(0.5, seed=1) & kept(0.5, seed=2)
    assert abs(len(both) / len(UIDS) - 0.25) < 0.02
    assert kept(0.5, seed=1) == kept(0.5, seed=1)


def test_reason_and_reference() -> None:
    operator = Sample(Sample.Config(rate=0.1), seed=3)
    decision = operator.decide(pa.table({"uid": UIDS[:100]}))
    for i, uid in enumerate(UIDS[:100]):
        draw = xxhash.xxh64(uid.encode(), seed=3).intdigest() / 2**64
        assert decision.keep[i] == (draw < 0.1)
        if draw >= 0.1:
            assert decision.reasons[i] == f"sample rate 0.1: draw = {draw:.6g}"
    assert Sample.seeded
    assert Sample.positional == "rate"
    assert operator.requires == ()
    assert cloudpickle.loads(cloudpickle.dumps(operator)).decide(pa.table({"uid": UIDS[:100]})) == decision


def test_extreme_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xxhash, "xxh64_intdigest", lambda uid, seed: 2**64 - 1 if uid == b"high" else 0)
    assert kept(1.0, ["high", "low"]) == {"high", "low"}
    assert kept(0.0, ["high", "low"]) == set()
    assert kept(5e-324, ["high", "low"]) == set()


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan"), "many"])
def test_a_rate_is_a_share(rate: object) -> None:
    with pytest.raises(ValidationError):
        Sample.Config(rate=rate)  # pyright: ignore[reportArgumentType]
