"""What a general decoder is given of a file: the first picture and its colour, and nothing that is not needed for it.

Decoders read metadata before anybody can ask for the size: compressed text that unfolds to gigabytes, tags that all
claim the same megabytes, comments and frames without end. Here containers are walked once, cheaply, and such parts are
left out or refused. Sizes are announced before a decoder allocates for them.
"""

from __future__ import annotations

import math
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from corpusmith.operators.image.colour import MAX_PROFILE_BYTES
from corpusmith.schemas.fates import RowFailed

_MAX_PNG_CHUNKS = 100_000
_PNG_KEPT = frozenset((b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"acTL", b"fcTL", b"fdAT"))
_MAX_EXIF_BYTES = 2**20
_MAX_GIF_BLOCKS = 1_000_000
_GIF_IMAGE, _GIF_EXTENSION, _GIF_END, _GIF_CONTROL = b",", b"!", b";", b"\xf9"
_MAX_DIRECTORIES = 16
_MAX_BOXES = 100
_TIFF_BYTES = np.array([0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8])
"""Bytes of one value by its type (TIFF 6.0, section 2; BigTIFF); 0 for types that do not exist."""
_TIFF_DIRECTORIES = (0x8769, 0x8825, 0xA005)
_TIFF_TILE_SIDES = (322, 323)
_MAX_TILE_PIXELS = 2**28


@dataclass(frozen=True)
class Container:
    """A file as a decoder gets it.

    Args:
        data: the file, without what the decoder shall not see.
        size: the width and height that it announces; None where the decoder tells them before it allocates.
        icc_profile, exif: what was taken out of it; None where the decoder finds them.
        is_animated: more pictures follow the first; None where the decoder tells.
    """

    data: bytes
    size: tuple[int, int] | None = None
    icc_profile: bytes | None = None
    exif: bytes | None = None
    is_animated: bool | None = None


def walked(data: bytes, found: str) -> Container:
    """Walk a file of a format that image_format() found.

    Raises:
        RowFailed: "truncated image" or "corrupt image".
    """
    if found == "png":
        return _png(data)
    if found == "gif":
        return _gif(data)
    if found == "webp":
        return _webp(data)
    if found == "tiff":
        _check_tiff(data)
    elif found in ("avif", "heif"):
        _check_boxes(data)
        _check_exif_within(data)
    return Container(data)


def _png(data: bytes) -> Container:
    """Only chunks (PNG, third edition, 5.3) that make pixels; profile and EXIF apart."""
    kept: list[bytes] = [data[:8]]
    size: tuple[int, int] | None = None
    profile, exif, is_animated = b"", b"", False
    for kind, start, end in _png_chunks(data):
        if kind == b"IHDR" and start + 16 <= min(end, len(data)):
            size = struct.unpack_from(">II", data, start + 8)
        if kind == b"iCCP":
            profile = _png_profile(data[start + 8 : end - 4])
        elif kind == b"eXIf" and end - start <= _MAX_EXIF_BYTES:
            exif = data[start + 8 : end - 4]
        elif kind in _PNG_KEPT:
            is_animated = is_animated or kind == b"acTL"
            kept.append(data[start:end])
    if size is None:
        raise RowFailed("truncated image" if len(data) < 33 else "corrupt image", "PNG without a size")
    return Container(b"".join(kept), size, profile, exif, None if is_animated else False)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Type, start and end of each chunk; the last one may be cut off."""
    position = 8
    for _ in range(_MAX_PNG_CHUNKS):
        if position + 8 > len(data):
            return
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        yield kind, position, end
        if kind == b"IEND":
            return
        position = end
    raise RowFailed("corrupt image", f"more than {_MAX_PNG_CHUNKS} chunks in a PNG")


def _png_profile(chunk: bytes) -> bytes:
    """The colour profile of an iCCP chunk; empty if it is broken or unfolds to more than a profile can be."""
    _, _, rest = chunk.partition(b"\0")
    unfolding = zlib.decompressobj()
    try:
        profile = unfolding.decompress(rest[1:], MAX_PROFILE_BYTES + 1)
    except zlib.error:
        return b""
    return profile if unfolding.eof else b""


def _gif(data: bytes) -> Container:
    """The first picture (GIF89a, 20) with its graphic control; no comments, no further frames."""
    if len(data) < 13:
        raise RowFailed("truncated image", "GIF ends within its header")
    position = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    head, control = data[:position], b""
    for _ in range(_MAX_GIF_BLOCKS):
        mark = data[position : position + 1]
        if mark == _GIF_IMAGE:
            end = _gif_picture_end(data, position)
            picture = head + control + data[position:end] + _GIF_END
            return Container(picture, is_animated=_gif_goes_on(data, end))
        if mark == _GIF_EXTENSION:
            end = _gif_blocks_end(data, position + 2)
            if data[position + 1 : position + 2] == _GIF_CONTROL:
                control = data[position:end]
            position = end
        elif mark == _GIF_END:
            raise RowFailed("corrupt image", "GIF without a picture")
        elif not mark:
            raise RowFailed("truncated image", "GIF ends before its first picture")
        else:
            position += 1
    raise RowFailed("corrupt image", f"more than {_MAX_GIF_BLOCKS} blocks before the picture of a GIF")


def _gif_picture_end(data: bytes, position: int) -> int:
    if position + 10 > len(data):
        raise RowFailed("truncated image", "GIF ends within its first picture")
    flags = data[position + 9]
    return _gif_blocks_end(data, position + 10 + (3 << (flags & 7) + 1 if flags & 0x80 else 0) + 1)


def _gif_blocks_end(data: bytes, position: int) -> int:
    """Where a run of length-prefixed blocks ends, its closing zero included."""
    while position < len(data):
        length = data[position]
        position += 1 + length
        if not length:
            return position
    raise RowFailed("truncated image", "GIF ends within its first picture")


def _gif_goes_on(data: bytes, position: int) -> bool:
    """Whether a second picture follows, behind at most a few extensions."""
    try:
        for _ in range(_MAX_DIRECTORIES):
            if data[position : position + 1] != _GIF_EXTENSION:
                break
            position = _gif_blocks_end(data, position + 2)
    except RowFailed:
        return False
    return data[position : position + 1] == _GIF_IMAGE


def _webp(data: bytes) -> Container:
    """Announced size (RFC 9649, 2.5 to 2.7): decoders allocate whole canvases when they open a file."""
    if len(data) < 30:
        raise RowFailed("truncated image", "WebP ends within its header")
    (length,) = struct.unpack_from("<I", data, 4)
    if length + 8 > len(data):
        raise RowFailed("truncated image", f"WebP of {length + 8} bytes has {len(data)}")
    kind = data[12:16]
    if kind == b"VP8X":
        width = int.from_bytes(data[24:27], "little") + 1
        height = int.from_bytes(data[27:30], "little") + 1
    elif kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 ":
        width, height = (value & 0x3FFF for value in struct.unpack_from("<HH", data, 26))
    else:
        raise RowFailed("corrupt image", f"WebP that starts with {kind.decode('latin-1')!r}")
    return Container(data, (width, height))


def _check_tiff(data: bytes) -> None:
    layout = _TiffLayout("<" if data[:2] == b"II" else ">", data[2:4] in (b"+\0", b"\0+"))
    first = layout.unsigned(data[8:16] if layout.is_big else data[4:8])
    if first + 2 > len(data):
        raise RowFailed("truncated image", f"TIFF of {len(data)} bytes describes itself at {first}")
    entries = layout.entries(memoryview(data), first)
    pointers = [int(e["value"]) for e in entries if e["tag"] in _TIFF_DIRECTORIES]
    for directory in (entries, *(layout.entries(memoryview(data), p) for p in pointers[:_MAX_DIRECTORIES])):
        layout.check_claims(directory, len(data))
    tile = [layout.number(e) for e in entries if e["tag"] in _TIFF_TILE_SIDES]
    if math.prod(tile) > _MAX_TILE_PIXELS:
        raise RowFailed("corrupt image", f"TIFF with tiles of {' × '.join(map(str, tile))}")


def _check_boxes(data: bytes) -> None:
    """Refuse ISO media (ISO/IEC 14496-12, 4.2) whose outermost boxes end behind the file."""
    position = 0
    for _ in range(_MAX_BOXES):
        if position + 16 > len(data):
            return
        (size,) = struct.unpack_from(">I", data, position)
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, position + 8)
        if size < 8:  # 0: to the end of the file
            return
        position += size
        if position > len(data):
            raise RowFailed("truncated image", f"file of {position} bytes or more has {len(data)}")


def _check_exif_within(data: bytes) -> None:
    """Refuse EXIF, wherever it lies in a file, whose tags claim more than there is."""
    for number, found in enumerate(re.finditer(rb"II\*\0|MM\0\*", data)):
        if number == _MAX_DIRECTORIES:
            return
        layout, inside = _TiffLayout("<" if found[0][:1] == b"I" else ">", False), memoryview(data)[found.start() :]
        layout.check_claims(layout.entries(inside, layout.unsigned(inside[4:8])), len(inside))


@dataclass(frozen=True)
class _TiffLayout:
    """How directories are written: `order` is "<" or ">", BigTIFF `is_big`."""

    order: str
    is_big: bool

    def unsigned(self, data: bytes | memoryview) -> int:
        return int.from_bytes(data, "little" if self.order == "<" else "big")

    def entries(self, data: memoryview, offset: int) -> np.ndarray:
        """Entries of the directory at an offset: tag, type, count, value; those that lie within the file."""
        order, wide, head = self.order, 8 if self.is_big else 4, 8 if self.is_big else 2
        fields = [("tag", f"{order}u2"), ("type", f"{order}u2"), ("count", f"{order}u{wide}")]
        layout = np.dtype([*fields, ("value", f"{order}u{wide}")])
        inside = data[offset + head : offset + head + self.unsigned(data[offset : offset + head]) * layout.itemsize]
        return np.frombuffer(inside[: len(inside) // layout.itemsize * layout.itemsize], layout)

    def number(self, entry: np.void) -> int:
        """The one number of an entry; a short lies at the start of the value's bytes."""
        value = int(entry["value"])
        is_short_at_the_top = self.order == ">" and entry["type"] == 3
        return value >> (48 if self.is_big else 16) if is_short_at_the_top else value

    def check_claims(self, entries: np.ndarray, available: int) -> None:
        """Values of a directory do not overlap: together they are no larger than the file."""
        unit = _TIFF_BYTES[np.where(entries["type"] < len(_TIFF_BYTES), entries["type"], 0)]
        claimed = unit * entries["count"].astype(np.float64)
        is_apart = (claimed > (8 if self.is_big else 4)) & (claimed + entries["value"] <= available)
        total = claimed[is_apart].sum()
        if total > available:
            raise RowFailed("corrupt image", f"tags claim {total:.0f} of {available} bytes")
