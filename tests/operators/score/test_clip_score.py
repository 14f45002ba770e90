"""clip_score without its model: what recipes may write, what is told to be missing, when stored scores still hold."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from peers import REPOSITORY, peer
from pydantic import ValidationError

from corpusmith.operators.registry import operator_class
from corpusmith.operators.score import encoder
from corpusmith.operators.score.clip_score import ClipScore
from corpusmith.operators.score.encoder import EncoderName


def score(encoder: str, **parameters: object) -> ClipScore:
    return ClipScore(ClipScore.Config.model_validate({"encoder": encoder, **parameters}))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_with_the_packages_of_its_extra() -> None:
    """The tests beside this one that need open_clip, in an environment that has it."""
    python = peer("models", [f"-e {REPOSITORY}[models]", "pytest", "pytest-timeout"], build_timeout_s=1200)
    tests = Path(__file__).with_name("test_clip_score_models.py")
    command = [str(python), "-m", "pytest", "-p", "no:cacheprovider", "-rs", str(tests)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "PYTHON"))}
    ran = subprocess.run(command, cwd=REPOSITORY, env=environment, text=True, capture_output=True, timeout=500)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert re.search(r"^\d+ passed in", ran.stdout, re.MULTILINE), ran.stdout


@pytest.mark.parametrize(
    ("text", "model", "weights"),
    [
        ("open_clip:ViT-B-32@openai", "ViT-B-32", "openai"),
        ("open_clip:ViT-B-32@/models/a@b.safetensors", "ViT-B-32", "/models/a@b.safetensors"),
        ("open_clip:ViT-B-32@mine.pt", "ViT-B-32", "mine.pt"),
        ("open_clip:hf-hub:laion/CLIP-ViT-B-32", "hf-hub:laion/CLIP-ViT-B-32", None),
        ("open_clip:local-dir:/models/a@b", "local-dir:/models/a@b", None),
    ],
)
def test_names_of_encoders(text: str, model: str, weights: str | None) -> None:
    assert score(text).config.encoder == text
    assert EncoderName.parsed(text) == EncoderName(model, weights)


@pytest.mark.parametrize(
    "text",
    ["", "ViT-B-32", "open_clip:", "open_clip:ViT-B-32", "open_clip:@openai", "clip:a@b", "open_clip:hf-hub:one"],
)
def test_what_names_no_encoder(text: str) -> None:
    with pytest.raises(ValidationError):
        score(text)


def test_what_is_missing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, folder = tmp_path / "mine.safetensors", tmp_path / "folder"
    file, local = score(f"open_clip:ViT-B-32@{weights}"), score(f"open_clip:local-dir:{folder}")
    monkeypatch.setattr(encoder, "find_spec", lambda _: None)
    for operator in (file, local):
        assert operator.missing() == "open_clip is not installed: pip install 'corpusmith[models]'"
    monkeypatch.setattr(encoder, "find_spec", lambda _: object())
    assert file.missing() == f"there is no file {weights}"
    assert "holds no open_clip_config.json" in (local.missing() or "")
    weights.write_bytes(b"weights")
    folder.mkdir()
    (folder / "open_clip_config.json").write_text("{}")
    assert file.missing() is None
    assert local.missing() is not None
    (folder / "model.safetensors").write_bytes(b"weights")
    assert local.missing() is None


def test_weights_trained_anew_score_anew(tmp_path: Path) -> None:
    weights = tmp_path / "mine.safetensors"
    operator = score(f"open_clip:ViT-B-32@{weights}")
    absent = operator.config.deciding()
    weights.write_bytes(b"first")
    first = operator.config.deciding()
    weights.write_bytes(b"other")
    os.utime(weights, (1, 1))
    assert first != operator.config.deciding() != absent != first
    weights.write_bytes(b"first")
    os.utime(weights, (2, 2))
    assert operator.config.deciding() == first
    same_work = score(f"open_clip:ViT-B-32@{weights}", device="cpu", gpus=0.5, batch_size=7)
    assert same_work.config.deciding() == first
    assert score(f"open_clip:ViT-B-32@{weights}", precision="bf16").config.deciding() != first


def test_what_recipes_write() -> None:
    assert operator_class("clip_score") is ClipScore
    operator = score("open_clip:ViT-B-32@openai", gpus=0.25)
    assert operator.requires == ("media", "caption")
    assert [column.name for column in operator.produces] == ["clip_similarity"]
    assert operator.resources.gpus == 0.25
    assert score("open_clip:ViT-B-32@openai").resources.gpus == 0
