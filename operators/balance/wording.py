"""Words for reasons, made column by column: a pool of ten million rejected rows has as many reasons."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

SHOWN_CHARS = 60
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}
_CONTROLS = [chr(code) for code in range(32) if chr(code) not in _ESCAPES]
_NEAR_TIE = 1e-6
_TINY = 1e-200

Floats = npt.NDArray[np.float64]


def quoted(texts: pa.Array | pa.ChunkedArray) -> Any:
    """Texts in one line each, in double quotes as JSON writes them, cut after SHOWN_CHARS characters.

    Args:
        texts: (N,) strings; a null stays null.

    Returns:
        (N,) large strings, in chunks where `texts` is.
    """
    whole = pc.cast(texts, pa.large_string())
    cut = pc.utf8_slice_codeunits(whole, 0, SHOWN_CHARS)
    shown = joined(cut, _where(pc.greater(pc.utf8_length(whole), SHOWN_CHARS), "…"))
    for character, escape in _ESCAPES.items():
        shown = pc.replace_substring(shown, character, escape)
    if pc.any(pc.match_substring_regex(shown, "[\\x00-\\x1f]")).as_py():
        for character in _CONTROLS:
            shown = pc.replace_substring(shown, character, f"\\u{ord(character):04x}")
    return joined('"', shown, '"')


def three_digits(values: Floats) -> pa.Array:
    """Values from 0 to 1 as `format(value, ".3g")` writes them; (N,) large strings.

    Only distinct ones are formatted: of the values of three digits there are few.
    """
    sized = np.where(values > _TINY, values, 1)
    powers = 10 ** (2 - np.floor(np.log10(sized)))
    whole = np.rint(sized * powers)
    # halfway between two numbers, a value's own last bits say which one it is
    is_own = (np.abs(np.abs(sized * powers - whole) - 0.5) < _NEAR_TIE) | (values <= _TINY)
    distinct, places = np.unique(np.where(is_own, values, whole / powers), return_inverse=True)
    return pa.array([f"{value:.3g}" for value in distinct.tolist()], pa.large_string()).take(pa.array(places))


def _where(is_there: Any, text: str) -> Any:
    return pc.if_else(is_there, pa.scalar(text, pa.large_string()), pa.scalar("", pa.large_string()))


def joined(*parts: Any) -> Any:
    """Texts side by side, row by row; null where one is null."""
    large = [pa.scalar(part, pa.large_string()) if isinstance(part, str) else part for part in parts]
    return pc.binary_join_element_wise(*large, pa.scalar("", pa.large_string()))
