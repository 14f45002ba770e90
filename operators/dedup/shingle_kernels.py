"""Compiled loops over UTF-8: white space made even, shingles as 64-bit hashes, and how much two sets share.

Hashes chain a bijection of 64 bits (the finaliser of MurmurHash3) over words of input, three code points or one word's
hash each, from a start that tells the kind and the length; so hashes of up to three characters never collide.
"""

from __future__ import annotations

import numpy as np

from corpusmith.operators.dedup.shingles import Sizes
from corpusmith.operators.kernels import compiled

_M1 = np.uint64(0xFF51AFD7ED558CCD)
_M2 = np.uint64(0xC4CEB9FE1A85EC53)
_S33 = np.uint64(33)
_S21 = np.uint64(21)
_WORD = np.uint64(0x9E3779B97F4A7C15)
_WORDS = np.uint64(0xD1B54A32D192ED03)
_CHARACTERS = np.uint64(0x8CB92BA72F3D8DD7)
_ONE = np.uint64(1)
_SPACE = np.uint8(32)


@compiled
def mixed(value: np.uint64) -> np.uint64:
    """A bijection of 64 bits in which each bit of the input moves all of the output."""
    value ^= value >> _S33
    value *= _M1
    value ^= value >> _S33
    value *= _M2
    value ^= value >> _S33
    return value


@compiled
def decoded(data: np.ndarray, at: int) -> tuple[int, int]:
    """The code point that begins at a byte of valid UTF-8, and its width in bytes."""
    first = int(data[at])
    if first < 0x80:
        return first, 1
    second = int(data[at + 1]) & 0x3F
    if first < 0xE0:
        return (first & 0x1F) << 6 | second, 2
    third = int(data[at + 2]) & 0x3F
    if first < 0xF0:
        return (first & 0x0F) << 12 | second << 6 | third, 3
    return (first & 0x07) << 18 | second << 12 | third << 6 | (int(data[at + 3]) & 0x3F), 4


@compiled
def is_space(point: int) -> bool:
    """Whether `str.split()` splits at a code point."""
    if point <= 0x20:
        return point == 0x20 or 0x09 <= point <= 0x0D or 0x1C <= point <= 0x1F
    if point < 0x1680:
        return point == 0x85 or point == 0xA0
    return (
        0x2000 <= point <= 0x200A
        or point == 0x1680
        or point == 0x2028
        or point == 0x2029
        or point == 0x202F
        or point == 0x205F
        or point == 0x3000
    )


@compiled
def collapsed(data: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Texts with each run of white space as one space and none at the ends, and their offsets."""
    made = np.empty(offsets[-1] - offsets[0], np.uint8)
    places = np.zeros(len(offsets), np.int64)
    end = 0
    for i in range(len(offsets) - 1):
        begin, at, is_waiting = end, offsets[i], False
        while at < offsets[i + 1]:
            point, width = decoded(data, at)
            if is_space(point):
                is_waiting = end > begin
            else:
                if is_waiting:
                    made[end] = _SPACE
                    end += 1
                    is_waiting = False
                for k in range(width):
                    made[end + k] = data[at + k]
                end += width
            at += width
        places[i + 1] = end
    return made[:end].copy(), places


@compiled
def hash_shingles(data: np.ndarray, start: int, stop: int, sizes: Sizes, points: np.ndarray, hashes: np.ndarray) -> int:
    """Hashes of a text's shingles, repeats included.

    Args:
        data: UTF-8, of which the text is data[start:stop]; not empty.
        sizes: how to cut it.
        points: uint64, room for as many as the text has bytes; overwritten.
        hashes: likewise; receives the hashes.

    Returns:
        How many there are.
    """
    words = 1
    for at in range(start, stop):
        words += data[at] == _SPACE
    if words >= sizes.words_from:
        return _hash_words(data, start, stop, sizes.word, points, hashes)
    return _hash_characters(data, start, stop, sizes.character, points, hashes)


@compiled
def _hash_characters(data: np.ndarray, start: int, stop: int, size: int, points: np.ndarray, hashes: np.ndarray) -> int:
    count, at = 0, start
    while at < stop:
        point, width = decoded(data, at)
        points[count] = point
        count += 1
        at += width
    size = min(size, count)
    for i in range(count - size + 1):
        hashes[i] = _chained(points, i, i + size, _CHARACTERS + np.uint64(size))
    return count - size + 1


@compiled
def _chained(points: np.ndarray, start: int, stop: int, seed: np.uint64) -> np.uint64:
    """Hash of code points, three of 21 bits at a time."""
    value = seed
    at = start
    while at < stop:
        packed = points[at]
        if at + 1 < stop:
            packed = packed << _S21 | points[at + 1]
        if at + 2 < stop:
            packed = packed << _S21 | points[at + 2]
        value = mixed(value ^ packed)
        at += 3
    return value


@compiled
def _hash_words(data: np.ndarray, start: int, stop: int, size: int, points: np.ndarray, hashes: np.ndarray) -> int:
    words, count, at = 0, 0, start
    while at <= stop:
        if at == stop or data[at] == _SPACE:
            # code points of one word wait in `hashes`, hashes of words in `points`
            points[words] = _chained(hashes, 0, count, _WORD + np.uint64(count))
            words += 1
            count = 0
            at += 1
        else:
            point, width = decoded(data, at)
            hashes[count] = point
            count += 1
            at += width
    size = min(size, words)
    for i in range(words - size + 1):
        value = _WORDS + np.uint64(size)
        for k in range(i, i + size):
            value = mixed(value ^ points[k])
        hashes[i] = value
    return words - size + 1


@compiled
def jaccard(left: np.ndarray, right: np.ndarray, keys: np.ndarray, states: np.ndarray) -> float:
    """Jaccard similarity of two sets of hashes, each given with repeats.

    Args:
        left, right: uint64; not both empty.
        keys, states: uint64 and uint8, room for a table: a power of two of at least twice the hashes; overwritten.
    """
    room = 16
    while room < 2 * (len(left) + len(right)):
        room *= 2
    mask = np.uint64(room - 1)
    states[:room] = 0
    lefts = rights = both = 0
    for value in left:
        slot = _slot(value, mask, keys, states)
        if states[slot] == 0:
            keys[slot] = value
            states[slot] = 1
            lefts += 1
    for value in right:
        slot = _slot(value, mask, keys, states)
        if states[slot] == 0:
            keys[slot] = value
            states[slot] = 2
            rights += 1
        elif states[slot] == 1:
            states[slot] = 3
            both += 1
    return both / (lefts + rights)


@compiled
def _slot(value: np.uint64, mask: np.uint64, keys: np.ndarray, states: np.ndarray) -> np.uint64:
    slot = value & mask
    while states[slot] != 0 and keys[slot] != value:
        slot = (slot + _ONE) & mask
    return slot
