"""Networks whose group norms run by `dg.priors.group_norm`, together with the SiLU behind them where there is one.

In diffusers' residual blocks what stands around the norms is spared, too: a bias and the time's contribution, which are
added between a convolution and a norm, become the norm's `shift`, and nothing is divided by 1. Names and tensors of the
networks stay as they are; only, weights have to be loaded before (sums of biases are computed once).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from dg.priors.group_norm import group_norm


class FusedGroupNorm(nn.GroupNorm):
    """`norm` (whose weights it takes over), then SiLU where asked. Its result is in channels-last order on CUDA."""

    def __init__(self, norm: nn.GroupNorm, silu: bool) -> None:
        super().__init__(norm.num_groups, norm.num_channels, norm.eps, norm.affine, device="meta")
        self.weight, self.bias, self.silu = norm.weight, norm.bias, silu
        self.train(norm.training)

    def forward(self, input: Tensor, shift: Tensor | None = None) -> Tensor:
        """Of input + shift, where each channel [C] or [N C] is given one."""
        given = self.num_groups, self.weight, self.bias, self.eps
        return group_norm(input, *given, silu=self.silu, shift=shift)


class ActivatedLinear(nn.Linear):
    """SiLU, then `layer` (whose weights it takes over), plus a constant."""

    def __init__(self, layer: nn.Linear, constant: Tensor | None) -> None:
        super().__init__(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        biases = [b for b in (layer.bias, constant) if b is not None]
        self.register_buffer("both", sum(biases).detach() if biases else None, persistent=False)
        self.train(layer.training)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(F.silu(input), self.weight, self.both)


class UnbiasedConv2d(nn.Conv2d):
    """`layer` (whose weights it takes over) without its bias, which somebody else adds."""

    def __init__(self, layer: nn.Conv2d) -> None:
        sizes = layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding
        more = layer.dilation, layer.groups, layer.bias is not None, layer.padding_mode
        super().__init__(*sizes, *more, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        self.train(layer.training)

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, self.weight, None)


def fuse_group_norms(network: nn.Module) -> int:
    """Replaces the group norms of a UNet or autoencoder whose use is known; how many.

    They are: diffusers' residual blocks, last norms, transformers and attentions, and a norm before a SiLU in a
    Sequential. Whatever is built differently (another activation, scale and shift by the time) is left alone, and so
    is what has been replaced before.
    """
    from diffusers.models.attention_processor import Attention
    from diffusers.models.resnet import ResnetBlock2D
    from diffusers.models.transformers.transformer_2d import Transformer2DModel

    from dg.priors.multiview_blocks import JointTransformer

    count = 0
    for module in list(network.modules()):
        if type(module) is ResnetBlock2D:
            count += _residual(module)
        elif isinstance(module, nn.Sequential):
            count += _sequence(module)
        elif isinstance(module, Transformer2DModel):
            count += _transformer(module)
        elif isinstance(module, JointTransformer):
            count += _alone(module, "norm")
        elif isinstance(module, Attention):
            count += _alone(module, "group_norm")
        elif _plain(getattr(module, "conv_norm_out", None)) and _is_silu(getattr(module, "conv_act", None)):
            module.conv_norm_out, module.conv_act = FusedGroupNorm(module.conv_norm_out, True), nn.Identity()
            count += 1
    return count


def _plain(norm: Any) -> bool:
    return type(norm) is nn.GroupNorm and norm.affine


def _is_silu(module: Any) -> bool:
    return type(module) is nn.SiLU


def _alone(module: nn.Module, name: str) -> int:
    """A norm that no activation follows."""
    if not _plain(norm := getattr(module, name, None)):
        return 0
    setattr(module, name, FusedGroupNorm(norm, silu=False))
    return 1


def _residual(block: Any) -> int:
    """Its `nonlinearity` follows both norms and comes before the time's projection, and nowhere else.

    "group" is what the autoencoder's decoder calls a block without time.
    """
    timed, kind = block.time_emb_proj is not None, block.time_embedding_norm
    known = (kind == "default" or (kind == "group" and not timed)) and _is_silu(block.nonlinearity)
    moves = block.up or block.down or block.skip_time_act or block.output_scale_factor != 1
    if moves or not (known and _plain(block.norm1) and _plain(block.norm2) and type(block.conv1) is nn.Conv2d):
        return 0
    block.norm1, block.norm2 = FusedGroupNorm(block.norm1, True), FusedGroupNorm(block.norm2, True)
    block.nonlinearity, block.conv1 = nn.Identity(), UnbiasedConv2d(block.conv1)
    if timed:
        block.time_emb_proj = ActivatedLinear(block.time_emb_proj, block.conv1.bias)
    block.forward = partial(_residual_answer, block)
    return 2


def _residual_answer(block: Any, input_tensor: Tensor, temb: Tensor | None = None, *_: Any, **__: Any) -> Tensor:
    """ResnetBlock2D's: what the first convolution and the time add to each channel, the second norm takes care of."""
    hidden = block.conv1(block.norm1(input_tensor))
    shift = block.conv1.bias if block.time_emb_proj is None else block.time_emb_proj(temb)
    hidden = block.conv2(block.dropout(block.norm2(hidden, shift)))
    return (input_tensor if block.conv_shortcut is None else block.conv_shortcut(input_tensor)) + hidden


def _sequence(layers: nn.Sequential) -> int:
    count = 0
    for i in range(len(layers) - 1):
        if _plain(layers[i]) and _is_silu(layers[i + 1]):
            layers[i], layers[i + 1] = FusedGroupNorm(layers[i], True), nn.Identity()
            count += 1
    return count


def _transformer(module: Any) -> int:
    """Pixels in channels-last order are tokens already; nor are tokens copied when they become a picture again."""
    count = _alone(module, "norm")
    if count and hasattr(module, "_get_output_for_continuous_inputs"):
        module._get_output_for_continuous_inputs = partial(_tokens_as_picture, module)
    return count


def _tokens_as_picture(
    module: Any, hidden_states: Tensor, residual: Tensor, batch_size: int, height: int, width: int, inner_dim: int
) -> Tensor:
    """Transformer2DModel's last step: projection, and the input added, without its copy to the usual order."""
    tokens = module.proj_out(hidden_states) if module.use_linear_projection else hidden_states
    picture = tokens.reshape(batch_size, height, width, -1).permute(0, 3, 1, 2)
    return residual + (picture if module.use_linear_projection else module.proj_out(picture))
