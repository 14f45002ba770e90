"""Compiled loops of matching: spacing, hashes of spans, look-up and comparison, in one pass over Arrow's bytes.

Two kinds of spans are looked up in a spaced text. Grams are runs of whole tokens, a token being what lies between two
spaces; the hash of a gram takes that of its last token to the hash of the gram before it. Walks go character by
character from where an entry may begin, for entries with an edge that needs no boundary.

Either goes on only while a table of two bits a bucket says that some entry begins like this; the table is small enough
for a core's cache. What it proposes is put aside and looked up many at a time, so that waits for memory overlap.
Proposals are compared byte by byte: no collision of hashes, accidental or made by somebody, can be a match.

From one start there are no more steps than the longest entry has tokens or characters, and an entry that a text is
known to hold is not compared with it again: time is linear in the texts, whatever they are.

Loops take arrays one by one: numba counts references to arrays that are taken out of an object, which costs more than
a look-up; and what it keeps on disk cannot be read once the class of such an object is gone.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from corpusmith.operators.kernels import compiled

Array = np.ndarray[Any, Any]
Int = int | np.integer[Any]
Index = tuple[Array, Array, Array, Array, Array, Array, int, int, int]

SPACE = 32
SPLIT, ISOLATED = 1, 2
"""Kinds of bytes in a text: one that becomes a space, one that gets a space on both sides; others are 0."""
BOUND_LEFT, BOUND_RIGHT = 1, 2
"""Flags of an entry: it needs a space before it, it needs one after it."""
BOUND = BOUND_LEFT | BOUND_RIGHT
NEVER = 8
"""Flag of an entry that matches nothing."""
PADDING_BYTES = 16
"""Bytes that follow a buffer which is read by words."""
_REPEATED = 4
_IS_ENTRY, _GOES_ON = 1, 2
_WALKS_FREE, _WALKS_BOUND = 1, 2
_WAITING = 1024
"""Proposals that are looked up together."""
_FEW = 64
"""Entries up to which sorting is by all pairs."""
_SHORT_BYTES = 1 << 14
"""Texts up to this size need not be measured for the room that they take once spaced."""

_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_GRAM, _TOKEN = np.uint64(0x243F6A8885A308D3), np.uint64(0x452821E638D01377)
_FREE, _BOUND = np.uint64(0x13198A2E03707344), np.uint64(0xA4093822299F31D0)
_HALF, _LOW = np.uint64(32), np.uint64(0xFFFFFFFF)
_FLAGS, _LENGTH = np.uint64(32), np.uint64(36)
EMPTY, _NO_PLACE = np.uint64(0xFFFFFFFFFFFFFFFF), 0xFFFFFFFF
_FIRST_MASKS = np.array([(1 << 8 * min(size, 8)) - 1 for size in range(17)], np.uint64)
_SECOND_MASKS = np.array([(1 << 8 * max(size - 8, 0)) - 1 for size in range(17)], np.uint64)
_CHARACTER_BYTES = np.array([1] * 0xC0 + [2] * 0x20 + [3] * 0x10 + [4] * 0x10, np.int64)


@compiled
def _mixed(state: Any, word: Any) -> Any:
    """A hash, taken on by a word."""
    state = (state ^ word) * _FACTOR
    return state ^ (state >> _HALF)


@compiled
def _token_hash(words: Array, start: Int, size: Int) -> Any:
    state = _TOKEN ^ np.uint64(size)
    while size > 8:
        state = _mixed(state, words[start])
        start += 8
        size -= 8
    return _mixed(state, words[start] & _FIRST_MASKS[size])


@compiled
def _is_same(words: Array, start: Int, size: Int, records: Array, place: Int) -> bool:
    """Whether a span holds the bytes of a record, of which the header says that it has as many; no branch up to 16."""
    short = min(size, 16)
    differing = (words[start] & _FIRST_MASKS[short]) ^ records[place + 1]
    differing |= (words[start + 8] & _SECOND_MASKS[short]) ^ records[place + 2]
    if differing != 0:
        return False
    place += 3
    for at in range(start + 16, start + size, 8):
        if words[at] & _FIRST_MASKS[min(start + size - at, 8)] != records[place]:
            return False
        place += 1
    return True


@compiled
def _add(
    slots: Array,
    records: Array,
    others: Array,
    state: Any,
    words: Array,
    start: Int,
    size: Int,
    flags: Int,
    entry: Int,
    place: Int,
) -> Int:
    """Enter an entry of which `state` is the hash; where the next record goes."""
    last = np.int64(len(slots) - 1)
    slot = np.int64(state & np.uint64(last))
    while slots[slot] != EMPTY:
        content = slots[slot]
        there = np.int64(content & _LOW)
        header = records[there]
        if np.int64(header >> _LENGTH) == size and _is_same(words, start, size, records, there):
            first = np.int64(header & _LOW)
            others[entry], others[first] = others[first], entry
            records[there] = header | (np.uint64(_REPEATED) << _FLAGS)
            return place
        slot = (slot + 1) & last
    slots[slot] = (state >> _HALF << _HALF) | np.uint64(place)
    records[place] = np.uint64(entry) | (np.uint64(flags) << _FLAGS) | (np.uint64(size) << _LENGTH)
    for at in range(start, start + max(size, 16), 8):
        place += 1
        records[place] = words[at] & _FIRST_MASKS[max(0, min(start + size - at, 8))]
    return place + 1


@compiled
def _note(filter: Array, shift: Int, state: Any, bit: Int) -> None:
    bucket = state >> np.uint64(shift)
    filter[bucket >> np.uint64(5)] |= np.uint64(bit) << ((bucket & np.uint64(31)) << np.uint64(1))


@compiled
def _known(filter: Array, shift: Int, state: Any) -> Int:
    """The bits of a hash's bucket."""
    bucket = state >> np.uint64(shift)
    return np.int64((filter[bucket >> np.uint64(5)] >> ((bucket & np.uint64(31)) << np.uint64(1))) & np.uint64(3))


@compiled
def fill(
    slots: Array,
    records: Array,
    filter: Array,
    others: Array,
    begins: Array,
    shift: Int,
    text: Array,
    words: Array,
    offsets: Array,
    flags: Array,
) -> tuple[Int, Int]:
    """Enter all entries into empty tables; tokens of the longest gram, and characters of the longest walk.

    Args:
        slots: hash table of open addressing, uint64: upper half of the hash, place in `records`; EMPTY where free.
        records: uint64; of each distinct entry a header (entry in 32 bits, flags in 4, bytes in 28), then its bytes,
            16 at least.
        filter: uint64; two bits for each bucket of hashes: one is an entry's, entries go on after one.
        others: int32; for each entry another one that is equal to it, -1 after the last of them and at first.
        begins: uint8; which walks begin with each of the 256 bytes.
        shift: bits of a hash beyond its bucket.
        text: bytes of the entries, PADDING_BYTES beyond them.
        words: the 8 bytes from each byte of `text` on.
        offsets: where the entries begin, and the end of the last one.
        flags: of each entry BOUND_LEFT and BOUND_RIGHT, or NEVER.
    """
    place, gram_steps, walk_steps = 0, 0, 0
    for entry in range(len(flags)):
        start, end = offsets[entry], offsets[entry + 1]
        if flags[entry] == NEVER:
            continue
        steps, at = 0, start
        if flags[entry] == BOUND:
            state = _GRAM
            while True:
                token_end = at
                while token_end < end and text[token_end] != SPACE:
                    token_end += 1
                state = _mixed(state, _token_hash(words, at, token_end - at))
                steps, at = steps + 1, token_end + 1
                if token_end == end:
                    break
                _note(filter, shift, state, _GOES_ON)
            gram_steps = max(gram_steps, steps)
        else:
            bound = flags[entry] & BOUND_LEFT
            state = _BOUND if bound else _FREE
            begins[text[at]] |= np.uint8(_WALKS_BOUND if bound else _WALKS_FREE)
            while True:
                size = min(_CHARACTER_BYTES[text[at]], end - at)
                state = _mixed(state, words[at] & _FIRST_MASKS[size])
                steps, at = steps + 1, at + size
                if at == end:
                    break
                _note(filter, shift, state, _GOES_ON)
            walk_steps = max(walk_steps, steps)
        _note(filter, shift, state, _IS_ENTRY)
        place = _add(slots, records, others, state, words, start, end - start, flags[entry], entry, place)
    return gram_steps, walk_steps


@compiled
def room(text: Array, offsets: Array, kinds: Array) -> tuple[Int, Int]:
    """Bytes and tokens that the largest text has once spaced; an upper bound for short ones."""
    most_bytes, most_tokens = 3 * _SHORT_BYTES + 2, 3 * _SHORT_BYTES + 2
    for row in range(len(offsets) - 1):
        if offsets[row + 1] - offsets[row] > _SHORT_BYTES:
            isolated, split = 0, 0
            for i in range(offsets[row], offsets[row + 1]):
                isolated += kinds[text[i]] == ISOLATED
                split += kinds[text[i]] == SPLIT
            most_bytes = max(most_bytes, offsets[row + 1] - offsets[row] + 2 * isolated + 2)
            most_tokens = max(most_tokens, split + 2 * isolated + 1)
    return most_bytes, most_tokens


@compiled
def _space(text: Array, kinds: Array, spaced: Array, at: Int, token_starts: Array) -> tuple[Int, Int]:
    """Write a text to `spaced` from `at` on as the match test reads it; its end, and its tokens."""
    spaced[at] = SPACE
    at += 1
    token_starts[0] = at
    tokens = 0
    for i in range(len(text)):
        byte = text[i]
        kind = kinds[byte]
        if kind == 0:
            spaced[at] = byte
            at += 1
        elif kind == SPLIT:
            spaced[at] = SPACE
            at += 1
            tokens += 1
            token_starts[tokens] = at
        else:
            spaced[at] = SPACE
            spaced[at + 1] = byte
            spaced[at + 2] = SPACE
            token_starts[tokens + 1] = at + 1
            token_starts[tokens + 2] = at + 3
            tokens += 2
            at += 3
    spaced[at] = SPACE
    token_starts[tokens + 1] = at + 1
    return at + 1, tokens + 1


@compiled
def _propose(proposals: Array, waiting: Int, state: Any, start: Int, end: Int, row: Int) -> None:
    proposals[waiting, 0] = state
    proposals[waiting, 1] = start
    proposals[waiting, 2] = end - start
    proposals[waiting, 3] = row


@compiled
def _grams(
    filter: Array,
    shift: Int,
    steps: Int,
    starts: Array,
    hashes: Array,
    tokens: Int,
    first: Int,
    row: Int,
    proposals: Array,
    waiting: Int,
) -> tuple[Int, Int]:
    """Propose grams from token `first` on; the token from which to go on once there is room, proposals that wait."""
    highest = len(proposals) - steps
    for token in range(first, tokens):
        if waiting >= highest:
            return token, waiting
        state = _GRAM
        for other in range(token, min(token + steps, tokens)):
            state = _mixed(state, hashes[other])
            known = _known(filter, shift, state)
            _propose(proposals, waiting, state, starts[token], starts[other + 1] - 1, row)
            waiting += known & _IS_ENTRY
            if not known & _GOES_ON:
                break
    return tokens, waiting


@compiled
def _walk(
    filter: Array,
    shift: Int,
    steps: Int,
    spaced: Array,
    words: Array,
    start: Int,
    end: Int,
    state: Any,
    row: Int,
    proposals: Array,
    waiting: Int,
) -> Int:
    """Propose what begins at one place of a text that ends at `end`; proposals that wait."""
    at = start
    for _ in range(steps):
        if at >= end:
            break
        size = min(_CHARACTER_BYTES[spaced[at]], end - at)
        state = _mixed(state, words[at] & _FIRST_MASKS[size])
        at += size
        known = _known(filter, shift, state)
        _propose(proposals, waiting, state, start, at, row)
        waiting += known & _IS_ENTRY
        if not known & _GOES_ON:
            break
    return waiting


@compiled
def _walks(
    filter: Array,
    shift: Int,
    steps: Int,
    begins: Array,
    spaced: Array,
    words: Array,
    first: Int,
    end: Int,
    row: Int,
    proposals: Array,
    waiting: Int,
) -> tuple[Int, Int]:
    """Propose walks from place `first` of a text on; as `_grams`."""
    highest = len(proposals) - 2 * steps
    for at in range(first, end):
        walks = begins[spaced[at]]
        if walks:
            if waiting >= highest:
                return at, waiting
            if walks & _WALKS_FREE:
                waiting = _walk(filter, shift, steps, spaced, words, at, end, _FREE, row, proposals, waiting)
            if walks & _WALKS_BOUND and spaced[at - 1] == SPACE:
                waiting = _walk(filter, shift, steps, spaced, words, at, end, _BOUND, row, proposals, waiting)
    return end, waiting


@compiled
def _fetch(slots: Array, records: Array, proposals: Array, waiting: Int, hits: Array) -> None:
    """Read where proposals are to be looked for, without a branch between, so that memory answers many at a time.

    What is read is put into `hits`, which is free by then, lest the compiler leave the reading out.
    """
    last = np.uint64(len(slots) - 1)
    for k in range(waiting):
        hits[k, 0] = np.int64(slots[proposals[k, 0] & last] & _LOW)
    for k in range(waiting):
        hits[k, 1] = np.int64(records[hits[k, 0] if hits[k, 0] != _NO_PLACE else 0])


@compiled
def _look_up(
    slots: Array,
    records: Array,
    spaced: Array,
    words: Array,
    proposals: Array,
    waiting: Int,
    stamps: Array,
    hits: Array,
) -> Int:
    """Note in `hits` what proposals match and their rows did not match before; entries of several copies negated."""
    last, hit = np.uint64(len(slots) - 1), 0
    _fetch(slots, records, proposals, waiting, hits)
    for k in range(waiting):
        state, start, size = proposals[k, 0], np.int64(proposals[k, 1]), np.int64(proposals[k, 2])
        stamp = np.int64(proposals[k, 3]) + 1
        slot = state & last
        content = slots[slot]
        while content != EMPTY:
            if (content ^ state) >> _HALF == 0:
                place = np.int64(content & _LOW)
                header = records[place]
                entry, flags = header & _LOW, np.int64(header >> _FLAGS)
                if (
                    np.int64(header >> _LENGTH) == size
                    and stamps[entry] != stamp
                    and _is_same(words, start, size, records, place)
                    and (not flags & BOUND_LEFT or spaced[start - 1] == SPACE)
                    and (not flags & BOUND_RIGHT or spaced[start + size] == SPACE)
                ):
                    stamps[entry] = stamp
                    hits[hit, 0] = stamp - 1
                    hits[hit, 1] = ~np.int64(entry) if flags & _REPEATED else np.int64(entry)
                    hit += 1
                    break
            slot = (slot + np.uint64(1)) & last
            content = slots[slot]
    return hit


@compiled
def _tally(others: Array, hits: Array, hit: Int, counts: Array) -> Int:
    """Count hits, with all copies of an entry, where `counts` is not empty; how many pairs they are."""
    pairs = 0
    for k in range(hit):
        entry = hits[k, 1] if hits[k, 1] >= 0 else ~hits[k, 1]
        is_repeated = hits[k, 1] < 0
        while entry >= 0:
            pairs += 1
            if len(counts):
                counts[entry] += 1
            entry = np.int64(others[entry]) if is_repeated else -1
    return pairs


@compiled
def _write(others: Array, hits: Array, hit: Int, rows: Array, entries: Array, found: Int) -> None:
    """Write hits, with all copies of an entry, from place `found` on."""
    for k in range(hit):
        entry = hits[k, 1] if hits[k, 1] >= 0 else ~hits[k, 1]
        is_repeated = hits[k, 1] < 0
        while entry >= 0:
            rows[found], entries[found] = hits[k, 0], entry
            found += 1
            entry = np.int64(others[entry]) if is_repeated else -1


@compiled
def _grown(values: Array, size: Int) -> Array:
    grown = np.empty(max(size, 2 * len(values)), values.dtype)
    grown[: len(values)] = values
    return grown


@compiled
def _collect(
    others: Array, hits: Array, hit: Int, rows: Array, entries: Array, found: Int, counts: Array
) -> tuple[Array, Array, Int]:
    """Count hits, or add them to what was found; where that now is, and how much it is."""
    pairs = _tally(others, hits, hit, counts)
    if len(counts):
        return rows, entries, found
    if found + pairs > len(rows):
        rows, entries = _grown(rows, found + pairs), _grown(entries, found + pairs)
    _write(others, hits, hit, rows, entries, found)
    return rows, entries, found + pairs


@compiled
def match(
    index: Index,
    text: Array,
    offsets: Array,
    is_null: Array,
    spaced: Array,
    words: Array,
    token_room: Int,
    stamps: Array,
    rows: Array,
    entries: Array,
    counts: Array,
) -> tuple[Array, Array]:
    """Rows and entries of all matches, rows ascending.

    Args:
        index: what `fill` has filled: slots, records, filter, others, the kinds of the 256 bytes, begins, shift, and
            what it said.
        text: bytes of the texts; none beyond the last offset is read.
        offsets: where the texts begin, and the end of the last one.
        is_null: of each text whether it is null; empty where none is.
        spaced: room for spaced texts, PADDING_BYTES longer than what `room` says at least.
        words: the 8 bytes from each byte of `spaced` on.
        token_room: tokens that `room` says.
        stamps: int32, a zero for each entry.
        rows: int64, room for rows; larger room is made where it is not enough.
        entries: int64, as much room for entries.
        counts: int64, where matches of each entry are counted instead of returned; empty to return them.
    """
    slots, records, filter, others, kinds, begins, shift, gram_steps, walk_steps = index
    proposals = np.empty((max(_WAITING, 2 * max(gram_steps, walk_steps) + 1), 4), np.uint64)
    hits = np.empty((len(proposals), 2), np.int64)
    token_starts, hashes = np.empty(token_room + 1, np.int64), np.empty(token_room, np.uint64)
    at, waiting, found = 0, 0, 0
    for row in range(len(offsets) - 1):
        if len(is_null) and is_null[row]:
            continue
        if at + 3 * (offsets[row + 1] - offsets[row]) + 2 + PADDING_BYTES > len(spaced):
            hit = _look_up(slots, records, spaced, words, proposals, waiting, stamps, hits)
            rows, entries, found = _collect(others, hits, hit, rows, entries, found, counts)
            at, waiting = 0, 0
        token, place = 0, at + 1
        at, tokens = _space(text[offsets[row] : offsets[row + 1]], kinds, spaced, at, token_starts)
        for k in range(tokens):
            hashes[k] = _token_hash(words, token_starts[k], token_starts[k + 1] - 1 - token_starts[k])
        end = at - 1 if walk_steps else place
        while True:
            token, waiting = _grams(
                filter, shift, gram_steps, token_starts, hashes, tokens, token, row, proposals, waiting
            )
            if token == tokens and place < end:
                place, waiting = _walks(
                    filter, shift, walk_steps, begins, spaced, words, place, end, row, proposals, waiting
                )
            if token == tokens and place >= end:
                break
            hit = _look_up(slots, records, spaced, words, proposals, waiting, stamps, hits)
            rows, entries, found = _collect(others, hits, hit, rows, entries, found, counts)
            waiting = 0
    hit = _look_up(slots, records, spaced, words, proposals, waiting, stamps, hits)
    rows, entries, found = _collect(others, hits, hit, rows, entries, found, counts)
    return rows[:found], entries[:found]


@compiled
def _order_few(entries: Array, ordered: Array) -> None:
    """Sort few different entries by the number of smaller ones, which costs no branches."""
    for i in range(len(entries)):
        smaller = 0
        for k in range(len(entries)):
            smaller += entries[k] < entries[i]
        ordered[smaller] = entries[i]
    entries[:] = ordered[: len(entries)]


@compiled
def order(rows: Array, entries: Array) -> None:
    """Sort the different entries of each row, in place; equal rows stand together."""
    ordered = np.empty(_FEW, np.int64)
    start = 0
    while start < len(rows):
        end = start + 1
        while end < len(rows) and rows[end] == rows[start]:
            end += 1
        if end - start <= _FEW:
            _order_few(entries[start:end], ordered)
        else:
            entries[start:end] = np.sort(entries[start:end])
        start = end
