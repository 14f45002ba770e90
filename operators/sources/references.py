"""References to media in files that belong to others: a path, where in it, and the state that the file was in.

`/data/00000.tar#512:20345:1f3a9c0d5b7e` are 20,345 bytes from byte 512. The last part is a digest of the file's size
and stamp: whoever reads the bytes compares it with the file as it is then, so that a file that was written again is
never read as if it were the old one. No index beside the references has to be kept or sent to workers for that.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

_MARK_HEX_DIGITS = 12


class Reference(NamedTuple):
    """Where media lies in an input file."""

    path: str
    offset: int
    size: int
    mark: str


def mark_of(size: int, stamp: str) -> str:
    """Digest of the state of a file: another one when the file has changed, as far as its file system can tell."""
    return hashlib.sha256(f"{size}:{stamp}".encode()).hexdigest()[:_MARK_HEX_DIGITS]


def to_text(reference: Reference) -> str:
    """A reference as `media_ref` holds it."""
    return f"{reference.path}#{reference.offset}:{reference.size}:{reference.mark}"


def is_outside(text: str) -> bool:
    """Whether a `media_ref` leads into an input file, and not below the work folder."""
    return text.startswith("/") or "://" in text.partition("#")[0]


def parse(text: str) -> Reference:
    """The inverse of to_text."""
    path, _, place = text.rpartition("#")
    offset, size, mark = place.split(":")
    return Reference(path, int(offset), int(size), mark)
