"""text: equal to a naive per-row reference on hostile Unicode, bounded in time, and what counts as a file's name."""

from __future__ import annotations

import re
import time
import unicodedata
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from ftfy import fix_encoding
from ftfy.fixes import fix_c1_controls, fix_surrogates, remove_terminal_escapes, unescape_html
from hypothesis import example, given, settings
from hypothesis import strategies as st

from corpusmith.operators.text.boilerplate import NOTICES, PHRASES
from corpusmith.operators.text.text import _NEEDS_FIXING, Text, _fixer

REFERENCE_PHRASES = {tuple(phrase.split()) for phrase in PHRASES.split("|")}
REFERENCE_NOTICES = re.compile(f"(?<![0-9A-Za-z_])({NOTICES})(?![0-9A-Za-z_])")
JOINERS = "\u200c\u200d"
IGNORABLE = {
    0xAD, 0x61C, 0x180E, 0x200B, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2060, 0x2070), 0xFEFF,
    *range(0xFFF9, 0xFFFC), *range(0xE0000, 0xE0080),
}  # fmt: skip


def run(texts: list[str | None], **parameters: Any) -> dict[str, list[Any]]:
    operator = Text(Text.Config(**parameters))
    operator.setup()
    table = pa.table({"uid": [str(i) for i in range(len(texts))], operator.config.column: pa.array(texts, pa.string())})
    part = operator.process(table)
    assert not part.errors
    assert list(part.columns) == [column.name for column in operator.produces]
    for column in operator.produces:
        assert part.columns[column.name].type == column.type  # pyright: ignore[reportAttributeAccessIssue]
    return {name: values.to_pylist() for name, values in part.columns.items()}  # pyright: ignore[reportAttributeAccessIssue]


def reference_clean(text: str) -> str:
    text = unescape_html(unescape_html(text))
    text = "".join(" " if c.isspace() and ord(c) < 0x80 else c for c in text)
    text = remove_terminal_escapes(fix_surrogates(fix_c1_controls(fix_encoding(text))))
    text = "".join(
        c for c in text if not (unicodedata.category(c) == "Cc" and not c.isspace()) and ord(c) not in IGNORABLE
    )
    kept, i = [], 0
    while i < len(text):
        end = i
        while end < len(text) and text[end] in JOINERS:
            end += 1
        if end == i:
            kept.append(text[i])
            i += 1
            continue
        around = (text[i - 1] if i else " ", text[end] if end < len(text) else " ")
        if all(ord(c) > 0x7F and not c.isspace() for c in around):
            kept.append(text[i])
        i = end
    marks, capped = 0, []
    for c in kept:
        marks = marks + 1 if unicodedata.category(c)[0] == "M" else 0
        if marks <= 30:
            capped.append(c)
    return " ".join(unicodedata.normalize("NFC", "".join(capped)).split())


def reference_measures(text: str) -> dict[str, Any]:
    words = text.split()
    visible = [c for word in words for c in word]
    lowered = ["".join("i" if c == "İ" else c.lower() for c in word) for word in words]
    return {
        "char_count": len(text),
        "word_count": len(words),
        "caption_alnum_ratio": sum(unicodedata.category(c)[0] in "LMN" for c in visible) / max(len(visible), 1),
        "caption_special_ratio": sum(is_special(c) for c in visible) / max(len(visible), 1),
        "caption_longest_run": max((len(list(run)) for _, run in groupby(" ".join(words))), default=0),
        "caption_repetition": (len(words) - len(set(lowered))) / max(len(words), 1),
        "caption_is_boilerplate": reference_is_boilerplate(" ".join(words)),
    }


def is_special(character: str) -> bool:
    if unicodedata.category(character)[0] in "LMN":
        return False
    return character not in ".,;:!?'\"()-‐‑‒–—―‘’‚‛“”„‟…«»¿¡、。「」『』，．；：！？（）"


def reference_is_boilerplate(text: str) -> bool:
    """Whether the words of the text can be cut into phrases, by trying all cuts; or a notice is in it."""
    folded = "".join(c.casefold() if len(c.casefold()) == 1 else c for c in text)
    words = "".join(c if unicodedata.category(c)[0] in "LM" else " " for c in folded).split()
    reachable = {0}
    for end in range(1, len(words) + 1):
        if any(tuple(words[start:end]) in REFERENCE_PHRASES for start in reachable):
            reachable.add(end)
    return REFERENCE_NOTICES.search(folded) is not None or (bool(words) and len(words) in reachable)


fragments = st.sampled_from(
    [
        "&amp;", "&amp;amp;", "&lt;b&gt;", "&#8203;", "&#x301;", "&nbsp;", "&notanentity;", "&", "&#0;", "&#xD800;",
        "Ð¡Ð¾Ð±Ð°ÐºÐ°", "cafÃ©", "â€™", "â\x80\x99", "Ã\xa0", "í\xa0\x80", "\xed\xa0\xbd\xed\xb8\x80", "\x85",
        "\x93q\x94", "e\u0301", "\u0301\u0327" * 40, "\u200b", "\u200d", "\u200c\u200c", "می\u200cخواهم", "\ufeff",
        "👨\u200d👩\u200d👧", "\u202e", "\x1b[31m", "\x00", "\x1c", "\x1f", "\v", "\u2028", "\u3000", "\u00a0",
        "\u2000", "\r\n", "  ", " ", "Dog", "dog", "İ", "ΟΔΟΣ", "ﬁ", "ＡＢＣ", "“q”", "\ufffd", "日本語", "नमस्ते",
        "ß", "ẞ", "x.jpg", "IMG_12", "!!!!", "|", "#sale", "Click to Enlarge", "Logo", "Image of", "ſee more",
        "we use cookies", "photo of the day", "'s", " - ", "3", "\U0001f680\U0001f680",
    ]
)  # fmt: skip
hostile = st.lists(
    st.one_of(fragments, st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=4)), max_size=8
).map("".join)


@settings(max_examples=150, deadline=None)
@given(texts=st.lists(st.none() | hostile, min_size=1, max_size=6))
@example(texts=["", " ", None])
@example(texts=[None])
def test_equal_to_a_per_row_reference(texts: list[str | None]) -> None:
    result = run(texts)
    assert result["caption_original"] == texts
    for i, text in enumerate(texts):
        if text is None:
            assert all(values[i] is None for values in result.values())
            continue
        assert result["caption"][i] == reference_clean(text)
        for name, value in reference_measures(result["caption"][i]).items():
            assert result[name][i] == value, name


@settings(max_examples=100, deadline=None)
@given(texts=st.lists(st.none() | hostile, min_size=1, max_size=6))
def test_measuring_alone_changes_nothing(texts: list[str | None]) -> None:
    result = run(texts, fix=False)
    assert "caption" not in result
    for i, text in enumerate(texts):
        if text is not None:
            assert {name: result[name][i] for name in reference_measures(text)} == reference_measures(text)


@pytest.mark.parametrize(
    ("dirty", "clean"),
    [
        ("A  photo\tof\n a dog ", "A photo of a dog"),
        ("Tom &amp;amp; Jerry", "Tom & Jerry"),
        ("&lt;script&gt;", "<script>"),
        ("cafÃ© â€“ itâ€™s", "café – it’s"),
        ("Ð¡Ð¾Ð±Ð°ÐºÐ°", "Собака"),
        ("cafe\u0301", "café"),
        ("pass\u200bword\ufeff\u00ad", "password"),
        ("p\u200da\u200dss", "pass"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("👨\u200d👩\u200d👧 family", "👨\u200d👩\u200d👧 family"),
        ("\x1b[31mred\x1b[0m\x07", "red"),
        ("\u202egnp.exe", "gnp.exe"),
        ("flag\U000e0067\U000e0062", "flag"),
        ("“quoted” ﬁne ＷＩＤＥ", "“quoted” ﬁne ＷＩＤＥ"),
        ("½ & 100% of R&D", "½ & 100% of R&D"),
    ],
)
def test_cleaning(dirty: str, clean: str) -> None:
    assert run([dirty])["caption"] == [clean]


FILENAMES = """IMG_1234.JPG|IMG_1234|img-0012|DSC0001|DSC_0042|_DSC1234|DSCN0123|P1010234|image.png|Image 12
|20190504_123456|IMG_20190504_123456_HDR|PXL_20210101_120000000|screenshot 2020-01-02 at 10.11.12|1234567_10152_n
|photo (1).jpeg|wp-content/uploads/2019/05/dog.webp|d41d8cd98f00b204e9800998ecf8427e|My dog.PNG|clip.mp4
|123e4567-e89b-12d3-a456-426614174000"""
CAPTIONS = """A photo of a dog|Image of a dog|Imagine 12 dogs|Photo by Ann|12 dogs|1984|image|Scandinavia 2019|P 90
|file a claim|The IMG_1234.JPG was lost|Visit us at example.com|Version 2.0|DSC|img|decade|a jpg|Facade
|Portrait 01 of 12 men"""


def test_file_names() -> None:
    names, captions = FILENAMES.replace("\n", "").split("|"), CAPTIONS.replace("\n", "").split("|")
    found = run([*names, *captions])["caption_is_filename"]
    assert [name for name, is_name in zip(names, found, strict=False) if not is_name] == []
    assert [caption for caption, is_name in zip(captions, found[len(names) :], strict=True) if is_name] == []


BOILERPLATE = """image|Image 3|LOGO|Untitled-1|Click to enlarge|Photo of the day!|picture of|No image available.
|\u00a9 Shutterstock|Royalty-Free Stock Photo|Image: click to view larger image|Alamy Stock Photo - 12345
|Thumbnail for|Zum Vergrößern klicken|Sin título|This site uses cookies to improve
|Please enable JavaScript to see dogs|photo, photo, photo|Load image into Gallery viewer"""
DESCRIPTIONS = """A dog|Nike logo|Photo of the day's first light|Image of a dog|Click beetle
|Stock photo of a brown dog|Untitled, oil on canvas|Homer|Imagery|12|...|logotype|The old photo shop
|Enlarged heart|Royalty-free image: cat on a mat|Photo by Ann"""


def test_boilerplate() -> None:
    pages, descriptions = BOILERPLATE.replace("\n", "").split("|"), DESCRIPTIONS.replace("\n", "").split("|")
    found = run([*pages, *descriptions])["caption_is_boilerplate"]
    assert [text for text, is_page in zip(pages, found, strict=False) if not is_page] == []
    assert [text for text, is_page in zip(descriptions, found[len(pages) :], strict=True) if is_page] == []


def test_each_phrase_of_the_lists_is_boilerplate_in_any_case() -> None:
    phrases = [*PHRASES.split("|"), *NOTICES.split("|")]
    assert len(phrases) == len(set(phrases))
    assert all(run([*phrases, *map(str.title, phrases)])["caption_is_boilerplate"])
    assert not any(run([f"{phrase} xyzzy" for phrase in PHRASES.split("|")])["caption_is_boilerplate"])


CONTACTS = """See https://example.net/a|HTTP://EXAMPLE.NET|www.example.net|Amazon.com: boots
|mail ann.b+c@example.co|Tel: 030 901820|+44 20 7946 0958|(212) 555-0100|212-555-0100|212.555.0100
|call us at 555 0100|Hotel at booking.co.uk, 3 stars"""
NO_CONTACTS = """A dog|e.g. a dog|Version 2.0.1|me @ home|@dog|2019-05-12|1.000.000|640 480 1024|http|www|a.b
|common.communities|ASP.NET developer|telephone box|Phone 12|2 + 2 = 4|+1|iPhone 6 2015|call us|12-34-5678
|100+ 2000 photos"""


def test_contacts() -> None:
    given, none = CONTACTS.replace("\n", "").split("|"), NO_CONTACTS.replace("\n", "").split("|")
    found = run([*given, *none])["caption_has_contact"]
    assert [text for text, has_contact in zip(given, found, strict=False) if not has_contact] == []
    assert [text for text, has_contact in zip(none, found[len(given) :], strict=True) if has_contact] == []


@settings(max_examples=60, deadline=None)
@given(before=hostile, after=hostile, address=st.sampled_from(["https://a.example", "x@a.example", "+49 30 901820"]))
def test_a_contact_is_found_in_any_company(before: str, after: str, address: str) -> None:
    assert run([f"{before} {address} {after}"], fix=False)["caption_has_contact"] == [True]


def test_columns_are_named_for_the_text() -> None:
    assert Text().requires == ("caption",)
    assert [column.name for column in Text(Text.Config(column="title", fix=True)).produces] == [
        "title", "title_original", "title_char_count", "title_word_count", "title_alnum_ratio", "title_special_ratio",
        "title_longest_run", "title_repetition", "title_is_filename", "title_is_boilerplate", "title_has_contact",
    ]  # fmt: skip
    assert run(["a b"], column="title")["title_word_count"] == [2]


@pytest.mark.parametrize(
    "kind", [pa.null(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
)
def test_other_string_types(kind: pa.DataType) -> None:
    values = pa.nulls(2, kind) if pa.types.is_null(kind) else pa.array(["a  b", None], pa.string()).cast(kind)
    chunked = pa.chunked_array([values.slice(0, 1), values.slice(1)])
    part = Text().process(pa.table({"uid": ["0", "1"], "caption": chunked}))
    expected = [None, None] if pa.types.is_null(kind) else ["a b", None]
    assert part.columns["caption"].to_pylist() == expected  # pyright: ignore[reportAttributeAccessIssue]
    empty = Text().process(pa.table({"uid": pa.array([], pa.string()), "caption": pa.array([], kind)}))
    assert all(len(values) == 0 for values in empty.columns.values())


def test_bytes_that_are_no_text_raise_and_so_fail_their_row_alone() -> None:
    offsets = pa.py_buffer(b"\x00\x00\x00\x00\x02\x00\x00\x00")
    broken = pa.Array.from_buffers(pa.string(), 1, [None, offsets, pa.py_buffer(b"\xff\xfe")])
    with pytest.raises(pa.ArrowInvalid, match="UTF8"):
        Text().process(pa.table({"uid": ["0"], "caption": broken}))


def test_long_hostile_texts_take_linear_time() -> None:
    bombs: list[str | None] = [
        "&" + "amp;" * 25_000,
        "a" + "\u0301\u0327" * 25_000,
        "a" + "&#769;&#807;" * 10_000,
        "a" + "\u0301\u0327".encode().decode("latin-1") * 15_000,
        "Ãƒ" * 15_000,
        "\x85" * 50_000,
        "é" + "\u200d" * 50_000,
        "img" + "1" * 50_000 + "!",
        "\x1b[" * 25_000,
        "a " * 25_000,
        "image " * 200_000 + "x",
        "photo of the " * 80_000,
        "1" * 1_000_000,
        "+1 " * 300_000,
        "a@" * 500_000,
        "www." * 250_000,
        "\u0623\u0651" * 250_000,
    ]
    started = time.process_time()
    run(bombs)
    assert time.process_time() - started < 5


def test_speed() -> None:
    texts: list[str | None] = [f"A photo of a brown dog number {i} in the garden" for i in range(10_000)]
    run(texts[:10])
    started = time.process_time()
    run(texts)
    assert len(texts) / (time.process_time() - started) > 20_000


@given(
    st.lists(
        st.text(alphabet="aZ 9,.!?é’“”–—…ñØÃÂœŒ°©®™€£·ßÿĀɏÙ×÷À½²¡«\xa0&\x85", max_size=12), min_size=1, max_size=20
    )
)
def test_what_is_left_to_arrow_needs_no_fixing(texts: list[str]) -> None:
    left = [text for text in texts if not pc.match_substring_regex(pa.scalar(text), _NEEDS_FIXING).as_py()]
    for text in left:
        assert _fixer()(text).split() == text.split()
        assert unicodedata.is_normalized("NFC", text)
