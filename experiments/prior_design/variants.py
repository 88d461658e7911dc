"""The designs that are compared. Each is the shipped one with one thing changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from dg.priors.mini_net import MiniConfig, MiniNet
from experiments.prior_design.nets import ConcatNet, LatentNet, PoseNet, ViewsNet
from experiments.prior_design.unet import UNet

SHIPPED = MiniConfig()
CHANNELS_PER_PATCH = 3 * SHIPPED.patch**2


@dataclass(frozen=True)
class Variant:
    """One design.

    Args:
        make: the network, with `MiniNet`'s interface.
        shift: of the noise schedule's s / a.
        epsilon_loss: all errors of the noise weigh the same, instead of all errors of the preconditioned output.
        group: targets of a reference that are denoised at once; they share t.
        latent: latent channels of an autoencoder that is trained first; 0 works on pixels.
        level: s / a of the space that is noised, over s / a of pixels, at which as much of a picture is left. A code of
            k instead of n numbers that keeps a picture's energy has sqrt(k / n) of the noise per unit of signal.
    """

    name: str
    about: str
    config: MiniConfig = SHIPPED
    make: Callable[[MiniConfig], nn.Module] = MiniNet
    shift: float = 2.0
    epsilon_loss: bool = False
    group: int = 1
    latent: int = 0
    level: float = 1.0

    def build(self) -> nn.Module:
        return self.make(self.config)


LATENT_LEVEL = (LatentNet.channels / CHANNELS_PER_PATCH) ** 0.5

VARIANTS = {
    v.name: v
    for v in (
        Variant("base", "as shipped: patches of 4, depth 8, width 320, reference's keys and values, rays, shift 2"),
        Variant("unet", "UNet of 64 to 256 channels, attention at 16 and 8 px, reference concatenated", make=UNet),
        Variant("patch8", "patches of 8, width 640: equal FLOPs", MiniConfig(patch=8, width=640, heads=10)),
        Variant("concat", "reference only as more channels beside the noisy target", make=ConcatNet),
        Variant("pose4", "no rays, no elevations, no lens: Zero123's four numbers alone", make=PoseNet),
        Variant("shift1", "noise schedule with shift 1", shift=1.0),
        Variant("shift4", "noise schedule with shift 4", shift=4.0),
        Variant("weighting", "plain epsilon loss", epsilon_loss=True),
        Variant(
            "latent", "16 x 16 x 8 latents of an autoencoder trained first", make=LatentNet,
            shift=2.0 * LATENT_LEVEL, latent=LatentNet.channels, level=LATENT_LEVEL,
        ),
        Variant("four_views", "four targets at once, attending to each other", make=ViewsNet, group=ViewsNet.group),
        Variant("deep", "depth 12, width 256", MiniConfig(depth=12, width=256, heads=4)),
        Variant("wide", "depth 5, width 400", MiniConfig(depth=5, width=400, heads=5)),
    )
}  # fmt: skip
