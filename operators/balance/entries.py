"""Lists of entries for balancing: from the pool itself, from WordNet, or from a file.

MetaCLIP's published list (Xu et al., "Demystifying CLIP Data", section 3.1) joins WordNet, frequent words, word pairs
of high pointwise mutual information, and titles, the last three of Wikipedia. The same rules applied to the pool's own
texts need no other source and fit pools of any size and language that writes spaces.

A list depends on its source alone, order included, and `fingerprint` tells two lists apart. Lists made here hold no
entry twice; a file is taken as it is, for the published test counts duplicates.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corpusmith.operators.balance.matching import space_texts
from corpusmith.operators.duck import spilling
from corpusmith.schemas.errors import UserError

WORDNET_FOLDER = "/usr/share/wordnet"
"""Where Debian's package wordnet-base puts WordNet."""

_WORDNET_FILES = ("data.noun", "data.verb", "data.adj", "data.adv")
_ADJECTIVE_MARK = re.compile(r"\((a|p|ip)\)$")
_LETTER_OR_DIGIT = r"[\pL\pN]"
_GRAMS = pa.schema([pa.field("gram", pa.large_string())])


def fingerprint(entries: Iterable[str]) -> str:
    """sha256 of a list, order included; entries are length-prefixed, so no two lists give the same bytes."""
    digest = hashlib.sha256()
    for entry in entries:
        raw = entry.encode()
        digest.update(b"%d;" % len(raw))
        digest.update(raw)
    return digest.hexdigest()


def pool_entries(texts: Iterable[pa.Array], *, min_count: int, min_pmi: float, scratch_dir: str) -> list[str]:
    """Words and word pairs of the texts.

    Tokens are those of the match test; a word is a token with a letter or a digit, a pair two words with one space
    between them. Pairs are weighed by log2(p(ab) / (p(a) p(b))), p being shares of all words and of all pairs.

    Args:
        texts: batches of strings, in any order; nulls are skipped.
        min_count: occurrences that a word or a pair needs.
        min_pmi: bits that a pair needs.
        scratch_dir: where the counts are spilled to.

    Returns:
        Words, then pairs, each by falling count, equals in byte order.
    """
    totals = [0, 0]

    def grams() -> Iterator[pa.RecordBatch]:
        for batch in texts:
            for i, strings in enumerate(_words_and_pairs(batch)):
                totals[i] += len(strings)
                yield pa.record_batch([strings], schema=_GRAMS)

    with spilling(pa.RecordBatchReader.from_batches(_GRAMS, grams()), scratch_dir) as connection:
        counted = connection.sql(
            f"SELECT gram, count(*) AS count FROM stream GROUP BY gram HAVING count(*) >= {min_count} "
            "ORDER BY count DESC, gram"
        ).to_arrow_table()
    return _weighed(counted.column("gram"), counted.column("count").to_numpy(), totals, min_pmi)


def _words_and_pairs(texts: pa.Array) -> tuple[pa.Array, pa.Array]:
    lists = pc.split_pattern(space_texts(texts).drop_null(), " ")
    tokens, texts_of = lists.flatten(), pc.list_parent_indices(lists)
    is_word = pc.match_substring_regex(tokens, _LETTER_OR_DIGIT)
    first, second = tokens.slice(0, max(len(tokens) - 1, 0)), tokens.slice(1)
    is_pair = pc.and_(is_word.slice(0, len(first)), is_word.slice(1))
    is_pair = pc.and_(is_pair, pc.equal(texts_of.slice(0, len(first)), texts_of.slice(1)))
    space = pa.scalar(" ", pa.large_string())
    return tokens.filter(is_word), pc.binary_join_element_wise(first.filter(is_pair), second.filter(is_pair), space)


def _weighed(grams: pa.ChunkedArray, counts: np.ndarray, totals: list[int], min_pmi: float) -> list[str]:
    """Words and the pairs that weigh enough; a pair has one space, a word none."""
    is_pair = pc.match_substring(grams, " ").to_numpy()
    words, pairs = grams.filter(pa.array(~is_pair)), grams.filter(pa.array(is_pair))
    word_counts = counts[~is_pair]
    parts = pc.split_pattern(pairs, " ")
    sides = [pc.index_in(pc.list_element(parts, i), value_set=words.combine_chunks()).to_numpy() for i in (0, 1)]
    expected = word_counts[sides[0]] / totals[0] * (word_counts[sides[1]] / totals[0]) if len(pairs) else np.zeros(0)
    pmi_bits = np.log2(counts[is_pair] / max(totals[1], 1) / expected)
    return [*words.to_pylist(), *pairs.filter(pa.array(pmi_bits >= min_pmi)).to_pylist()]


def wordnet_entries(folder: str = WORDNET_FOLDER) -> list[str]:
    """Names of WordNet's synsets, and the numbers 0 to 99.

    A synset is named by its first lemma in lower case, underscores made spaces, cut before the first full stop. On
    WordNet 3.0 these are 86,654 entries, as many as the published list has from there.

    Args:
        folder: holds data.noun, data.verb, data.adj, data.adv.

    Raises:
        UserError: WordNet is not there.
    """
    names: dict[str, None] = {}
    for name in _WORDNET_FILES:
        try:
            lines = (Path(folder) / name).read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            hint = "install WordNet (Debian: wordnet-base), set wordnet_path, or use entries: pool"
            raise UserError(f"WordNet cannot be read: {error}", where=folder, hint=hint) from error
        names.update((_synset_name(line), None) for line in lines if line[:1].isdigit())
    names.update((str(number), None) for number in range(100))
    return [name for name in names if name]


def _synset_name(line: str) -> str:
    """Name of a synset; its line begins `offset lex_filenum ss_type w_cnt word`."""
    lemma = _ADJECTIVE_MARK.sub("", line.split(" ", 5)[4])
    return lemma.lower().replace("_", " ").partition(".")[0]


def read_entries(path: str) -> list[str]:
    """Entries from a file: a JSON list of strings (.json), or one entry a line (.txt; empty lines are skipped).

    Args:
        path: a local file, or a URL such as s3://bucket/entries.json; UTF-8.

    Raises:
        UserError: the file cannot be read, or is no such list.
    """
    try:
        fs, inner = fsspec.core.url_to_fs(path)
        text = fs.cat_file(inner).decode("utf-8-sig")
        entries = json.loads(text) if path.endswith(".json") else text.replace("\r\n", "\n").split("\n")
    except (OSError, ImportError, ValueError) as error:
        raise UserError(f"entries cannot be read: {error}", where=path) from error
    if not isinstance(entries, list) or not all(map(_is_text, entries)):
        raise UserError("not a list of strings", where=path, hint='write ["cat", "New York"]')
    return entries if path.endswith(".json") else [entry for entry in entries if entry]


def _is_text(value: object) -> bool:
    """Whether a value is a string of whole characters: JSON can write half of one."""
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)
