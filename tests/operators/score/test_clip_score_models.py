"""clip_score with its model: tiny ones of random weights, made and saved by open_clip itself.

Needs the packages of the extra `models`; `test_clip_score.py` has a slow test that runs these where they are.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import fates, run_recipe
from PIL import Image

from corpusmith.operators.contract import Part
from corpusmith.operators.score.clip_score import ClipScore
from corpusmith.schemas.errors import UserError

open_clip = pytest.importorskip("open_clip", reason="open_clip is not installed: pip install 'corpusmith[models]'")
torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")

MODEL = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}
PREPROCESS = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "interpolation": "bicubic", "resize_mode": "squash"}
CAPTIONS = ["a dog", "two cats on a red sofa", "", "Ein Hund läuft über die Straße — schnell!", "日本語", "x" * 5000]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as open_clip's `local-dir:` wants it."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": MODEL, "preprocess_cfg": PREPROCESS}))
    torch.manual_seed(0)
    model = open_clip.model.CLIP(**MODEL)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.08)
    safetensors_torch.save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture(scope="module")
def architecture(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same architecture in open_clip's own list."""
    path = tmp_path_factory.mktemp("configs") / "corpusmith-tiny.json"
    path.write_text(json.dumps(MODEL))
    open_clip.add_model_config(path)
    return path.stem


def made(encoder: str, **parameters: Any) -> ClipScore:
    operator = ClipScore(ClipScore.Config.model_validate({"encoder": encoder, "device": "cpu", **parameters}))
    assert operator.missing() is None
    operator.setup()
    return operator


def picture(i: int) -> Image.Image:
    drawn = np.random.default_rng(i)
    small = Image.fromarray(drawn.integers(0, 256, (6, 5, 3), np.uint8))
    sized = small.resize((40 + 30 * i % 200, 64 + 17 * i % 90), Image.Resampling.BICUBIC)
    return sized.convert("L") if i % 5 == 4 else sized


def encoded(image: Image.Image, kind: str = "png") -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def run(operator: ClipScore, media: Sequence[bytes | None], captions: Sequence[str | None]) -> tuple[list, dict]:
    uids = [str(i) for i in range(len(media))]
    columns = {"uid": uids, "media": pa.array(media, pa.large_binary()), "caption": pa.array(captions, pa.string())}
    parts: list[Part] = list(operator.process(pa.table(columns)))
    scores: list[Any] = [None] * len(media)
    errors = {}
    for part in parts:
        assert part.rows is not None
        for i, value in zip(part.rows, part.columns["clip_similarity"], strict=True):
            scores[i] = value
        errors |= {part.rows[i]: error for i, error in part.errors.items()}
    assert sorted(row for part in parts for row in part.rows or ()) == list(range(len(media)))
    return scores, errors


def by_hand(folder: Path, images: Sequence[Image.Image], captions: Sequence[str], **options: Any) -> np.ndarray:
    """The cosines, one pair at a time."""
    model, prepare = open_clip.create_model_from_pretrained(f"local-dir:{folder}", **options)
    model.eval()
    tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")
    cosines = []
    with torch.no_grad():
        for image, caption in zip(images, captions, strict=True):
            seen = model.encode_image(prepare(image)[None])[0]
            read = model.encode_text(tokenize([caption]))[0]
            cosines.append(float(torch.dot(seen, read) / (seen.norm() * read.norm())))
    return np.array(cosines)


def test_scores_are_the_cosines(folder: Path) -> None:
    images = [picture(i) for i in range(18)]
    captions = [CAPTIONS[i % len(CAPTIONS)] for i in range(18)]
    expected = by_hand(folder, images, captions)
    assert np.ptp(expected) > 0.05
    for batch_size in (1, 5, 32):
        operator = made(f"open_clip:local-dir:{folder}", batch_size=batch_size)
        scores, errors = run(operator, [encoded(image) for image in images], captions)
        assert not errors
        assert scores == pytest.approx(expected, abs=1e-5)
        assert all(isinstance(value, float) for value in scores)


def test_of_jpegs_too(folder: Path) -> None:
    media = [encoded(picture(i), "jpeg") for i in range(6)]
    scores, _ = run(made(f"open_clip:local-dir:{folder}"), media, ["a dog"] * 6)
    seen = [Image.open(io.BytesIO(data)) for data in media]
    assert scores == pytest.approx(by_hand(folder, seen, ["a dog"] * 6), abs=2e-3)


def test_captions_are_cut_to_what_the_encoder_reads(folder: Path) -> None:
    operator = made(f"open_clip:local-dir:{folder}")
    captions = ["dog " * 14, "dog " * 15, "dog " * 5000, "dog"]
    scores, errors = run(operator, [encoded(picture(1))] * 4, captions)
    assert not errors
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)
    assert scores[1] == pytest.approx(scores[2], abs=1e-6)
    assert abs(scores[3] - scores[0]) > 1e-3


def test_bad_rows_cost_nobody_else(folder: Path) -> None:
    good = [encoded(picture(i)) for i in range(4)]
    media = [good[0], b"<html>", good[1], None, good[2], good[2][:50], good[3]]
    captions = ["a", "b", None, "c", "d", "e", "f"]
    operator = made(f"open_clip:local-dir:{folder}", batch_size=3)
    scores, errors = run(operator, media, captions)
    assert {i: error.error for i, error in errors.items()} == {
        1: "not an image",
        2: "missing caption",
        3: "not an image",
        5: errors[5].error,
    }
    assert errors[5].error in ("truncated image", "corrupt image")
    expected = by_hand(folder, [picture(0), picture(2), picture(3)], ["a", "d", "f"])
    assert [scores[i] for i in (0, 4, 6)] == pytest.approx(expected, abs=1e-5)
    assert [scores[i] for i in (1, 2, 3, 5)] == [None] * 4
    assert run(operator, [None, b""], ["a", "b"])[0] == [None, None]
    assert run(operator, [], []) == ([], {})


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_in_a_file(folder: Path, architecture: str, tmp_path: Path, suffix: str) -> None:
    weights = tmp_path / f"weights{suffix}"
    state = safetensors_torch.load_file(folder / "open_clip_model.safetensors")
    if suffix == ".pt":
        torch.save({"epoch": 3, "state_dict": state}, weights)
    else:
        safetensors_torch.save_file(state, weights)
    operator = made(f"open_clip:{architecture}@{weights}")
    scores, _ = run(operator, [encoded(picture(0))], ["a dog"])
    model, prepare = open_clip.create_model_from_pretrained(architecture, str(weights))
    with torch.no_grad():
        seen = model.encode_image(prepare(picture(0))[None], normalize=True)
        read = model.encode_text(open_clip.get_tokenizer(architecture)(["a dog"]), normalize=True)
    assert scores == pytest.approx([float((seen * read).sum())], abs=1e-5)


def test_the_activation_is_that_of_the_weights(
    folder: Path, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenAI's weights are listed below architectures named for another activation."""
    listed = {"file": str(folder / "open_clip_model.safetensors"), "quick_gelu": True, **PREPROCESS}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, architecture, {"theirs": listed})
    monkeypatch.setattr(ClipScore, "missing", lambda self: None)
    scores, _ = run(made(f"open_clip:{architecture}@theirs"), [encoded(picture(0))], ["a dog"])
    quick = by_hand(folder, [picture(0)], ["a dog"], force_quick_gelu=True)
    assert scores == pytest.approx(quick, abs=1e-5)
    assert abs(quick - by_hand(folder, [picture(0)], ["a dog"])).max() > 1e-4


def test_lower_precision_is_near(folder: Path) -> None:
    media, captions = [encoded(picture(i)) for i in range(6)], CAPTIONS
    scores, errors = run(made(f"open_clip:local-dir:{folder}", precision="bf16"), media, captions)
    assert not errors
    assert scores == pytest.approx(by_hand(folder, [picture(i) for i in range(6)], captions), abs=0.03)


def test_what_the_hub_lacks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))

    def missing(encoder: str) -> str | None:
        return ClipScore(ClipScore.Config(encoder=f"open_clip:{encoder}")).missing()

    repository = "timm/vit_base_patch32_clip_224.openai"
    for encoder in ("ViT-B-32@openai", f"hf-hub:{repository}"):
        told = missing(encoder)
        assert (
            told == f"the weights {repository} are not on this machine: fetch them once with `hf download {repository}`"
        )
    snapshot = tmp_path / "models--timm--vit_base_patch32_clip_224.openai"
    (snapshot / "refs").mkdir(parents=True)
    (snapshot / "refs" / "main").write_text("0123")
    (snapshot / "snapshots" / "0123").mkdir(parents=True)
    (snapshot / "snapshots" / "0123" / "open_clip_model.safetensors").write_bytes(b"weights")
    for encoder in ("ViT-B-32@openai", f"hf-hub:{repository}"):
        assert missing(encoder) is None
    assert "lists no weights 'opnai' of 'ViT-B-32': its weights are openai," in (missing("ViT-B-32@opnai") or "")
    assert "nor the model itself" in (missing("ViT-B-33@openai") or "")


def test_broken_weights_end_the_run_with_a_reason(folder: Path, architecture: str, tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"no weights")
    with pytest.raises(UserError, match="cannot be loaded"):
        made(f"open_clip:{architecture}@{weights}")


def test_in_a_recipe(folder: Path, tmp_path: Path) -> None:
    """In the child process of an isolated operator, from files to fates."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(3):
        (pictures / f"{i}.png").write_bytes(encoded(picture(i)))
        (pictures / f"{i}.txt").write_text(CAPTIONS[i] or "nothing")
    (pictures / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    (pictures / "3.txt").write_text("no picture")
    recipe = f"""
        corpus: t
        input: {{path: {pictures}}}
        steps:
          - clip_score: {{encoder: "open_clip:local-dir:{folder}"}}
          - keep: clip_similarity > -1
    """
    run_recipe(recipe, tmp_path / "out")
    found = sorted((row["fate"], row["step"] or "") for row in fates(tmp_path / "out").values())
    assert found == [("failed", "clip_score"), ("kept", ""), ("kept", ""), ("kept", "")]
    shard = pq.read_table(tmp_path / "out" / "shards" / "00000.parquet").to_pylist()
    captions = [CAPTIONS[0], CAPTIONS[1], "nothing"]
    expected = by_hand(folder, [picture(i) for i in range(3)], captions)
    assert [next(r["clip_similarity"] for r in shard if r["caption"] == c) for c in captions] == pytest.approx(
        expected, abs=1e-5
    )
