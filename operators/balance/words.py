"""What a word of a text is, and a pair of neighbouring words, for lists of entries: columnar, by language.

MetaCLIP leaves open what its words are. Here they are, for texts without a language and for English, the tokens of the
match test that hold a letter or a digit; a pair is two of them with one space between, so that it can match. For other
languages they are MetaCLIP 2's (Chuang et al., "MetaCLIP 2: A Worldwide Scaling Recipe"; its `build_ngram.py`): text
is split at white space, around punctuation and around each character of Han, Thai, Lao, Burmese, Khmer and Tibetan;
what is not punctuation is a word, and a pair does not reach across punctuation.

Where words are written without spaces, MetaCLIP 2 runs a segmenter of each language, a model or a dictionary. Without
them a word here is a character with its marks, in Japanese a hiragana and a run of katakana, too, and a pair is two of
them side by side; all of Unicode's punctuation is punctuation. So these lists hold characters and pairs, no words of
three characters and more: those come with titles. HTML tags, which MetaCLIP 2 takes out of its dumps of Wikipedia, are
for whoever makes the texts.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from corpusmith.operators.balance.matching import space_texts

NO_SPACE_LANGUAGES = frozenset({"bo", "dz", "ja", "km", "lo", "my", "ryu", "th", "zh", "zh_classical", "zh_yue"})
"""Languages, as MetaCLIP 2 and Wikipedia call them, whose words are written without spaces."""
PUNCTUATION = string.punctuation + "，。、；：？¿！“”‘’（）【】《》〈〉「」『』～—"
"""What MetaCLIP 2 calls punctuation."""
_SPACED = (None, "en")
_LETTER_OR_DIGIT = r"[\pL\pN]"
_WHITE = r"[\s\x1c-\x1f\x{85}\pZ]+"
_PUNCTUATION_CLASS = re.escape(PUNCTUATION)
_IDEOGRAPHS = (
    r"\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{20000}-\x{2A6DF}\x{2A700}-\x{2EBEF}\x{F900}-\x{FAFF}\x{2E80}-\x{2FDF}"
    r"\x{2FF0}-\x{2FFF}"
)
_UNSPACED_SCRIPTS = r"\x{0E00}-\x{0EFF}\x{1000}-\x{109F}\x{1780}-\x{17FF}\x{0F00}-\x{0FFF}"
_ALONE = f"([{_PUNCTUATION_CLASS}{_IDEOGRAPHS}{_UNSPACED_SCRIPTS}])"
_SYLLABLES = rf"([\p{{Katakana}}ー]+|[{_PUNCTUATION_CLASS}{_IDEOGRAPHS}{_UNSPACED_SCRIPTS}\p{{Hiragana}}\pP]\pM*)"


def words_and_pairs(texts: pa.Array, language: str | None, *, has_pairs: bool) -> Iterator[pa.Array]:
    """Words of texts, and, if asked for, pairs of neighbours.

    Args:
        texts: strings; nulls have no words.
        language: of all of them; None or en for MetaCLIP 1's words.
        has_pairs: whether pairs are wanted.

    Yields:
        All words, large strings, as often as they occur; then all pairs, with a space between the two.
    """
    lists = _tokens(texts.drop_null(), language)
    tokens, texts_of = lists.flatten(), pc.list_parent_indices(lists)
    is_word = _are_words(tokens, language)
    yield tokens.filter(is_word)
    if has_pairs and len(tokens):
        first, second = tokens.slice(0, len(tokens) - 1), tokens.slice(1)
        is_pair = pc.and_(is_word.slice(0, len(first)), is_word.slice(1))
        is_pair = pc.and_(is_pair, pc.equal(texts_of.slice(0, len(first)), texts_of.slice(1)))
        space = pa.scalar(" ", pa.large_string())
        yield pc.binary_join_element_wise(first.filter(is_pair), second.filter(is_pair), space)


def _tokens(texts: pa.Array, language: str | None) -> pa.Array:
    if language in _SPACED:
        return pc.split_pattern(space_texts(texts), " ")
    apart = pc.replace_substring_regex(
        texts.cast(pa.large_string()), _SYLLABLES if language in NO_SPACE_LANGUAGES else _ALONE, r" \1 "
    )
    return pc.split_pattern(pc.replace_substring_regex(apart, _WHITE, " "), " ")


def _are_words(tokens: pa.Array, language: str | None) -> pa.Array:
    if language in _SPACED:
        return pc.match_substring_regex(tokens, _LETTER_OR_DIGIT)
    is_none = rf"^$|^[{_PUNCTUATION_CLASS}\pP]" if language in NO_SPACE_LANGUAGES else f"^[{_PUNCTUATION_CLASS}]*$"
    return pc.invert(pc.match_substring_regex(tokens, is_none))


def pair_entries(pairs: pa.Array | pa.ChunkedArray, language: str | None) -> pa.Array | pa.ChunkedArray:
    """Pairs as texts of the language have them: without the space where words are written without."""
    return pc.replace_substring(pairs, " ", "") if language in NO_SPACE_LANGUAGES else pairs
