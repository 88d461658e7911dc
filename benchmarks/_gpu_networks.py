"""The prior's networks: the UNet with guidance and the autoencoder, each in every way to run them."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks._gpu_floor import Bench, Work, operations, tensor_bytes, weight_bytes
from dg.priors import graphs
from dg.priors.fused_norms import fuse_group_norms
from dg.priors.graphs import accelerated
from dg.priors.zero123 import Zero123

FUSED = "fused norms graph"  # channels-last, group norms by kernels that know this order: as the priors run
WAYS = ("eager", "graph", "channels-last graph", "compiled", FUSED)  # the last one leaves no way back


@dataclass(frozen=True)
class Floors:
    """The least work of one view."""

    unet: Work
    encode: Work  # and its backward pass
    forward: Work  # of the encoder alone
    decode: Work


def load(folder: Path, device: str, image_size: int) -> Zero123:
    """Group norms are torch's until `run_as` replaces them."""
    before, graphs.FUSED_NORMS = graphs.FUSED_NORMS, False
    try:
        return Zero123(checkpoint=str(folder), device=device, image_size=image_size, compile="none")
    finally:
        graphs.FUSED_NORMS = before


def latent(prior: Zero123, views: int) -> Tensor:
    side = prior.image_size // 8
    return torch.randn(views, 4, side, side, device=prior.device)


def unet_inputs(prior: Zero123, views: int) -> tuple[Tensor, ...]:
    """Noisy latents, timesteps, the reference's latents and the contexts of `views` views."""
    width = prior.unet.config.cross_attention_dim
    t = torch.full((views,), 500, device=prior.device)
    context = torch.randn(views, 1, width, device=prior.device, dtype=prior.dtype)
    return latent(prior, views), t, latent(prior, views).to(prior.dtype), context


def picture(prior: Zero123, views: int = 1) -> Tensor:
    side = prior.image_size
    return torch.rand(views, 3, side, side, device=prior.device, dtype=prior.dtype)


def floors(prior: Zero123) -> Floors:
    given, seen = unet_inputs(prior, 1), picture(prior).requires_grad_()
    z = latent(prior, 1)
    encoder, decoder = (weight_bytes(m) for m in (prior.vae.encoder, prior.vae.decoder))
    with torch.no_grad():
        unet = operations(lambda: prior._denoise(*given))
        forward, decode = operations(lambda: prior._encode(seen)), operations(lambda: prior._decode(z))
    both = operations(lambda: torch.autograd.grad(prior._encode(seen).sum(), seen))
    return Floors(
        unet=Work(unet, weight_bytes(prior.unet) + tensor_bytes(*given, z, z)),
        encode=Work(both, 2 * encoder + 2 * tensor_bytes(seen)),
        forward=Work(forward, encoder + tensor_bytes(seen)),
        decode=Work(decode, decoder + tensor_bytes(seen)),
    )


def ways(bench: Bench, asked: tuple[str, ...]) -> list[str]:
    """Those of `asked` that the device can do."""
    return [way for way in asked if way == "eager" or bench.device.startswith("cuda")]


def run_as(way: str, function: Callable[..., Tensor], network: Any, device: torch.device) -> Callable[..., Tensor]:
    """`function` of `network`, which is brought into the layout that `way` wants, its group norms replaced by FUSED."""
    last = way in ("channels-last graph", "compiled", FUSED)
    if way == FUSED:
        fuse_group_norms(network)
    if device.type == "cuda":
        network.to(memory_format=torch.channels_last if last else torch.contiguous_format)
    mode = {"eager": "none", "compiled": "full"}.get(way, "graph")
    return accelerated(function, mode, device, way)


def networks(bench: Bench, prior: Zero123, known: Floors, asked: tuple[str, ...]) -> None:
    """The UNet, the encoder with its backward pass, and the decoder."""
    given, seen = unet_inputs(prior, 1), picture(prior).requires_grad_()
    z = latent(prior, 1)
    for way in ways(bench, asked):
        denoise = run_as(way, prior._denoise, prior.unet, prior.device)
        with torch.no_grad():
            bench.part("UNet, guidance", way, lambda f=denoise: f(*given), known.unet, views=1)
        encode = run_as(way, prior._encode, prior.vae, prior.device)
        slope = torch.randn_like(encode(seen))
        both = lambda f=encode, slope=slope: torch.autograd.grad(f(seen), seen, slope)  # noqa: E731
        bench.part("VAE encode, both ways", way, both, known.encode, views=1)
        decode = run_as(way, prior._decode, prior.vae, prior.device)
        with torch.no_grad():
            bench.part("VAE decode", way, lambda f=decode: f(z), known.decode, views=1)
        del denoise, encode, decode
        free()


def batches(bench: Bench, prior: Zero123, known: Floors, counts: tuple[int, ...]) -> None:
    """One UNet batch, and one encoder batch with its backward pass, for several objects."""
    way = ways(bench, ("eager", FUSED))[-1]
    for n in counts:
        given, seen = unet_inputs(prior, n), picture(prior, n).requires_grad_()
        denoise = run_as(way, prior._denoise, prior.unet, prior.device)
        encode = run_as(way, prior._encode, prior.vae, prior.device)
        slope = torch.randn_like(encode(seen))

        def step(
            f: Any = denoise, e: Any = encode, given: Any = given, seen: Tensor = seen, slope: Tensor = slope
        ) -> None:
            with torch.no_grad():
                f(*given)
            torch.autograd.grad(e(seen), seen, slope)

        work = Work(n * (known.unet.flops + known.encode.flops), known.unet.bytes + known.encode.bytes)
        bench.part("prior's share of a step", way, step, work, objects=n)
        del denoise, encode, step
        free()


def free() -> None:
    """Lets recorded graphs go before the next ones take memory."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
