"""language: py3langid's own answers, undetermined where nothing tells, null where there is no text."""

from __future__ import annotations

from typing import Any

import cloudpickle
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from corpusmith.operators.text.language import Language
from corpusmith.schemas.errors import UserError

SENTENCES = {
    "en": "The quick brown fox jumps over the lazy dog near the river bank.",
    "de": "Der schnelle braune Fuchs springt über den faulen Hund am Flussufer.",
    "fr": "Le renard brun et rapide saute par-dessus le chien paresseux près de la rivière.",
    "es": "El rápido zorro marrón salta sobre el perro perezoso cerca del río.",
    "it": "La volpe marrone salta velocemente sopra il cane pigro vicino al fiume.",
    "pl": "Szybki brązowy lis przeskakuje nad leniwym psem w pobliżu rzeki.",
    "ru": "Быстрая коричневая лиса перепрыгивает через ленивую собаку у реки.",
    "el": "Η γρήγορη καφέ αλεπού πηδάει πάνω από το τεμπέλικο σκυλί κοντά στο ποτάμι.",
    "ar": "الثعلب البني السريع يقفز فوق الكلب الكسول بالقرب من النهر.",
    "hi": "तेज़ भूरी लोमड़ी नदी के किनारे आलसी कुत्ते के ऊपर कूदती है।",
    "ja": "素早い茶色の狐が川のそばで怠け者の犬を飛び越えます。",
    "ko": "빠른 갈색 여우가 강가에서 게으른 개를 뛰어넘습니다.",
    "zh": "敏捷的棕色狐狸在河边跳过了那只懒惰的狗。",
    "tr": "Hızlı kahverengi tilki nehrin yanındaki tembel köpeğin üzerinden atlar.",
}


def made(**parameters: Any) -> Language:
    operator = Language(Language.Config(**parameters))
    operator.setup()
    return operator


@pytest.fixture(scope="module")
def operator() -> Language:
    return made()


@pytest.fixture(scope="module")
def identifier() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def run(operator: Language, texts: list[str | None]) -> list[tuple[str | None, float | None]]:
    table = pa.table({"uid": [str(i) for i in range(len(texts))], operator.config.column: pa.array(texts, pa.string())})
    part = operator.process(table)
    assert not part.errors
    assert list(part.columns) == [column.name for column in operator.produces]
    values = [pa.array(part.columns[column.name]) for column in operator.produces]
    assert [value.type for value in values] == [pa.string(), pa.float64()]
    return list(zip(*(value.to_pylist() for value in values), strict=True))


def test_sentences_in_many_languages(operator: Language) -> None:
    found = run(operator, list(SENTENCES.values()))
    assert [language for language, _ in found] == list(SENTENCES)
    assert all(probability is not None and 0.5 < probability <= 1 for _, probability in found)
    shouted = run(operator, [SENTENCES["en"].upper()])
    assert shouted[0][0] == "en"


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_identical_to_the_library_where_anything_tells(
    operator: Language, identifier: LanguageIdentifier, data: st.DataObject
) -> None:
    words = st.sampled_from([word for sentence in SENTENCES.values() for word in sentence.split()])
    mixed = st.lists(words | st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=5), max_size=8)
    texts: list[str | None] = data.draw(st.lists(st.none() | mixed.map(" ".join), max_size=20))
    for text, found in zip(texts, run(operator, [*texts, *texts])[: len(texts)], strict=True):
        if text is None:
            assert found == (None, None)
        elif not any(character.isalpha() for character in text) or identifier.classify(text) == identifier.classify(""):
            assert found == ("und", 0.0)
        else:
            language, probability = identifier.classify(text)
            assert found == (language, min(probability, 1.0))


def test_letterless_is_undetermined_and_null_is_null(operator: Language) -> None:
    letterless: list[str | None] = ["", " ", "123 456 789", "!?… 50 % 😀", "2019-05-04", "\x00", "٣٤٥"]
    assert run(operator, letterless) == [("und", 0.0)] * len(letterless)
    assert run(operator, [None, SENTENCES["fr"], None])[::2] == [(None, None)] * 2
    assert run(operator, [None]) == [(None, None)]
    assert run(operator, []) == []


def test_text_without_a_known_feature_is_undetermined(operator: Language, identifier: LanguageIdentifier) -> None:
    assert identifier.classify("a")[0] != "und"
    assert run(operator, ["a"]) == [("und", 0.0)]


def test_fewer_letters_than_asked_for() -> None:
    operator = made(min_letters=10)
    short, long = "das Haus 1234567", "das Häuschen"
    assert run(operator, [short, long])[0] == ("und", 0.0)
    assert run(operator, [short, long])[1] == run(made(), [long])[0] != ("und", 0.0)


def test_choice_of_languages() -> None:
    operator = made(languages=("de", "fr"))
    found = run(operator, list(SENTENCES.values()))
    assert {language for language, _ in found} <= {"de", "fr", "und"}
    assert dict(zip(SENTENCES, found, strict=True))["de"][0] == "de"
    with pytest.raises(UserError, match="unknown codes: klingon") as caught:
        made(languages=("de", "klingon"))
    assert "en, " in str(caught.value)


def test_columns_and_pickling() -> None:
    titled = Language(Language.Config(column="title"))
    assert titled.requires == ("title",)
    assert [column.name for column in titled.produces] == ["title_language", "title_language_probability"]
    assert [column.name for column in Language().produces] == ["language", "language_probability"]
    copy = cloudpickle.loads(cloudpickle.dumps(titled))
    copy.setup()
    assert run(copy, [SENTENCES["ru"]])[0][0] == "ru"


def test_other_string_types_and_chunks(operator: Language) -> None:
    for kind in (pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())):
        texts = pa.array([SENTENCES["en"], None, SENTENCES["de"]]).cast(kind)
        chunked = pa.chunked_array([texts.slice(0, 1), texts.slice(1)])
        part = operator.process(pa.table({"uid": ["0", "1", "2"], "caption": chunked}))
        assert pa.array(part.columns["language"]).to_pylist() == ["en", None, "de"]
    nothing = operator.process(pa.table({"uid": ["0"], "caption": pa.nulls(1)}))
    assert pa.array(nothing.columns["language_probability"]).to_pylist() == [None]
