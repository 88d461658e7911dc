"""CLIP cosines, by open_clip or by transformers. The name says which, since their figures differ.

Weights are read from a folder or from the library's cache; nothing is downloaded unless `download=true` asks for it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

_BATCH = 8  # pictures per pass


class Unavailable(ValueError):
    """The model cannot be had here; the message says why and what would mend it."""


class ClipScorer(Protocol):
    """Cosines between features of unit length, not multiplied by 100.

    Attributes:
        name: library and model, as in `openclip-ViT-bigG-14`.
    """

    name: str

    def image_image(self, a: Float[Tensor, "A 3 H W"], b: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "A B"]:
        """Pictures in [0, 1], of any size; they are prepared as the library prepares its own (8 bits, bicubic)."""
        ...

    def text_image(self, texts: Sequence[str], images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "A B"]: ...


class _Cosines(ABC):
    """The arithmetic; subclasses bring the features."""

    library: ClassVar[str]
    name: str
    device: torch.device

    @classmethod
    def named(cls, model: str) -> str:
        """What a scorer of that model calls itself unless it is told otherwise."""
        return f"{cls.library}-{Path(model).name}"

    def image_image(self, a: Float[Tensor, "A 3 H W"], b: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "A B"]:
        return _unit(self._pictures(a)) @ _unit(self._pictures(b)).T

    def text_image(self, texts: Sequence[str], images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "A B"]:
        return _unit(self._texts(list(texts))) @ _unit(self._pictures(images)).T

    @torch.no_grad()
    def _pictures(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        from PIL import Image

        from dg.io.images import to_uint8

        pictures = [Image.fromarray(x) for x in to_uint8(images.movedim(1, -1))]
        batches = [pictures[i : i + _BATCH] for i in range(0, len(pictures), _BATCH)]
        return torch.cat([self._image_features(batch) for batch in batches]).float().cpu()

    @torch.no_grad()
    def _texts(self, texts: list[str]) -> Float[Tensor, "A D"]:
        return self._text_features(texts).float().cpu()

    @abstractmethod
    def _image_features(self, pictures: list[Any]) -> Tensor: ...

    @abstractmethod
    def _text_features(self, texts: list[str]) -> Tensor: ...


class OpenClip(_Cosines):
    """A model of open_clip.

    Args:
        model: one of open_clip's names, or a folder as on the hub: open_clip_config.json and the weights.
        pretrained: open_clip's tag, or a file of weights; means nothing beside a folder.
        name: what figures are called by; `openclip-MODEL` unless given. Give one to tell two tags of a model apart.
        download: allows to fetch what is not in the cache.
    Raises:
        Unavailable: no such model, no package, no weights.
    """

    library = "openclip"

    def __init__(
        self,
        model: str = "ViT-bigG-14",
        pretrained: str = "laion2b_s39b_b160k",
        *,
        name: str | None = None,
        cache_dir: str | None = None,
        download: bool = False,
        device: str = "cpu",
    ) -> None:
        try:
            import open_clip
        except ImportError as error:
            raise Unavailable("open_clip is not installed: pip install open-clip-torch") from error
        self.name = name or self.named(model)
        self.device = torch.device(device)
        if Path(model).is_dir():
            model, weights = _open_clip_folder(Path(model), download), None
        else:
            weights = pretrained if download else _open_clip_cached(model, pretrained, cache_dir)
        try:
            self._model, _, self._prepare = open_clip.create_model_and_transforms(
                model, pretrained=weights, cache_dir=cache_dir, device=self.device, **_recipe(model, pretrained)
            )
            self._tokenizer = open_clip.get_tokenizer(model)
        except (RuntimeError, OSError, ValueError, KeyError) as error:
            raise Unavailable(f"open_clip could not load {model}: {_first_line(error)}") from error
        self._model.eval()

    def _image_features(self, pictures: list[Any]) -> Tensor:
        return self._model.encode_image(torch.stack([self._prepare(p) for p in pictures]).to(self.device))

    def _text_features(self, texts: list[str]) -> Tensor:
        return self._model.encode_text(self._tokenizer(texts).to(self.device))


class TransformersClip(_Cosines):
    """A CLIP model of transformers.

    Args:
        model: an id on the hub, or a folder in its layout (config.json, weights, preprocessor and tokenizer files).
        name: what figures are called by; `transformers-MODEL` unless given.
        download: allows to fetch what is not in the cache.
    Raises:
        Unavailable: no package, no weights, or no CLIP in there.
    """

    library = "transformers"

    def __init__(
        self,
        model: str = "openai/clip-vit-large-patch14",
        *,
        name: str | None = None,
        cache_dir: str | None = None,
        download: bool = False,
        device: str = "cpu",
    ) -> None:
        try:
            from transformers import CLIPModel, CLIPProcessor
        except ImportError as error:
            raise Unavailable("transformers is not installed: pip install transformers") from error
        self.name = name or self.named(model)
        self.device = torch.device(device)
        where = {"local_files_only": not download, "cache_dir": cache_dir}
        try:
            self._model = CLIPModel.from_pretrained(model, **where).to(self.device).eval()
            self._processor = CLIPProcessor.from_pretrained(model, **where)
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            mend = "" if download else "; give a folder that holds it, or allow the download (download=true)"
            raise Unavailable(f"no weights of {model}: {_first_line(error)}{mend}") from error

    def _image_features(self, pictures: list[Any]) -> Tensor:
        pixels = self._processor(images=pictures, return_tensors="pt")["pixel_values"]
        return _features(self._model.get_image_features(pixel_values=pixels.to(self.device)))

    def _text_features(self, texts: list[str]) -> Tensor:
        tokens = self._processor(text=texts, return_tensors="pt", padding=True, truncation=True).to(self.device)
        return _features(self._model.get_text_features(tokens["input_ids"], tokens["attention_mask"]))


def _features(out: Any) -> Tensor:
    """Older transformers return the projected features, newer ones an output whose pooled part they are."""
    return out if isinstance(out, Tensor) else out.pooler_output


def _unit(x: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
    return x / x.norm(dim=-1, keepdim=True).clamp_min(1e-12)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _recipe(model: str, pretrained: str) -> dict[str, Any]:
    """What belongs to a tag besides its weights, and gets lost when they are given as a file."""
    import open_clip

    source = open_clip.get_pretrained_cfg(model, pretrained) or {}
    names = {"mean": "image_mean", "std": "image_std", "interpolation": "image_interpolation"}
    names |= {"resize_mode": "image_resize_mode", "quick_gelu": "force_quick_gelu"}
    return {ours: source[theirs] for theirs, ours in names.items() if source.get(theirs)}


def _open_clip_folder(folder: Path, download: bool) -> str:
    """open_clip's name of a folder, after a look that it holds all it needs: without weights it would invent some."""
    import json

    config = folder / "open_clip_config.json"
    if not config.is_file():
        raise Unavailable(f"{folder} has no open_clip_config.json")
    if not any(path.suffix in (".safetensors", ".bin", ".pth") for path in folder.iterdir()):
        raise Unavailable(f"{folder} has no weights (open_clip_model.safetensors or open_clip_pytorch_model.bin)")
    try:
        text = json.loads(config.read_text())["model_cfg"]["text_cfg"]
    except (ValueError, KeyError) as error:
        raise Unavailable(f"{config} is damaged: {_first_line(error)}") from error
    if "hf_model_name" in text and not download:
        raise Unavailable(f"{folder}: its text tower {text['hf_model_name']} comes from the hub (download=true)")
    return f"local-dir:{folder}"


def _open_clip_cached(model: str, pretrained: str, cache_dir: str | None) -> str:
    """The file of weights that open_clip would take, if it is here already."""
    import open_clip

    if Path(pretrained).is_file():
        return pretrained
    config = open_clip.get_model_config(model)
    if config is None:
        raise Unavailable(f"model={model} is neither a folder nor one of open_clip's names")
    source = open_clip.get_pretrained_cfg(model, pretrained)
    if not source:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(model)) or "none"
        raise Unavailable(f"pretrained={pretrained} is neither a file nor a tag of {model}; there are: {tags}")
    mend = "give a folder that holds it, or allow the download (download=true)"
    if "hf_model_name" in config["text_cfg"]:
        raise Unavailable(f"the text tower of {model} comes from the hub; allow the download (download=true)")
    for found in _candidates(source, cache_dir):
        if found.is_file():
            return str(found)
    raise Unavailable(f"no weights of {model} ({pretrained}) in the cache; {mend}")


def _candidates(source: dict[str, Any], cache_dir: str | None) -> list[Path]:
    from huggingface_hub import try_to_load_from_cache

    found = []
    repository, _, file = source.get("hf_hub", "").rpartition("/")
    if repository:
        stem = [file] if file else ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
        stem = [str(Path(s).with_suffix(".safetensors")) for s in stem] + stem
        hits = [try_to_load_from_cache(repository, name, cache_dir=cache_dir) for name in dict.fromkeys(stem)]
        found += [Path(hit) for hit in hits if isinstance(hit, str)]
    if source.get("url"):
        folder = Path(cache_dir) if cache_dir else Path.home() / ".cache" / "clip"
        found.append(folder / Path(source["url"]).name)
    return found
