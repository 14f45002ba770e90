"""Image-text encoders that open_clip loads: from its own list, from a weights file, from a folder, from the hub.

How an encoder is written:

    open_clip:ViT-B-32@openai                     an architecture and a tag of open_clip's list of weights
    open_clip:ViT-B-32@/models/mine.safetensors   an architecture and a file of weights (.safetensors, .pt, .pth, .bin)
    open_clip:local-dir:/models/mine              a folder with open_clip_config.json and weights
    open_clip:hf-hub:ORGANISATION/NAME            the same as a folder on the hub

How pictures are prepared and texts are cut to length belongs to the encoder, and so does its activation. That needs
help: of an architecture that was trained with two activations open_clip takes the one it is named for, and only warns
when the weights want the other, whose scores are then wrong.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from corpusmith.schemas.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

PATTERN = r"^open_clip:(hf-hub:[^@/:]+/[^@/:]+|local-dir:.+|[^@:]+@.+)$"

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["fp32", "fp16", "bf16"]

_SCHEME, _FOLDER, _HUB = "open_clip:", "local-dir:", "hf-hub:"
_CONFIG_FILE = "open_clip_config.json"
_WEIGHTS_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")
_HUB_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


@dataclass(frozen=True)
class EncoderName:
    """What the text that names an encoder says.

    Args:
        model: an architecture, or `hf-hub:…`, or `local-dir:…`.
        weights: a tag or the path of a file; None where `model` says it all.
    """

    model: str
    weights: str | None

    @staticmethod
    def parsed(text: str) -> EncoderName:
        """The name in a text that PATTERN matches."""
        named = text.removeprefix(_SCHEME)
        if named.startswith((_FOLDER, _HUB)):
            return EncoderName(named, None)
        model, _, weights = named.partition("@")
        return EncoderName(model, weights)

    @property
    def has_weights_file(self) -> bool:
        """Whether the weights are named by a path, rather than by a tag."""
        return self.weights is not None and ("/" in self.weights or self.weights.endswith(_WEIGHTS_SUFFIXES))

    def files(self) -> list[Path]:
        """The local files that make the encoder, as far as they exist; none for tags and the hub."""
        if self.weights is not None:
            return [Path(self.weights)] if self.has_weights_file and Path(self.weights).is_file() else []
        if not self.model.startswith(_FOLDER):
            return []
        entries = sorted(Path(self.model.removeprefix(_FOLDER)).glob("*"))
        return [path for path in entries if path.name == _CONFIG_FILE or path.suffix in _WEIGHTS_SUFFIXES]

    def missing(self) -> str | None:
        """What this machine lacks to load the encoder, and how to get it; loads no weights."""
        if find_spec("open_clip") is None:
            return "open_clip is not installed: pip install 'corpusmith[models]'"
        if self.has_weights_file:
            return None if self.files() else f"there is no file {self.weights}"
        if self.model.startswith(_FOLDER):
            names = [path.name for path in self.files()]
            complete = _CONFIG_FILE in names and len(names) > 1
            return None if complete else f"{self.model} holds no {_CONFIG_FILE} with weights beside it"
        if self.model.startswith(_HUB):
            return _missing_on_hub(self.model.removeprefix(_HUB), _HUB_WEIGHTS)
        return self._missing_weights_of_tag()

    def _missing_weights_of_tag(self) -> str | None:
        import open_clip  # pyright: ignore[reportMissingImports] (an extra)

        listed = open_clip.get_pretrained_cfg(self.model, self.weights or "")
        if not listed:
            tags = ", ".join(open_clip.list_pretrained_tags_by_model(self.model))
            known = f"its weights are {tags}" if tags else "nor the model itself"
            return f"open_clip lists no weights {self.weights!r} of {self.model!r}: {known}"
        repository, _, file = str(listed.get("hf_hub", "")).rpartition("/")
        if not repository:
            return None  # from a plain URL, which setup() fetches
        safe = f"{file.rsplit('.', 1)[0]}.safetensors"
        return _missing_on_hub(repository, (safe, file) if file else _HUB_WEIGHTS)

    def fingerprint(self) -> str | None:
        """sha256 over the local files that make the encoder; None for tags and the hub, whose names stand for them."""
        files = self.files()
        if not files:
            return None
        stats = [(path, path.stat()) for path in files]
        return _digest(tuple((str(path), stat.st_size, stat.st_mtime_ns) for path, stat in stats))


def _missing_on_hub(repository: str, files: Sequence[str]) -> str | None:
    from huggingface_hub import try_to_load_from_cache

    if any(isinstance(try_to_load_from_cache(repository, file), str) for file in files):
        return None
    return f"the weights {repository} are not on this machine: fetch them once with `hf download {repository}`"


@lru_cache(maxsize=8)
def _digest(files: tuple[tuple[str, int, int], ...]) -> str:
    """sha256 over files; size and time are there for the cache alone."""
    state = hashlib.sha256()
    for path, *_ in files:
        with Path(path).open("rb") as file:
            state.update(hashlib.file_digest(file, "sha256").digest())
    return state.hexdigest()


class OpenClipEncoder:
    """A loaded encoder; on a CPU it works on one thread, for workers are what there are many of.

    Raises:
        UserError: it cannot be loaded.
    """

    def __init__(self, text: str, device: Device, precision: Precision) -> None:
        import open_clip  # pyright: ignore[reportMissingImports] (an extra)
        import torch  # pyright: ignore[reportMissingImports]

        name = EncoderName.parsed(text)
        torch.set_num_threads(1)
        chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        tag = open_clip.get_pretrained_cfg(name.model, name.weights) if name.weights else {}
        try:
            self._model, self._prepare = open_clip.create_model_from_pretrained(
                name.model,
                name.weights,
                precision=precision,
                device=chosen,
                force_quick_gelu=bool(tag.get("quick_gelu")),
            )
            self._tokenize = open_clip.get_tokenizer(name.model)
        except Exception as error:
            raise UserError(f"encoder {text} cannot be loaded: {error}", hint="check its name and its files") from error
        self._model.eval()
        self._torch, self._device, self._dtype = torch, chosen, open_clip.get_input_dtype(precision)

    def prepared(self, picture: Image) -> Any:
        """A picture as the encoder wants it: a tensor (3, H, W)."""
        return self._prepare(picture)

    def images(self, prepared: Sequence[Any]) -> np.ndarray:
        """Embeddings of prepared pictures: (N, D), float32, of length 1."""
        with self._torch.inference_mode():
            batch = self._torch.stack(list(prepared)).to(self._device, self._dtype)
            return _as_array(self._model.encode_image(batch, normalize=True))

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings of texts, cut to the length that the encoder knows: (N, D), float32, of length 1."""
        with self._torch.inference_mode():
            return _as_array(self._model.encode_text(self._tokenize(list(texts)).to(self._device), normalize=True))


def _as_array(embeddings: Any) -> np.ndarray:
    return embeddings.float().cpu().numpy()
