"""What a prior learns beside itself: a small change of it that fits the renders, removed without a trace.

The networks' adapter is LoRA (Hu et al. 2021, arXiv 2106.09685): to the output W x of chosen linear layers it adds
B A x, with A [r n] normal and B [m r] zero at first, so that it starts as the prior itself. It needs no package and
changes no module: the layers are hooked while the adapter predicts, and only then, so a prior that outlives its run
(or a run that ends in an error) keeps nothing of it. Where a layer runs in half precision, A and B stay in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dg.types import Condition

Noise = Callable[[Tensor, Tensor, Condition], Tensor]
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "qkv", "out")  # how the networks here name attention's projections


def attention_layers(net: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers of a network's attention by their full names.

    Raises:
        ValueError: it has none.
    """
    found = {
        name: layer
        for name, layer in net.named_modules()
        if isinstance(layer, nn.Linear) and f".{name}".endswith(tuple(f".{end}" for end in ATTENTION))
    }
    if not found:
        raise ValueError(f"{type(net).__name__} has no linear layers named {', '.join(ATTENTION)} to adapt")
    return found


class LowRankAdapter(nn.Module):
    """LoRA on the attention of a frozen network.

    Args:
        net: the network; it is not changed.
        noise: (z_t, t, cond) -> conditional noise prediction by that network, differentiable (no `torch.no_grad`, no
            CUDA graph).
        draw: of the initial A, on the CPU.
        rank: r.
        time_embedding: name of the module that embeds t. Given one, a two-layer network of the camera's pose is added
            to its output: for priors whose condition does not tell the camera (ProlificDreamer, section 3.2).
    """

    lr = 1e-4  # of Adam, as in ProlificDreamer

    def __init__(
        self, net: nn.Module, noise: Noise, draw: torch.Generator, rank: int, time_embedding: str | None = None
    ) -> None:
        super().__init__()
        self._noise, self._layers = noise, attention_layers(net)
        where = next(net.parameters()).device
        down = [torch.randn(rank, x.in_features, generator=draw) / x.in_features**0.5 for x in self._layers.values()]
        self.down = nn.ParameterList(nn.Parameter(a.to(where)) for a in down)
        self.up = nn.ParameterList(nn.Parameter(torch.zeros(x.out_features, rank)) for x in self._layers.values())
        self._embedding: tuple[nn.Module, ...] = ()  # in a tuple, so that it does not become a part of this module
        if time_embedding is not None:
            self._embedding = (net.get_submodule(time_embedding),)
            self.camera = CameraEmbedding(_width(self._embedding[0]), draw)
        self.to(where)

    def predict(self, z_t: Float[Tensor, "B C h w"], t: Int[Tensor, B], cond: Condition) -> Float[Tensor, "B C h w"]:
        """The adapted network's conditional noise prediction."""
        with self._applied(cond):
            return self._noise(z_t, t, cond)

    @contextmanager
    def _applied(self, cond: Condition) -> Iterator[None]:
        with ExitStack() as stack:
            for layer, down, up in zip(self._layers.values(), self.down, self.up, strict=True):
                stack.callback(layer.register_forward_hook(_low_rank(down, up)).remove)
            for module in self._embedding:
                stack.callback(module.register_forward_hook(self._told(cond)).remove)
            yield

    def _told(self, cond: Condition) -> Callable[..., Tensor]:
        return lambda module, inputs, output: output + self.camera(cond.cameras.c2w.to(output.device)).to(output.dtype)


def _low_rank(down: Tensor, up: Tensor) -> Callable[..., Tensor]:
    def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        return output + (inputs[0].to(down.dtype) @ down.T @ up.T).to(output.dtype)

    return hook


def _width(embedding: nn.Module) -> int:
    """Of what a diffusers TimestepEmbedding answers."""
    return [layer for layer in embedding.modules() if isinstance(layer, nn.Linear)][-1].out_features


class CameraEmbedding(nn.Module):
    """Twelve numbers of a camera-to-world matrix to the width of a time embedding; zero at first."""

    def __init__(self, width: int, draw: torch.Generator, hidden: int = 64) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(12, hidden), nn.Linear(hidden, width)
        with torch.no_grad():
            self.into.weight.copy_(torch.randn(hidden, 12, generator=draw) / 12**0.5)
            for zero in (self.into.bias, self.out.weight, self.out.bias):
                zero.zero_()

    def forward(self, c2w: Float[Tensor, "B 4 4"]) -> Float[Tensor, "B W"]:
        return self.out(nn.functional.silu(self.into(c2w[:, :3].flatten(1))))
