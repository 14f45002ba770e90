"""synset_select: keep the rows that name one of a list of synsets, such as ImageNet-21k's classes.

DataComp's text-based filter (Gadre et al., 2023, section 3.2) after `synsets`: an English caption stays if the first
meaning of one of its words is a class of ImageNet-21k. DataComp's code compares the numbers of synsets without their
part of speech, so that a verb or adjective whose number happens to be a class's counts as well (45 of WordNet 3.0's
155,000 lemmas); here `v…` is no `n…`, as the paper says it.

The list is a file of WNIDs, one a line. ImageNet-21k's comes with timm (Apache-2.0), where that is installed.
"""

from __future__ import annotations

import hashlib
import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, ValidationInfo, field_validator

from corpusmith.operators.contract import Config as BaseConfig
from corpusmith.operators.contract import Decision, Select
from corpusmith.schemas.errors import UserError
from corpusmith.schemas.fates import RowError

_TIMM_LISTS = ("imagenet21k_goog_synsets.txt", "imagenet22k_ms_synsets.txt", "imagenet22k_synsets.txt")
"""All of ImageNet-21k's classes; the first is the list that DataComp names."""
_WNID = re.compile(r"[nvars]\d{8}")
_SHOWN_SYNSETS = 3
_HOW = (
    "a list of ImageNet-21k's synsets comes with timm (Apache-2.0): pip install timm; or name a file of your own, one "
    "synset such as n02084071 a line: synsets: FILE"
)


class SynsetSelect(Select, name="synset_select", version=1):
    """Keep the rows that name a synset of a list: by default ImageNet-21k's."""

    class Config(BaseConfig):
        column: str = Field(default="synsets", description="column of lists of synsets, as the step synsets makes it")
        synsets: str | None = Field(
            default=None,
            description="file of the synsets that are wanted, one a line such as n02084071; null: ImageNet-21k's, as "
            "an installed timm has them",
        )
        synsets_sha256: str | None = Field(
            default=None,
            validate_default=True,
            description="sha256 of the file, filled in when the recipe is read so that a changed list is a changed "
            "step; give it to insist on a list",
        )

        @field_validator("synsets_sha256")
        @classmethod
        def _is_the_list(cls, given: str | None, info: ValidationInfo) -> str | None:
            named = info.data.get("synsets")
            path = Path(named).expanduser() if named else find_list()
            if path is None:
                return given  # missing() tells it, so that recipes can be read where timm is not
            try:
                read_list(path)
            except UserError as error:
                raise ValueError(str(error)) from error
            found = hashlib.sha256(path.read_bytes()).hexdigest()
            if given not in (None, found):
                raise ValueError(f"the list of synsets is another one: {found}")
            return found

    positional = "synsets"
    config: Config

    @property
    def requires(self) -> tuple[str, ...]:
        return (self.config.column,)

    def missing(self) -> str | None:
        return None if self._path() is not None else f"ImageNet-21k's synsets are not here: {_HOW}"

    def setup(self) -> None:
        path = self._path()
        if path is None:
            raise UserError("ImageNet-21k's synsets are not here", where="synset_select", hint=_HOW)
        self._wanted = pa.array(read_list(path), pa.string())
        self._label = f"no synset of {path.name}"

    def decide(self, batch: pa.Table) -> Decision:
        lists = batch.column(self.config.column).combine_chunks()
        is_missing = lists.is_null().to_numpy(zero_copy_only=False)
        is_wanted = pc.is_in(lists.flatten(), value_set=self._wanted).to_numpy(zero_copy_only=False)
        rows = pc.list_parent_indices(lists).to_numpy()[is_wanted]
        stays = np.zeros(len(lists), np.bool_)
        stays[rows] = True
        dropped = np.flatnonzero(~stays & ~is_missing)
        shown = pc.list_slice(lists.take(pa.array(dropped)), 0, _SHOWN_SYNSETS + 1, return_fixed_size_list=False)
        reasons = {
            i: f"{self._label}: {self.config.column} = {_shown(synsets)}"
            for i, synsets in zip(dropped.tolist(), shown.to_pylist(), strict=True)
        }
        errors = {i: RowError(f"missing {self.config.column}") for i in np.flatnonzero(is_missing).tolist()}
        return Decision(pa.array(stays), reasons, errors)

    def _path(self) -> Path | None:
        return Path(self.config.synsets).expanduser() if self.config.synsets else find_list()


def find_list() -> Path | None:
    """ImageNet-21k's synsets in an installed timm, which is looked at and not imported; None where there are none."""
    timm = find_spec("timm")
    for folder in (timm.submodule_search_locations or ()) if timm is not None else ():
        for name in _TIMM_LISTS:
            path = Path(folder) / "data" / "_info" / name
            if path.is_file():
                return path
    return None


def read_list(path: Path) -> list[str]:
    """Synsets of a file, one a line; empty lines mean nothing.

    Raises:
        UserError: it cannot be read, holds none, or a line is no synset.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the list of synsets cannot be read: {error}", where=str(path), hint=_HOW) from error
    synsets = [line.strip() for line in lines if line.strip()]
    wrong = next((i for i, line in enumerate(lines) if line.strip() and not _WNID.fullmatch(line.strip())), None)
    if wrong is not None or not synsets:
        where = str(path) if wrong is None else f"{path}:{wrong + 1}"
        what = "the list is empty" if wrong is None else f"{lines[wrong][:40]!r} is no synset"
        raise UserError(what, where=where, hint=_HOW)
    return synsets


def _shown(synsets: list[str | None]) -> str:
    """The first synsets of a row, and whether there are more."""
    return ", ".join([*map(str, synsets[:_SHOWN_SYNSETS]), *(["…"] if len(synsets) > _SHOWN_SYNSETS else [])]) or "none"
