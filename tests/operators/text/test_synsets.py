"""synsets: each word by itself, as a loop finds them; hashtags in any spelling; NLTK's own answer on real captions."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pytest
from captions import drawn_captions
from hypothesis import given, settings
from hypothesis import strategies as st
from peers import peer
from pydantic import ValidationError
from wordnet_files import write_wordnet

from corpusmith.operators.balance.wordnet import WORDNET_FOLDER, WordNet
from corpusmith.operators.contract import Part
from corpusmith.operators.registry import operator_class
from corpusmith.operators.text.synsets import Synsets
from corpusmith.schemas.errors import UserError

WORDS = ["dog", "DOGS", "dog,", "#dog", "geese", "hot_dog", "running", "bigger", "quickly", "İ", "犬", "x" * 200, "c.a"]
SPACES = [" ", "  ", "\n", "\t", "\u00a0", "\u3000", "\x1c"]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, str]]:
    """The folder of the small WordNet, and name → number of its synsets."""
    folder = tmp_path_factory.mktemp("wordnet")
    return str(folder), write_wordnet(folder)


def synsets(texts: Any, **config: Any) -> list[list[str] | None]:
    operator = Synsets(Synsets.Config(**config))
    operator.setup()
    given = texts if isinstance(texts, pa.Array) else pa.array(texts, pa.string())
    part = cast(
        Part, operator.process(pa.table({"uid": [str(i) for i in range(len(given))], operator.config.column: given}))
    )
    (column,) = operator.produces
    values = cast(pa.Array, part.columns[column.name])
    values.validate(full=True)
    assert values.type == column.type
    assert not part.errors
    return values.to_pylist()


def naive(wordnet: WordNet, text: str | None, pos: str | None = None) -> list[str] | None:
    """What DataComp's code looks up: `for word in text.split()`."""
    if text is None:
        return None
    found = [wordnet.first_synset(word, pos) for word in text.split() if len(word) <= 100]
    return list(dict.fromkeys(f"{'a' if one.pos == 's' else one.pos}{one.offset:08d}" for one in found if one))


TEXT = st.none() | st.text(max_size=30) | st.lists(st.sampled_from(WORDS + SPACES), max_size=12).map("".join)


@given(texts=st.lists(TEXT, max_size=20), pos=st.sampled_from(["any", "noun"]))
@settings(max_examples=80, deadline=None)
def test_words_are_looked_up_one_by_one(small: tuple[str, dict[str, str]], texts: list[str | None], pos: str) -> None:
    wordnet = WordNet(small[0])
    expected = [naive(wordnet, text, "n" if pos == "noun" else None) for text in texts]
    assert synsets(texts, wordnet_path=small[0], pos=pos) == expected


def test_a_word_is_what_stands_between_white_space(small: tuple[str, dict[str, str]]) -> None:
    path, numbers = small
    told = ["a dog", "a dog.", "dogs and geese and dogs", "", None]
    dog, goose = numbers["dog.n.1"], numbers["goose.n.1"]
    assert synsets(told, wordnet_path=path) == [[dog], [], [dog, goose], [], None]
    # nouns before verbs: a running is a noun, and a noun's alone for pos: noun
    assert synsets(["running carried"], wordnet_path=path) == [[numbers["run.n.1"], numbers["carry.v.1"]]]
    assert synsets(["running carried"], wordnet_path=path, pos="noun") == [[numbers["run.n.1"]]]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("my #dog", ["dog.n.1"]),
        ("dog", []),
        ("#WelshCorgi #welshcorgi #welsh_corgi #Corgis", ["corgi.n.1"]),
        ("#NewYork#NewYorkCity!", ["new_york.n.1"]),
        ("#StLouis #saintlouis", ["st_louis.n.1"]),
        ("＃dog #dogs,#hotdog", ["dog.n.1", "frank.n.1"]),
        ("# dog #犬 ## #", []),
        ("#canisFamiliaris #DOG", ["dog.n.1"]),
    ],
)
def test_hashtags_in_any_spelling(small: tuple[str, dict[str, str]], text: str, names: list[str]) -> None:
    path, numbers = small
    config = {"wordnet_path": path, "read": "hashtags", "pos": "noun"}
    assert synsets([text], **config) == [[numbers[name] for name in names]]


def test_lists_of_tags(small: tuple[str, dict[str, str]]) -> None:
    path, numbers = small
    tags = pa.array([["Welsh corgi", "#dogs", None, " dog "], [], None, ["nothing known"]], pa.list_(pa.string()))
    found = synsets(tags, wordnet_path=path, read="hashtags", column="tags")
    assert found == [[numbers["corgi.n.1"], numbers["dog.n.1"]], [], None, []]
    assert synsets(tags.slice(1, 2), wordnet_path=path, read="words", column="tags") == [[], None]
    with pytest.raises(UserError, match="no texts"):
        synsets(pa.array([1]), wordnet_path=path)


def test_long_texts_and_batches_say_the_same(
    small: tuple[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, numbers = small
    long = "dog " * 250_000 + "goose"  # 1 MB
    assert synsets([long], wordnet_path=path) == [[numbers["dog.n.1"], numbers["goose.n.1"]]]
    texts = next(drawn_captions(2000)).to_pylist()
    whole = synsets(texts, wordnet_path=path)
    monkeypatch.setattr("corpusmith.operators.text.synsets.REMEMBERED_WORDS", 50)
    assert [row for text in texts[:300] for row in synsets([text], wordnet_path=path)] == whole[:300]
    assert synsets(texts, wordnet_path=path) == whole
    assert any(whole)


def test_what_recipes_write(small: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    assert operator_class("synsets") is Synsets
    config = Synsets.Config(wordnet_path=small[0])
    assert config.wordnet_sha256 is not None
    assert Synsets.Config(wordnet_path=small[0], wordnet_sha256=config.wordnet_sha256) == config
    assert Synsets(Synsets.Config(wordnet_path=small[0], column="tags")).produces[0].name == "tags_synsets"
    assert Synsets(config).missing() is None
    for wrong in ({"wordnet_path": str(tmp_path)}, {"wordnet_path": small[0], "wordnet_sha256": "0" * 64}):
        with pytest.raises(ValidationError):
            Synsets.Config.model_validate(wrong)


_NLTK = """
import json, sys
from nltk.corpus.reader.wordnet import WordNetCorpusReader
wordnet = WordNetCorpusReader(sys.argv[1], None)
texts = json.load(sys.stdin)
found = []
for text in texts:
    firsts = [synsets[0] for synsets in map(wordnet.synsets, text.split()) if synsets]
    found.append(list(dict.fromkeys(f"{'a' if s.pos() == 's' else s.pos()}{s.offset():08d}" for s in firsts)))
json.dump(found, sys.stdout)
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not Path(WORDNET_FOLDER, "data.noun").exists(), reason="Debian's wordnet-base is not installed")
def test_is_what_nltk_finds_in_real_captions(tmp_path: Path) -> None:
    # the last release that detaches endings again and again, as DataComp's filter was run with
    python = peer("nltk", ["nltk==3.8.1"])
    texts = next(drawn_captions(5000)).to_pylist()
    # NLTK reads below NLTK_DATA alone, and wants two files to be there that Debian leaves out
    folder = shutil.copytree(WORDNET_FOLDER, tmp_path / "corpora" / "wordnet", dirs_exist_ok=True)
    (folder / "lexnames").write_text("".join(f"{i:02d}\tname{i}\t1\n" for i in range(45)))
    (folder / "index.sense").touch()
    command = [str(python), "-c", _NLTK, str(folder)]
    environment = {**os.environ, "NLTK_DATA": str(tmp_path)}
    told = subprocess.run(command, input=json.dumps(texts), capture_output=True, text=True, check=True, env=environment)
    assert synsets(texts, wordnet_path=WORDNET_FOLDER) == json.loads(told.stdout)
