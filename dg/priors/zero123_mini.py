"""The embedded prior: a small view-conditioned diffusion model that works in pixels, trained by this project.

It predicts what the object of the reference picture looks like from another camera, as Zero123 does, but at 64 pixels
and with 12 million parameters. Three things differ from Zero123 besides size: the reference goes in with its alpha,
composited on mid-grey (what lies behind the *target* is told separately, so any background works and one encoding of
the reference serves all); every patch knows its ray; and the reference's absolute elevation is told.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dg.core import camera
from dg.priors import mini_openvino
from dg.priors.adapter import LowRankAdapter
from dg.priors.mini_inputs import rays, reference_picture, reference_vector, resize, target_vector
from dg.priors.mini_net import KeysValues, MiniConfig, MiniNet
from dg.priors.nearest import chosen, nearest_reference
from dg.types import Cameras, Condition, Prediction, Reference

WEIGHTS = Path(__file__).parent / "weights" / "zero123_mini.safetensors"
FORMAT = "dreamgaussian-lab/zero123_mini/1"


def shifted_cosine(steps: int = 1000, shift: float = 2.0) -> Float[Tensor, "T"]:
    """alpha_bar of the cosine schedule (Nichol & Dhariwal 2021) with s / a times `shift` (Hoogeboom et al. 2023).

    Smooth pictures of objects survive much noise: at 64 pixels and shift 2 the middle of the schedule (s / a = 2) hides
    detail and leaves the silhouette. Largest value .99999, smallest 1e-4 (s / a = 100).
    """
    u = (torch.arange(steps, dtype=torch.float64) + 1) / steps
    ratio = shift * torch.tan(u * (math.pi / 2) * 0.9999)
    return torch.maximum(1 / (1 + ratio.square()), 1e-4 * (2 - u)).clamp_max(0.99999).float()


@dataclass(frozen=True)
class MiniCondition:
    """`Condition.extra`: everything that `predict` needs besides x_t and t."""

    rays: Float[Tensor, "B N 6"]
    vector: Float[Tensor, "B d"]
    reference: KeysValues
    vector_dropped: Float[Tensor, "B d"] | None = None
    reference_dropped: KeysValues | None = None


class Zero123Mini:
    """Args:
    checkpoint: a file written by `save`; None is the one that comes with the project.
    unconditional: also predict without the picture, for classifier-free guidance; doubles the cost.
    device: where the network runs.
    backend: what runs it on a CPU: torch, openvino, openvino_bf16, or auto (`dg.priors.mini_openvino`).

    Raises:
        ValueError, ImportError: an unknown backend, or one that this machine lacks.
    """

    views_per_sample = 1

    def __init__(
        self,
        checkpoint: str | Path | None = None,
        unconditional: bool = False,
        device: str | torch.device = "cpu",
        backend: str = "torch",
    ) -> None:
        self.backend = mini_openvino.resolve(backend)
        self.net, self.metadata = load(checkpoint or WEIGHTS, device)
        self._fast: mini_openvino.OpenVinoNet | None = None
        if self.backend != "torch":
            self._fast = mini_openvino.OpenVinoNet(self.net, "bf16" if self.backend.endswith("bf16") else "f32")
        self.image_size = self.net.config.image_size
        self.unconditional = unconditional
        self.alpha_bar = shifted_cosine(int(self.metadata["steps"]), float(self.metadata["shift"])).to(device)
        self._kept: tuple[Reference, KeysValues, KeysValues | None] | None = None

    def to(self, device: str | torch.device) -> Zero123Mini:
        self.net.to(device)
        self.alpha_bar = self.alpha_bar.to(device)
        self._kept = None
        return self

    @property
    def device(self) -> torch.device:
        return self.alpha_bar.device

    @torch.no_grad()
    def condition(
        self, reference: Reference | None, prompt: str | None, cameras: Cameras, background: Float[Tensor, "B 3"]
    ) -> Condition:
        """`prompt` is ignored. Each view is told of the reference nearest in azimuth.

        Raises:
            ValueError: there is no reference picture.
        """
        if reference is None:
            raise ValueError("zero123_mini needs a picture (input=FILE.png); for a prompt alone use a text prior.")
        kept, dropped = self._encode_reference(reference)
        index = nearest_reference(cameras, reference.cameras)
        if len(reference.cameras) > 1:
            kept, dropped = _selected(kept, index), _selected(dropped, index)
        beside, where = chosen(reference.cameras, index).to(self.device), cameras.to(self.device)
        azimuth0 = camera.spherical(beside)[1]
        behind = background.to(self.device).expand(len(cameras), 3)
        flags = torch.zeros(len(cameras), device=self.device)
        extra = MiniCondition(
            rays(where, azimuth0, self.net.config.grid), target_vector(where, beside, behind, flags), kept
        )
        if dropped is not None:
            vector = target_vector(where, beside, behind, flags + 1)
            extra = replace(extra, vector_dropped=vector, reference_dropped=dropped)
        return Condition(cameras, background, extra)

    def _encode_reference(self, reference: Reference) -> tuple[KeysValues, KeysValues | None]:
        """Keys and values of the references, computed once as long as the same pictures are asked about."""
        if self._kept is not None and _same(self._kept[0], reference):
            return self._kept[1:]
        picture = reference_picture(reference, self.image_size, self.device)
        views = reference.cameras.to(self.device)
        ray = rays(views, camera.spherical(views)[1], self.net.config.grid)
        none = torch.zeros(len(views), device=self.device)
        kept = self.net.encode(picture, ray, reference_vector(views, none))
        dropped = None
        if self.unconditional:
            dropped = self.net.encode(torch.zeros_like(picture), ray, reference_vector(views, none + 1))
        self._kept = (reference, kept, dropped)
        return kept, dropped

    def encode(self, rgb: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 h w"]:
        return 2 * resize(rgb, self.image_size) - 1

    def decode(self, z: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B 3 h w"]:
        return (z / 2 + 0.5).clamp(0, 1)

    @torch.no_grad()
    def predict(self, z_t: Float[Tensor, "B 3 h w"], t: Int[Tensor, "B"], cond: Condition) -> Prediction:
        extra: MiniCondition = cond.extra
        noise = self._noise(z_t, t, extra.rays, extra.vector, extra.reference)
        if extra.reference_dropped is None:
            return Prediction(noise)
        return Prediction(noise, self._noise(z_t, t, extra.rays, extra.vector_dropped, extra.reference_dropped))

    def trainable_adapter(self, draw: torch.Generator, rank: int) -> LowRankAdapter:
        """Of the torch network, whatever `backend` is."""

        def told(z_t: Tensor, t: Tensor, cond: Condition) -> Tensor:
            extra: MiniCondition = cond.extra
            return self._noise(z_t, t, extra.rays, extra.vector, extra.reference, fast=False)

        return LowRankAdapter(self.net, told, draw, rank)

    def _noise(
        self, z_t: Tensor, t: Tensor, ray: Tensor, vector: Tensor, kept: KeysValues, *, fast: bool = True
    ) -> Tensor:
        alpha_bar = self.alpha_bar[t].expand(len(z_t))
        asked = (z_t.float(), t.expand(len(z_t)).float(), alpha_bar, ray, vector, kept)
        fast = fast and self._fast is not None and z_t.device.type == "cpu"
        x0 = self._fast(*asked) if fast else self.net(*asked)[1]
        if not torch.is_grad_enabled():  # an adapter learns from what is beyond, too
            x0 = x0.clamp(-1, 1)
        a2 = alpha_bar.reshape(-1, 1, 1, 1)
        return ((z_t - a2.sqrt() * x0) / (1 - a2).sqrt()).to(z_t.dtype)


def _selected(kept: KeysValues | None, index: Int[Tensor, "B"]) -> KeysValues | None:
    return None if kept is None else [(k[index.to(k.device)], v[index.to(v.device)]) for k, v in kept]


def _same(a: Reference, b: Reference) -> bool:
    if a is b:
        return True
    pairs = ((a.rgba, b.rgba), (a.cameras.c2w, b.cameras.c2w), (a.cameras.K, b.cameras.K))
    return all(x.shape == y.shape and x.device == y.device and torch.equal(x, y) for x, y in pairs)


def save(net: MiniNet, path: str | Path, steps: int = 1000, shift: float = 2.0, **about: object) -> None:
    """Writes weights as float16 with everything needed to rebuild network and schedule in the header."""
    from safetensors.torch import save_file

    header = {
        "format": FORMAT,
        "config": json.dumps(net.config.__dict__),
        "steps": str(steps),
        "shift": str(shift),
        **{k: str(v) for k, v in about.items()},
    }
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.detach().half().cpu().contiguous() for k, v in net.state_dict().items()}, path, header)


def load(path: str | Path, device: torch.device | str = "cpu") -> tuple[MiniNet, dict[str, str]]:
    """Reads what `save` wrote, as float32 in evaluation mode.

    Raises:
        FileNotFoundError, ValueError: no such file; a file of another kind.
    """
    from safetensors import safe_open

    if not Path(path).is_file():
        raise FileNotFoundError(
            f"No weights of zero123_mini at {path}; train them: python train.py experiment=train_zero123_mini"
        )
    with safe_open(str(path), framework="pt") as file:
        header = file.metadata() or {}
        if header.get("format") != FORMAT:
            raise ValueError(f"{path} is not a zero123_mini checkpoint (format {header.get('format')!r}).")
        net = MiniNet(MiniConfig(**json.loads(header["config"])))
        net.load_state_dict({k: file.get_tensor(k).float() for k in file.keys()})  # noqa: SIM118 (no dict)
    return net.to(device).eval().requires_grad_(False), header
