"""synset_select: the rows that name a synset of the list, and lists that are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from corpusmith.operators.contract import Decision
from corpusmith.operators.registry import operator_class
from corpusmith.operators.select.synset_select import SynsetSelect, find_list

DOG, CAT, RUN = "n02084071", "n02121620", "v01926311"


def listed(folder: Path, *lines: str) -> str:
    path = folder / "wanted.txt"
    path.write_text("\n".join(lines))
    return str(path)


def decide(rows: list[Any], path: str | None, **config: Any) -> Decision:
    operator = SynsetSelect(SynsetSelect.Config(synsets=path, **config))
    operator.setup()
    column = pa.array(rows, pa.list_(pa.string()))
    return operator.decide(pa.table({"uid": [str(i) for i in range(len(rows))], "synsets": column}))


@given(
    rows=st.lists(st.none() | st.lists(st.none() | st.sampled_from([DOG, CAT, RUN]), max_size=6), max_size=20),
    wanted=st.sets(st.sampled_from([DOG, CAT, RUN]), min_size=1),
)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_keeps_what_names_one_of_the_list(tmp_path: Path, rows: list[Any], wanted: set[str]) -> None:
    decision = decide(rows, listed(tmp_path, *wanted))
    keep = pa.array(decision.keep).to_pylist()
    assert keep == [row is not None and bool(wanted.intersection(row)) for row in rows]
    assert set(decision.errors) == {i for i, row in enumerate(rows) if row is None}
    assert set(decision.reasons) == {i for i, row in enumerate(rows) if row is not None and not keep[i]}


def test_reasons_name_the_list_and_what_was_found(tmp_path: Path) -> None:
    decision = decide([[RUN], [], [RUN, CAT, RUN, CAT], None], listed(tmp_path, DOG))
    assert decision.reasons == {
        0: f"no synset of wanted.txt: synsets = {RUN}",
        1: "no synset of wanted.txt: synsets = none",
        2: f"no synset of wanted.txt: synsets = {RUN}, {CAT}, {RUN}, …",
    }
    assert decision.errors[3].error == "missing synsets"


@pytest.mark.parametrize(
    ("lines", "told"),
    [((), "the list is empty"), ((DOG, "dog"), r"wanted.txt:2: 'dog' is no synset"), (("n2084071",), "is no synset")],
)
def test_lists_that_are_none(tmp_path: Path, lines: tuple[str, ...], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        SynsetSelect.Config(synsets=listed(tmp_path, *lines))


def test_the_list_of_a_recipe(tmp_path: Path) -> None:
    assert operator_class("synset_select") is SynsetSelect
    config = SynsetSelect.Config(synsets=listed(tmp_path, DOG, "", f" {CAT} "))
    listed(tmp_path, DOG)
    assert SynsetSelect.Config(synsets=config.synsets).synsets_sha256 != config.synsets_sha256
    for wrong in ({"synsets": str(tmp_path / "gone.txt")}, config.model_dump()):
        with pytest.raises(ValidationError, match=r"cannot be read|another one"):
            SynsetSelect.Config.model_validate(wrong)


def test_imagenet_21k_comes_with_timm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "timm" / "data" / "_info"
    folder.mkdir(parents=True)
    (tmp_path / "timm" / "__init__.py").write_text("raise AssertionError('imported')")
    (folder / "imagenet21k_goog_synsets.txt").write_text(f"{DOG}\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert find_list() == folder / "imagenet21k_goog_synsets.txt"
    assert pa.array(decide([[DOG], [CAT]], None).keep).to_pylist() == [True, False]
    monkeypatch.setattr("corpusmith.operators.select.synset_select.find_spec", lambda name: None)
    lack = SynsetSelect(SynsetSelect.Config()).missing()
    assert lack is not None
    assert "pip install timm" in lack
