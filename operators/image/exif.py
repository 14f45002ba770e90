"""EXIF: which way is up, and what the camera noted.

EXIF says nothing about the pixels themselves, so that a broken one never fails a picture. It is read here rather than
by a library because it is hostile: only directories and values that are asked for are looked at, a few of each, so that
loops between directories and tags that all claim the same megabytes cost nothing.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

_ORIENTATION_TAG = 0x0112
_EXIF_POINTER = 0x8769
_LOCATION_POINTER = 0x8825
_MAX_TEXT = 200
_MAX_VALUES = 8
_MAX_ENTRIES = 512
_ENTRY_BYTES = 12
_UNTOLD_TAGS = frozenset(
    (
        "ExifOffset",
        "ExifInteroperabilityOffset",
        "GPSInfo",
        "JpegIFOffset",
        "JpegIFByteCount",
        "CameraOwnerName",
        "BodySerialNumber",
        "LensSerialNumber",
        "MakerNote",
        "PrintImageMatching",
    )
)
_MAX_BYTES = 4
"""More bytes than these are something opaque."""
_ASCII = 2
_BYTES = (1, 6)
_NUMBERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d"}
_RATIOS = {5: "I", 10: "i"}
"""Types of values (TIFF 6.0, section 2) and their codes in `struct`; opaque bytes (7) are left out."""


def upright(width: int, height: int, orientation: int) -> tuple[int, int]:
    """Width and height as seen, from those stored, and the other way round."""
    return (height, width) if orientation >= 5 else (width, height)


def oriented(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Stored pixels as they are meant to be seen, by the EXIF orientation 1 to 8 (CIPA DC-008, 4.6.4 A)."""
    if orientation == 1:
        return pixels
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


@dataclass(frozen=True)
class Exif:
    """Orientation 1 to 8, and tags as a JSON object; None without tags."""

    orientation: int = 1
    as_json: str | None = None


_NONE = Exif()


def read_exif(structure: bytes, *, with_location: bool = False) -> Exif:
    """What an EXIF structure (a TIFF header and its directories) says; nothing, if it cannot be read.

    Args:
        structure: the bytes, with or without the marker `Exif\\0\\0` before them.
        with_location: tell where the picture was taken. By whom and with which single device is never told.
    """
    if not structure:
        return _NONE
    structure = structure.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(structure[:4])
    if order is None:
        return _NONE
    try:
        return _described(_Directories(structure, order), with_location)
    except struct.error:  # an offset that points past the end
        return _NONE


def _described(directories: _Directories, with_location: bool) -> Exif:
    from PIL.ExifTags import GPSTAGS, TAGS

    main = directories.tags(directories.first)
    stated = main.get(_ORIENTATION_TAG)
    orientation = stated if isinstance(stated, int) and 1 <= stated <= 8 else 1
    tags = {**main, **directories.below(main, _EXIF_POINTER)}
    shown: dict[str, Any] = {TAGS[t]: v for t, v in tags.items() if t in TAGS and TAGS[t] not in _UNTOLD_TAGS}
    if with_location:
        location = {GPSTAGS[t]: v for t, v in directories.below(main, _LOCATION_POINTER).items() if t in GPSTAGS}
        shown |= {"GPSInfo": location} if location else {}
    return Exif(orientation, json.dumps(shown, sort_keys=True) if shown else None)


class _Directories:
    """The directories of a TIFF structure.

    Args:
        structure: the bytes that offsets count from.
        order: "<" or ">".
    """

    def __init__(self, structure: bytes, order: str) -> None:
        self._bytes = structure
        self._order = order
        (self.first,) = struct.unpack_from(order + "I", structure, 4)

    def below(self, tags: dict[int, Any], pointer: int) -> dict[int, Any]:
        """Tags of the directory that a tag points to; none if there is no such directory."""
        offset = tags.get(pointer)
        try:
            return self.tags(offset) if isinstance(offset, int) else {}
        except struct.error:
            return {}

    def tags(self, offset: int) -> dict[int, Any]:
        """Tag → number, text, or a list of a few numbers; tags of other or broken values are left out.

        Raises:
            struct.error: there is no directory at `offset`.
        """
        (count,) = struct.unpack_from(self._order + "H", self._bytes, offset)
        found: dict[int, Any] = {}
        for i in range(min(count, _MAX_ENTRIES)):
            at = offset + 2 + _ENTRY_BYTES * i
            if at + _ENTRY_BYTES > len(self._bytes):
                break
            tag, kind, length = struct.unpack_from(self._order + "HHI", self._bytes, at)
            value = self._value(kind, length, at + 8)
            if value is not None:
                found[tag] = value
        return found

    def _value(self, kind: int, length: int, at: int) -> Any:
        """A value whose last 4 bytes of entry lie at `at`: the value itself, or where it lies."""
        unit = struct.calcsize("=" + _NUMBERS[kind]) if kind in _NUMBERS else {_ASCII: 1, 5: 8, 10: 8}.get(kind, 0)
        if not unit or not length or (kind in _BYTES and length > _MAX_BYTES):
            return None
        if unit * length > 4:
            (at,) = struct.unpack_from(self._order + "I", self._bytes, at)
        if at + unit * length > len(self._bytes):
            return None
        if kind == _ASCII:
            return _text(self._bytes[at : at + min(length, 4 * _MAX_TEXT)])
        count = min(length, _MAX_VALUES)
        if kind in _NUMBERS:
            values = struct.unpack_from(f"{self._order}{count}{_NUMBERS[kind]}", self._bytes, at)
        else:
            parts = struct.unpack_from(f"{self._order}{2 * count}{_RATIOS[kind]}", self._bytes, at)
            values = [n / d if d else math.nan for n, d in zip(parts[::2], parts[1::2], strict=True)]
        if not all(math.isfinite(value) for value in values):
            return None
        told = [round(value, 6) if isinstance(value, float) else value for value in values]
        return told[0] if length == 1 else told


def _text(value: bytes) -> str | None:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = value.decode("latin-1")
    return text.replace("\0", "").strip()[:_MAX_TEXT] or None
