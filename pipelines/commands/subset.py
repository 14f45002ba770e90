"""`corpusmith subset`: a selection as a file of ids, as DataComp exchanges them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from corpusmith.pipelines.commands.options import CorpusArgument, existing_corpus
from corpusmith.pipelines.commands.telling import note


class IdName(StrEnum):
    """Which id of a sample is meant."""

    SOURCE_UID = "source_uid"
    UID = "uid"


class FateName(StrEnum):
    """How samples ended."""

    KEPT = "kept"
    REJECTED = "rejected"
    FAILED = "failed"
    SPLIT = "split"


def subset(
    corpus: CorpusArgument,
    output: Annotated[Path, typer.Argument(metavar="OUT.npy", help="The file to write.", show_default=False)],
    uid: Annotated[
        IdName,
        typer.Option("--uid", metavar="NAME", help="source_uid: ids that the source gave, as DataComp's; uid: ours."),
    ] = IdName.SOURCE_UID,
    fate: Annotated[
        FateName | None,
        typer.Option("--fate", metavar="FATE", help="kept, rejected, failed or split.", show_default="kept"),
    ] = None,
    step: Annotated[
        str | None,
        typer.Option("--step", metavar="STEP", help="Only samples whose fate this step decided.", show_default=False),
    ] = None,
) -> None:
    """Write the ids of the kept samples, or of others, as a subset file: a sorted NumPy array of dtype u8,u8.

    \b
    Examples:
      corpusmith subset corpus kept.npy
      corpusmith subset corpus too-small.npy --step keep#3 --uid uid
    """
    from corpusmith.pipelines.subset import write_subset

    written = write_subset(
        existing_corpus(corpus), output, by=uid.value, fate=fate.value if fate is not None else None, step=step
    )
    if written.ids < written.samples:
        note(f"{written.samples - written.ids:,} samples have an id that another has: each stands there once")
    print(f"wrote {written.ids:,} ids to {output}")  # noqa: T201
