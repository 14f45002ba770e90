"""synsets: the meanings that a text names, as WordNet's synsets, by which ImageNet calls its classes.

Two published readings, both of a word's first and so most frequent meaning:

- `words`: DataComp's text-based filter (Gadre et al., 2023, section 3.2) takes each word as it stands between white
  space, in lower case, nouns before verbs, adjectives and adverbs, by NLTK's `wordnet.synsets(word)[0]`. A comma or a
  full stop stays part of its word, which then has no meaning; whoever wants it otherwise normalises the text first.
- `hashtags`: weakly supervised pre-training (Mahajan et al., "Exploring the Limits of Weakly Supervised Pretraining",
  2018) matches hashtags with synsets, so that synonyms become one label. #GoldenRetriever, #golden_retriever and
  #goldenretriever are the lemma "golden retriever". That of several meanings the first is taken is from memory.

What a text names is a column; which of it is wanted, `synset_select` decides. Each distinct word of a batch is looked
up once, and known words are remembered.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, ValidationInfo, field_validator

from corpusmith.operators.balance.wordnet import POS_FILES, WordNet, find_wordnet
from corpusmith.operators.contract import Annotate, Part
from corpusmith.operators.contract import Config as BaseConfig
from corpusmith.schemas.columns import CAPTION, Column
from corpusmith.schemas.errors import UserError

REMEMBERED_WORDS = 1 << 20
"""Words, some 150 bytes each, that a worker remembers before it forgets all of them."""
_MAX_WORD_CHARS = 100
"""WordNet's longest lemma has 71 characters."""
_HASHTAG = r"^(?P<tag>[\p{L}\p{M}\p{N}_]+)"
_CASE_BOUNDARY = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_SEPARATORS = re.compile(r"[\s_\-'./]+")


class Synsets(Annotate, name="synsets", version=1):
    """Name the WordNet synsets of a text's words or hashtags: the first meaning of each."""

    class Config(BaseConfig):
        column: str = Field(default=CAPTION.name, description="column of the texts, or of lists of texts such as tags")
        read: Literal["words", "hashtags"] = Field(
            default="words",
            description="words: whatever stands between white space, as DataComp does; hashtags: what follows a #, or "
            "in a column of lists each text",
        )
        pos: Literal["any", "noun"] = Field(
            default="any",
            description="any: a word's first meaning, nouns before verbs, adjectives and adverbs; noun: of nouns alone",
        )
        wordnet_path: str | None = Field(
            default=None, description="folder with WordNet's index.noun and its siblings; null to look for it"
        )
        wordnet_sha256: str | None = Field(
            default=None,
            validate_default=True,
            description="fingerprint of WordNet's index and exceptions, filled in when the recipe is read so that "
            "another WordNet is a changed step; give it to insist on one",
        )

        @field_validator("wordnet_sha256")
        @classmethod
        def _is_the_wordnet(cls, given: str | None, info: ValidationInfo) -> str | None:
            path = info.data.get("wordnet_path")
            try:
                found = _fingerprint(find_wordnet(path))
            except (UserError, OSError) as error:
                if path is None:
                    return given  # missing() tells it, so that recipes can be read where WordNet is not
                raise ValueError(str(error)) from error
            if given not in (None, found):
                raise ValueError(f"this is another WordNet: {found}")
            return found

    stored = False
    isolated = False
    batch_rows = 16384
    config: Config

    @property
    def requires(self) -> tuple[str, ...]:
        return (self.config.column,)

    @property
    def produces(self) -> tuple[Column, ...]:
        prefix = "" if self.config.column == CAPTION.name else f"{self.config.column}_"
        meaning = "WordNet synsets that the text names, each once, in the order of the text: n02084071"
        return (Column(f"{prefix}synsets", pa.list_(pa.string()), meaning),)

    def missing(self) -> str | None:
        try:
            find_wordnet(self.config.wordnet_path)
        except UserError as error:
            return f"{error.what}: {error.hint}"
        return None

    def setup(self) -> None:
        wordnet = WordNet(find_wordnet(self.config.wordnet_path))
        pos = "n" if self.config.pos == "noun" else None
        find = partial(wordnet.first_offset, pos=pos)
        self._meanings = _Meanings(find if self.config.read == "words" else _Hashtags(wordnet, pos))

    def process(self, batch: pa.Table) -> Part:
        texts = batch.column(self.config.column).combine_chunks()
        words, parents = _read(texts, self.config.read)
        found = self._meanings.of(words)
        rows, numbers = parents[found >= 0], found[found >= 0]
        return Part({self.produces[0].name: _lists(rows, numbers, self._meanings.names, texts)})


class _Meanings:
    """Numbers of the meanings of words; a word that was asked for is remembered."""

    def __init__(self, find: Callable[[str], tuple[str, int] | None]) -> None:
        self._find = find
        self._known: dict[str, int] = {}
        self._numbers: dict[tuple[str, int], int] = {}
        self.names: list[str] = []
        """The synset of each number."""

    def of(self, words: pa.Array) -> npt.NDArray[np.int64]:
        """(N,) number of each word's meaning, -1 for none."""
        encoded = words.dictionary_encode()
        distinct = encoded.dictionary.to_pylist()
        if len(self._known) + len(distinct) > REMEMBERED_WORDS:
            self._known.clear()
        numbers = np.array([self._number(word) for word in distinct], np.int64)
        return numbers[encoded.indices.to_numpy()] if len(distinct) else np.zeros(0, np.int64)

    def _number(self, word: str) -> int:
        if len(word) > _MAX_WORD_CHARS:
            return -1
        known = self._known.get(word)
        if known is None:
            known = self._known[word] = self._looked_up(word)
        return known

    def _looked_up(self, word: str) -> int:
        found = self._find(word)
        if found is None:
            return -1
        number = self._numbers.setdefault(found, len(self._numbers))
        if number == len(self.names):
            self.names.append(f"{found[0]}{found[1]:08d}")
        return number


class _Hashtags:
    """The first meaning of a hashtag, whatever way it writes the words of a lemma."""

    def __init__(self, wordnet: WordNet, pos: str | None) -> None:
        self._wordnet = wordnet
        self._pos = pos

    @cached_property
    def _glued(self) -> dict[str, str]:
        """Lemmas of several words, written as one → as they are; the first of several in the order of WordNet."""
        lemmas = (lemma for synset in self._wordnet.synsets(self._pos) for lemma in synset.lemmas)
        glued: dict[str, str] = {}
        for lemma in lemmas:
            if _SEPARATORS.search(lemma):
                glued.setdefault(_SEPARATORS.sub("", lemma.lower()), lemma)
        return glued

    def __call__(self, tag: str) -> tuple[str, int] | None:
        split = _SEPARATORS.sub("_", _CASE_BOUNDARY.sub("_", tag))
        for form in dict.fromkeys((tag, split)):
            found = self._wordnet.first_offset(form, self._pos)
            if found is not None:
                return found
        lemma = self._glued.get(_SEPARATORS.sub("", tag.lower()))
        return None if lemma is None else self._wordnet.first_offset(lemma, self._pos)


def _read(texts: pa.Array, read: str) -> tuple[pa.Array, npt.NDArray[np.int64]]:
    """Words or tags of all texts, one after the other, and the position of the text that each belongs to.

    Raises:
        UserError: the column holds neither texts nor lists of texts.
    """
    given, positions = texts, np.arange(len(texts))
    is_list = pa.types.is_list(texts.type) or pa.types.is_large_list(texts.type)
    if is_list:
        given, positions = texts.flatten(), pc.list_parent_indices(texts).to_numpy()
    if not (pa.types.is_string(given.type) or pa.types.is_large_string(given.type) or pa.types.is_null(given.type)):
        hint = "name a column of texts, or of lists of texts"
        raise UserError(f"the column holds {texts.type}, no texts", where="synsets", hint=hint)
    given = given.cast(pa.large_string())
    if read == "words":
        words, parents = _flat(pc.utf8_split_whitespace(given))
    elif is_list:
        words, parents = pc.utf8_ltrim(pc.utf8_trim_whitespace(given), "#＃"), np.arange(len(given))
    else:
        words, parents = _flat(_after_signs(pc.split_pattern(pc.replace_substring(given, "＃", "#"), "#")))
        words = pc.struct_field(pc.extract_regex(words, _HASHTAG), "tag")
    is_word = pc.fill_null(pc.not_equal(words, ""), False).to_numpy(zero_copy_only=False)
    return words.filter(pa.array(is_word)), positions[parents[is_word]]


def _after_signs(parts: pa.Array) -> pa.Array:
    """Without the first part of each text, which no sign stands before."""
    return pc.list_slice(parts, 1, None, return_fixed_size_list=False)


def _flat(lists: pa.Array) -> tuple[pa.Array, npt.NDArray[np.int64]]:
    return lists.flatten(), pc.list_parent_indices(lists).to_numpy()


def _lists(rows: npt.NDArray[np.int64], numbers: npt.NDArray[np.int64], names: list[str], texts: pa.Array) -> pa.Array:
    """Each text's synsets, once each in the order of the text; null for a text that is null."""
    _, firsts = np.unique(rows * max(len(names), 1) + numbers, return_index=True)
    firsts.sort()
    rows, numbers = rows[firsts], numbers[firsts]
    distinct, places = np.unique(numbers, return_inverse=True)
    values = pa.array([names[number] for number in distinct.tolist()], pa.string()).take(pa.array(places))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(texts)))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=texts.is_null())


def _fingerprint(folder: str) -> str:
    """sha256 of what a word's first synset depends on."""
    digest = hashlib.sha256()
    for name in POS_FILES.values():
        for path in (Path(folder) / f"index.{name}", Path(folder) / f"{name}.exc"):
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
