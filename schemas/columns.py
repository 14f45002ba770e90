"""Columns: each is declared once, where it is born.

A source's columns are declared here; an operator's are declared in the operator. `provider` is not written
down: it is whoever lists the column.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True)
class Column:
    """One column of a sample table.

    Args:
        name: as recipes and SQL predicates spell it; units are part of the name (`duration_s`, `size_bytes`).
        type: Arrow type of the values; null means "not known".
        meaning: one line for people.
        unit: unit of the values, or "" for none.
    """

    name: str
    type: pa.DataType
    meaning: str
    unit: str = ""


UID = Column(
    "uid", pa.string(), "identity of the sample: 128 bits as 32 hex digits, from what it is, never where it lies"
)
SOURCE_UID = Column("source_uid", pa.string(), "the id that the source itself gives the sample")
URL = Column("url", pa.string(), "address of the media, as given")
CAPTION = Column("caption", pa.string(), "text that came with the media")

TEXTS = Column(
    "texts",
    pa.list_(pa.struct([("kind", pa.string()), ("text", pa.string())])),
    "all texts that came with the media, and the column that each stood in; the first is the caption",
)

ORIGIN = Column("origin", pa.string(), "name of the part of the input that the sample came from")
"""A source's, where the recipe names its parts (`input.origins`)."""

SOURCE_COLUMNS: tuple[Column, ...] = (UID, SOURCE_UID, URL, CAPTION)
"""Columns that every source has; its other columns are carried through under their own names."""

EMBEDDING = Column(
    "embedding",
    pa.list_(pa.float16()),
    "what an encoder makes of the sample: a vector of unit length, of one dimension for all samples",
)
"""The habitual name and form; whoever reads embeddings takes lists of any float, of fixed size or not."""

MEDIA = Column(
    "media", pa.large_binary(), "encoded bytes of the image or clip; in memory only, never in a table on disk"
)
"""An operator that lists MEDIA in `produces` makes media, one that lists "media" in `requires` reads it.

The bytes of the last maker of a stream are staged in shards beside its results; tables carry a reference.
"""

MEDIA_SHA256 = Column(
    "media_sha256", pa.string(), "sha256 of the media in its present form; stands for the bytes in digests"
)
MEDIA_REF = Column(
    "media_ref",
    pa.string(),
    "where media lies: file#offset:size, relative to the work folder; an input's own file with its full path and state",
)
ROOT = Column("root_uid", pa.string(), "uid of the input row that the sample descends from; itself for an input row")
PARENT = Column("parent_uid", pa.string(), "uid of the sample that this one was split from")

FATE = Column("fate", pa.string(), "how the sample ended; null while it goes on")
FATE_STEP = Column("fate_step", pa.string(), "the step that decided the fate")
FATE_REASON = Column("fate_reason", pa.string(), "column, value and bound for a rejection; message for a failure")
FATE_ERROR = Column("fate_error", pa.string(), "class of the error of a failed sample")
FATE_CHILDREN = Column("fate_children", pa.int64(), "number of samples that a split sample was split into")

FATE_COLUMNS: tuple[Column, ...] = (FATE, FATE_STEP, FATE_REASON, FATE_ERROR, FATE_CHILDREN)
ENGINE_COLUMNS: tuple[Column, ...] = (ROOT, PARENT, MEDIA_SHA256, MEDIA_REF, *FATE_COLUMNS)
"""Columns that the engine keeps on every row; operators neither require nor produce them."""

RESERVED_NAMES = frozenset(c.name for c in (UID, *ENGINE_COLUMNS))
