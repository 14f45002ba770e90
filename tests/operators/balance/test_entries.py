"""Lists of entries: counted like a plain loop does, read from WordNet's own format, and refused when they are none."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corpusmith.operators.balance import entries as lists
from corpusmith.operators.balance.entries import fingerprint, pool_entries, read_entries, wordnet_entries
from corpusmith.operators.balance.matching import Matcher, space_text
from corpusmith.schemas.errors import UserError

DATA_NOUN = """\
  1 This software and database is being provided to you, the LICENSEE, by
  2 Princeton University under the following license.
00001740 03 n 01 entity 0 003 ~ 00001930 n 0000 ~ 00002137 n 0000 ~ 04424418 n 0000 | that which is perceived
00001930 03 n 01 physical_entity 0 001 @ 00001740 n 0000 | an entity that has physical existence
02084071 05 n 03 dog 0 domestic_dog 0 Canis_familiaris 0 001 @ 02083346 n 0000 | a member of the genus Canis
09119277 15 n 02 New_York 1 New_York_City 0 001 @ 08524735 n 0000 | the largest city
09128000 15 n 02 St._Louis 0 Gateway_to_the_West 0 001 @ 08524735 n 0000 | the largest city in Missouri
02942460 06 n 01 .22_caliber 0 000 | a rifle
"""
DATA_ADJ = """\
00003131 00 a 01 adducent(a) 0 000 | especially of muscles
00003356 00 s 02 nascent(ip) 0 emergent 0 000 | being born
01113636 00 s 01 entity 0 000 | the same name again
"""


def naive_pool_entries(texts: list[str | None], min_count: int, min_pmi: float) -> list[str]:
    """The rule, one token at a time."""
    words: Counter[str] = Counter()
    pairs: Counter[str] = Counter()
    for text in texts:
        tokens = space_text(text).split(" ") if text is not None else []
        is_word = [any(character.isalnum() for character in token) for token in tokens]
        words.update(token for token, known in zip(tokens, is_word, strict=True) if known)
        pairs.update(f"{tokens[i]} {tokens[i + 1]}" for i in range(len(tokens) - 1) if is_word[i] and is_word[i + 1])
    shares = {word: count / words.total() for word, count in words.items()}

    def pmi_bits(pair: str) -> float:
        first, second = pair.split(" ")
        return math.log2(pairs[pair] / pairs.total() / (shares[first] * shares[second]))

    def ranked(counter: Counter[str]) -> list[str]:
        frequent = [gram for gram, count in counter.items() if count >= min_count]
        return sorted(frequent, key=lambda gram: (-counter[gram], gram.encode()))

    return [*ranked(words), *(pair for pair in ranked(pairs) if pmi_bits(pair) >= min_pmi)]


def batches(texts: list[str | None], size: int) -> list[pa.Array]:
    return [pa.array(texts[start : start + size], pa.string()) for start in range(0, len(texts), size)]


TEXTS = st.lists(
    st.none() | st.lists(st.sampled_from([*"aAbé7.-", "", "ab,", "\n"]), max_size=9).map(" ".join), max_size=9
)


@given(TEXTS, st.integers(1, 3), st.sampled_from([-99.0, 0.3, 1.1]), st.integers(1, 9))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pool_entries_are_the_rule(
    tmp_path: Path, texts: list[str | None], min_count: int, min_pmi: float, size: int
) -> None:
    found = pool_entries(batches(texts, size), min_count=min_count, min_pmi=min_pmi, scratch_dir=str(tmp_path))
    assert found == naive_pool_entries(texts, min_count, min_pmi)


def test_pool_entries_match_their_pool(tmp_path: Path) -> None:
    drawn = random.Random(5)
    common = [f"w{k}" for k in range(40)]
    texts: list[str | None] = []
    for _ in range(600):
        words = drawn.choices(common, k=6)
        texts.append(" ".join([*words[:3], *(["New", "York,"] if drawn.random() < 0.1 else []), *words[3:]]))
    found = pool_entries(batches(texts, 50), min_count=5, min_pmi=5.0, scratch_dir=str(tmp_path))
    assert found[:40] == [word for word in found if word in common]
    assert [entry for entry in found if " " in entry] == ["New York"]
    drawn.shuffle(texts)
    assert pool_entries(batches(texts, 70), min_count=5, min_pmi=5.0, scratch_dir=str(tmp_path)) == found
    matches = Matcher(found).match(pa.array(texts))
    assert set(matches.rows.tolist()) == set(range(600))


def write_wordnet(folder: Path) -> Path:
    for name, text in {"data.noun": DATA_NOUN, "data.adj": DATA_ADJ, "data.verb": "", "data.adv": ""}.items():
        (folder / name).write_text(text)
    return folder


def test_wordnet_format(tmp_path: Path) -> None:
    found = wordnet_entries(str(write_wordnet(tmp_path)))
    numbers = [str(number) for number in range(100)]
    assert found == ["entity", "physical entity", "dog", "new york", "st", "adducent", "nascent", *numbers]


def test_wordnet_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="wordnet-base"):
        wordnet_entries(str(tmp_path))


@pytest.mark.skipif(
    not Path(lists.WORDNET_FOLDER, "data.noun").exists(), reason="Debian's wordnet-base is not installed"
)
def test_wordnet_itself_has_the_published_size() -> None:
    assert len(wordnet_entries()) == 86_654


def test_entries_from_files(tmp_path: Path) -> None:
    text, listed = tmp_path / "entries.txt", tmp_path / "entries.json"
    text.write_bytes("\ufeffcat\r\nNew York\n\n  two  \ncat\n\u2028".encode())
    assert read_entries(str(text)) == ["cat", "New York", "  two  ", "cat", "\u2028"]
    listed.write_text(json.dumps(["cat", "", "cat", "é"]))
    assert read_entries(str(listed)) == ["cat", "", "cat", "é"]


@pytest.mark.parametrize("content", [b"{}", b"[1]", b"[", b"[null]", b'["\\ud800"]', b"\xff\xfe\xff", b'"cat"'])
def test_files_that_are_no_lists(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "entries.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_entries(str(path))
    assert caught.value.where == str(path)


def test_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_entries(str(tmp_path / "entries.txt"))


def test_fingerprint_tells_lists_apart() -> None:
    different = [[], [""], ["", ""], ["ab"], ["a", "b"], ["b", "a"], ["a;b"], ["a", "b", "b"], ["1;a"]]
    assert len({fingerprint(entries) for entries in different}) == len(different)
    assert fingerprint(["a", "b"]) == fingerprint(["a", "b"])
