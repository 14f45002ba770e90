"""What decoders of pictures have in common: what they are asked, what they give, how they fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from corpusmith.operators.image.resample import Scaling
from corpusmith.schemas.fates import RowFailed

_SIGNS_OF_TRUNCATION = ("truncated", "premature end of jpeg", "unexpected end", "eoferror", "end of file")

CheckSize = Callable[[int, int], None]
"""Given the width and height of a header, raises RowFailed if the picture shall not be decoded."""


@dataclass(frozen=True)
class Reading:
    """How pictures are read.

    Args:
        check_size: asked before anything is decoded.
        scaling: how pixels are brought to the size that is asked for.
        with_location: EXIF may tell where the picture was taken.
    """

    check_size: CheckSize
    scaling: Scaling
    with_location: bool = False


class Original(Protocol):
    """A picture whose header has been read and accepted.

    `width` and `height` are upright pixels. `is_plain` says that nothing about colour or orientation keeps its bytes
    from being used as they are.
    """

    format: str
    width: int
    height: int
    exif: str | None
    is_plain: bool
    is_animated: bool

    def pixels(self, width: int, height: int) -> np.ndarray:
        """The picture at a size: upright, (H, W) gray or (H, W, 3) RGB, uint8.

        Raises:
            RowFailed: "truncated image", "corrupt image", "out of memory" or "cannot resize".
        """
        ...

    def check(self) -> None:
        """Find out whether the picture decodes.

        Raises:
            RowFailed: as pixels().
        """
        ...


def decoding_failure(error: Exception) -> RowFailed:
    """Why a picture did not decode: "truncated image", "corrupt image" or "out of memory"."""
    text = f"{type(error).__name__}: {error}"[:200]
    if isinstance(error, MemoryError):
        return RowFailed("out of memory", text)
    is_short = any(sign in text.lower() for sign in _SIGNS_OF_TRUNCATION)
    return RowFailed("truncated image" if is_short else "corrupt image", text)
