"""subset: DataComp's files of ids in, membership as Python's sets say it, ids that are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from corpusmith.operators.contract import Decision
from corpusmith.operators.registry import operator_class
from corpusmith.operators.select.subset import Subset, halves_of, read_subset, sorted_halves
from corpusmith.schemas.errors import UserError

HALF = st.sampled_from([0, 1, 2**63, 2**64 - 1]) | st.integers(0, 2**64 - 1)
ID = st.tuples(HALF, HALF).map(lambda halves: f"{halves[0]:016x}{halves[1]:016x}")


def datacomp_array(ids: list[str], dtype: str = "u8,u8") -> np.ndarray:
    """The array that DataComp's baselines make of ids (the expression is theirs)."""
    return np.array([(int(uid[:16], 16), int(uid[16:32], 16)) for uid in ids], np.dtype(dtype))


def decide(ids: list[Any], path: Path, **config: Any) -> Decision:
    operator = Subset(Subset.Config(path=str(path), **config))
    operator.setup()
    return operator.decide(pa.table({"uid": pa.array(ids, pa.string()), "source_uid": pa.array(ids, pa.string())}))


@given(ids=st.lists(ID, max_size=30), others=st.lists(ID, max_size=30), is_sorted=st.booleans())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_membership_is_that_of_a_set(tmp_path: Path, ids: list[str], others: list[str], is_sorted: bool) -> None:
    array = datacomp_array(ids)
    if is_sorted:
        array.sort()
    np.save(tmp_path / "subset.npy", array)
    asked = [*ids, *others, *(uid.upper() for uid in ids)]
    decision = decide(asked, tmp_path / "subset.npy")
    assert pa.array(decision.keep).to_pylist() == [uid.lower() in set(ids) for uid in asked]
    assert set(decision.reasons) == {i for i, uid in enumerate(asked) if uid.lower() not in set(ids)}
    assert not decision.errors


@given(ids=st.lists(ID, max_size=40))
def test_halves_are_datacomps_and_sort_as_numpy_sorts_them(ids: list[str]) -> None:
    halves, is_id = halves_of(pa.array(ids, pa.string()))
    assert is_id.all()
    assert [tuple(pair) for pair in halves.tolist()] == datacomp_array(ids).tolist()
    assert [tuple(pair) for pair in sorted_halves(halves).tolist()] == np.unique(datacomp_array(ids)).tolist()


def test_ids_that_are_none(tmp_path: Path) -> None:
    np.save(tmp_path / "subset.npy", datacomp_array(["0" * 32]))
    ids = [None, "", "0" * 31, "0" * 33, "g" * 32, "0" * 31 + "\n", "０" * 32, "0" * 32, "0" * 31 + "1"]
    decision = decide(ids, tmp_path / "subset.npy")
    assert pa.array(decision.keep).to_pylist() == [False] * 7 + [True, False]
    assert [decision.errors[i].error for i in range(7)] == ["missing source_uid"] + ["malformed source_uid"] * 6
    assert decision.errors[3].message == f"not 32 hex digits: {'0' * 33}"
    assert decision.reasons == {8: f"not in subset.npy: source_uid = {'0' * 31}1"}
    sliced = pa.array(["x", "0" * 32, None])[1:]
    assert halves_of(sliced)[1].tolist() == [True, False]


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (np.arange(4, dtype=np.uint64), "dtype uint64"),
        (np.zeros(3, "i8,i8"), "dtype"),
        (np.zeros(3, "u8,u8,u8"), "dtype"),
        (np.zeros((2, 2), "u8,u8"), "2-dimensional"),
        (np.array([{"a": 1}], object), "cannot be read"),
    ],
    ids=str,
)
def test_files_that_are_no_subsets(tmp_path: Path, array: np.ndarray, told: str) -> None:
    np.save(tmp_path / "subset.npy", array, allow_pickle=True)
    with pytest.raises(UserError, match=told):
        read_subset(str(tmp_path / "subset.npy"))
    (tmp_path / "text.npy").write_text("no array")
    np.savez(tmp_path / "two.npz", a=np.zeros(1), b=np.zeros(1))
    for name, said in (("text.npy", "cannot be read"), ("two.npz", "several arrays"), ("gone.npy", "cannot be read")):
        with pytest.raises(UserError, match=said):
            read_subset(str(tmp_path / name))


def test_other_byte_orders_and_empty_files(tmp_path: Path) -> None:
    np.save(tmp_path / "big.npy", datacomp_array(["0" * 15 + "1" + "0" * 15 + "2"], ">u8,>u8"))
    assert read_subset(str(tmp_path / "big.npy")).tolist() == [[1, 2]]
    np.save(tmp_path / "empty.npy", datacomp_array([]))
    assert pa.array(decide(["0" * 32], tmp_path / "empty.npy", by="uid").keep).to_pylist() == [False]


def test_what_recipes_write(tmp_path: Path) -> None:
    assert operator_class("subset") is Subset
    np.save(tmp_path / "subset.npy", datacomp_array(["0" * 32]))
    config = Subset.Config(path=str(tmp_path / "subset.npy"))
    assert Subset(config).requires == ("source_uid",)
    assert Subset(Subset.Config(path=config.path, by="uid")).requires == ()
    np.save(tmp_path / "subset.npy", datacomp_array(["1" * 32]))
    for wrong in (config.model_dump(), {"path": str(tmp_path / "gone.npy")}):
        with pytest.raises(ValidationError, match=r"another one|cannot be read"):
            Subset.Config.model_validate(wrong)
