"""EXIF: which way is up, and what the camera noted.

EXIF says nothing about the pixels themselves, so that a broken one never fails a picture.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL import Image as PillowImage

_ORIENTATION_TAG = 0x0112
_EXIF_SUB_IFD = 0x8769
_MAX_TEXT = 200
_UNTOLD_TAGS = frozenset(
    ("ExifOffset", "ExifInteroperabilityOffset", "GPSInfo", "CameraOwnerName", "BodySerialNumber", "LensSerialNumber")
)


def upright(width: int, height: int, orientation: int) -> tuple[int, int]:
    """Width and height as seen, from those stored, and the other way round."""
    return (height, width) if orientation >= 5 else (width, height)


def oriented(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Stored pixels as they are meant to be seen, by the EXIF orientation 1 to 8 (CIPA DC-008, 4.6.4 A)."""
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


def read_exif(read: Callable[[], PillowImage.Exif]) -> Exif:
    """What `read` reads; EXIF that cannot be read counts as absent, for it says nothing about the pixels."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _described(read())
    except Exception:  # noqa: BLE001 (hostile bytes raise anything; the docstring says what becomes of them)
        return Exif()


def _described(exif: PillowImage.Exif) -> Exif:
    """Orientation, and tags by name. Where and by whom the picture was taken and binary values are left out."""
    from PIL import ExifTags

    stated: Any = exif.get(_ORIENTATION_TAG)
    orientation = int(stated) if stated in range(1, 9) else 1
    tags = {**exif, **exif.get_ifd(_EXIF_SUB_IFD)}
    named = {ExifTags.TAGS[tag]: _json_value(value) for tag, value in tags.items() if tag in ExifTags.TAGS}
    shown = {name: value for name, value in named.items() if value is not None and name not in _UNTOLD_TAGS}
    return Exif(orientation, json.dumps(shown, sort_keys=True) if shown else None)


def _json_value(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "").strip()[:_MAX_TEXT] or None
    if isinstance(value, int):
        return value
    if isinstance(value, tuple):
        parts = [_json_value(part) for part in value[:8]]
        return parts if None not in parts else None
    if isinstance(value, bytes) or not hasattr(value, "__float__"):
        return None
    number = float(value)
    return round(number, 6) if math.isfinite(number) else None
