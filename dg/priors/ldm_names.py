"""Where each tensor of a diffusers or transformers network lies in an original ("LDM") checkpoint.

One pure function per kind of network, from the new name to an `Origin`. The names are facts of the public files:
`model.diffusion_model.*` (UNet), `first_stage_model.*` (autoencoder), `cond_stage_model.*` (CLIP). What a text or
vision tower is called there depends on who wrote it: transformers (Stable Diffusion 1), OpenCLIP (2), OpenAI's CLIP
(Zero123).
Both directions follow from the same map, so there and back is the identity.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

UNET, VAE, TEXT_1 = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer.text_model."
TEXT_2, VISION = "cond_stage_model.model.", "cond_stage_model.model.visual."
CC_PROJECTION = "cc_projection."

_UNET_PARTS = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_UNET_BLOCK = re.compile(r"(down|mid|up)_block(?:s\.(\d+))?\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")
_UNET_ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_CLIP_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
_TEXT_ENDS = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}
_VISION_ENDS = {
    "embeddings.class_embedding": "class_embedding",
    "embeddings.patch_embedding.weight": "conv1.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "pre_layrnorm.weight": "ln_pre.weight",
    "pre_layrnorm.bias": "ln_pre.bias",
    "post_layernorm.weight": "ln_post.weight",
    "post_layernorm.bias": "ln_post.bias",
}


@dataclass(frozen=True)
class Origin:
    """Attributes:
    name: of the tensor in the original file.
    third: which third of its rows (attention's fused query, key and value), if not the whole.
    turned: stored transposed.
    convolution: a linear layer stored as a 1x1 convolution [out in 1 1].
    """

    name: str
    third: int | None = None
    turned: bool = False
    convolution: bool = False

    def stored_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """What the file's tensor must look like for a network's tensor of `shape`."""
        shape = tuple(shape)
        if self.third is not None:
            shape = (3 * shape[0], *shape[1:])
        if self.turned:
            shape = shape[::-1]
        return (*shape, 1, 1) if self.convolution else shape

    def take(self, stored: Tensor) -> Tensor:
        if self.convolution and stored.ndim == 4:
            stored = stored[:, :, 0, 0]
        stored = stored.T if self.turned else stored
        return stored if self.third is None else stored.chunk(3)[self.third]


Names = Callable[[str], Origin | None]  # None: the tensor is no parameter, and in no file


def originals(state: Mapping[str, Tensor], names: Names) -> dict[str, Tensor]:
    """A network's state dict under its original names; the inverse of `networks`."""
    thirds: dict[str, dict[int, Tensor]] = {}
    out = {}
    for key, value in state.items():
        origin = names(key)
        if origin is None:
            continue
        value = value.T if origin.turned else value
        value = value[:, :, None, None] if origin.convolution else value
        if origin.third is None:
            out[origin.name] = value.contiguous()
        else:
            thirds.setdefault(origin.name, {})[origin.third] = value
    return out | {name: torch.cat([parts[i] for i in range(3)]) for name, parts in thirds.items()}


def networks(stored: Mapping[str, Tensor], keys: Sequence[str], names: Names) -> dict[str, Tensor]:
    """The state dict with `keys` from tensors under their original names; raises KeyError where one is missing."""
    found = {key: names(key) for key in keys}
    return {key: origin.take(stored[origin.name]) for key, origin in found.items() if origin is not None}


def unet_names(layers_per_block: int, attends: Sequence[bool]) -> Names:
    """UNet2DConditionModel's.

    Args:
        attends: for each resolution, finest first, whether its blocks have attention.
    """

    def name(key: str) -> Origin:
        for end, old in _UNET_ENDS.items():
            if key.startswith(end + "."):
                return Origin(UNET + old + key[len(end) :])
        found = _UNET_BLOCK.fullmatch(key)
        if found is None:
            raise KeyError(key)
        where, block, kind, index, rest = found[1], int(found[2] or 0), found[3], int(found[4]), found[5]
        if kind == "resnets":
            part, _, leaf = rest.rpartition(".")
            rest = f"{_UNET_PARTS[part]}.{leaf}"
        if where == "mid":
            return Origin(f"{UNET}middle_block.{2 * index if kind == 'resnets' else 1}.{rest}")
        if where == "down":
            first = 1 + block * (layers_per_block + 1)
            if kind == "downsamplers":
                return Origin(f"{UNET}input_blocks.{first + layers_per_block}.0.{rest.replace('conv.', 'op.')}")
            return Origin(f"{UNET}input_blocks.{first + index}.{int(kind == 'attentions')}.{rest}")
        first = block * (layers_per_block + 1)
        if kind == "upsamplers":
            return Origin(
                f"{UNET}output_blocks.{first + layers_per_block}.{1 + attends[len(attends) - 1 - block]}.{rest}"
            )
        return Origin(f"{UNET}output_blocks.{first + index}.{int(kind == 'attentions')}.{rest}")

    return name


def vae_names(levels: int) -> Names:
    """AutoencoderKL's, for `levels` resolutions. The decoder's are counted from the other end."""

    def name(key: str) -> Origin:
        if key.startswith(("quant_conv.", "post_quant_conv.")):
            return Origin(VAE + key)
        side, _, rest = key.partition(".")
        found = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(resnets|downsamplers|upsamplers)\.(\d+)\.(.+)", rest)
        middle = re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)\.(weight|bias)", rest)
        if found is not None:
            where, block, kind, index, rest = found[1], int(found[2]), found[3], found[4], found[5]
            level = block if where == "down" else levels - 1 - block
            inner = f"block.{index}" if kind == "resnets" else kind.removesuffix("rs")
            rest = rest.replace("conv_shortcut", "nin_shortcut")
            return Origin(f"{VAE}{side}.{where}.{level}.{inner}.{rest}")
        if middle is not None:
            kind, index, part, leaf = middle.groups()
            if kind == "resnets":
                return Origin(f"{VAE}{side}.mid.block_{int(index) + 1}.{part}.{leaf}")
            weight = leaf == "weight" and part != "group_norm"
            return Origin(f"{VAE}{side}.mid.attn_1.{_VAE_ATTENTION[part]}.{leaf}", convolution=weight)
        return Origin(f"{VAE}{side}.{rest.replace('conv_norm_out', 'norm_out')}")

    return name


def text_names_transformers(key: str) -> Origin | None:
    """CLIPTextModel's in Stable Diffusion 1: its own, with or without the prefix that transformers 5 dropped."""
    plain = key.removeprefix("text_model.")
    return None if plain.endswith("position_ids") else Origin(TEXT_1 + plain)


def text_names_openclip(key: str) -> Origin | None:
    """CLIPTextModel's in Stable Diffusion 2, where OpenCLIP wrote it."""
    plain = key.removeprefix("text_model.")
    if plain.endswith("position_ids"):
        return None
    if plain in _TEXT_ENDS:
        return Origin(TEXT_2 + _TEXT_ENDS[plain])
    return _clip_layer(plain, TEXT_2)


def vision_names_openai(key: str) -> Origin | None:
    """CLIPVisionModelWithProjection's in Zero123, where OpenAI's CLIP wrote it."""
    if key == "visual_projection.weight":
        return Origin(VISION + "proj", turned=True)
    plain = key.removeprefix("vision_model.")
    if plain.endswith("position_ids"):
        return None
    if plain in _VISION_ENDS:
        return Origin(VISION + _VISION_ENDS[plain])
    return _clip_layer(plain, VISION)


def _clip_layer(plain: str, prefix: str) -> Origin:
    found = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", plain)
    if found is None:
        raise KeyError(plain)
    layer, part, leaf = found.groups()
    block = f"{prefix}transformer.resblocks.{layer}."
    if part.endswith(("q_proj", "k_proj", "v_proj")):
        return Origin(f"{block}attn.in_proj_{leaf}", third="qkv".index(part[-6]))
    return Origin(f"{block}{_CLIP_LAYER[part]}.{leaf}")


_EMA_WORDS = (
    *("in_layers", "out_layers", "emb_layers", "skip_connection", "transformer_blocks", "time_embed", "proj_in"),
    *("proj_out", "attn1", "attn2", "norm1", "norm2", "norm3", "to_out", "to_q", "to_k", "to_v", "weight", "bias"),
    *("proj", "norm", "conv", "out", "net", "ff", "op", r"\d"),
)
_EMA_WORD = re.compile("|".join(_EMA_WORDS))


def averaged_name(key: str) -> str | None:
    """The UNet's name behind one of `model_ema.*`, which were stored without dots; None for counters.

    Blocks have up to two digits and their modules one; everything else that is counted has one.
    """
    found = re.fullmatch(r"model_ema\.diffusion_model(input_blocks|output_blocks|middle_block)?(\d*)(.*)", key)
    if found is None:
        return None
    group, digits, rest = found.groups()
    head = [] if group is None else [group, *((digits[:-1], digits[-1]) if group != "middle_block" else digits)]
    words = _EMA_WORD.findall(rest)
    if "".join(words) != rest:
        return None
    return UNET + ".".join([*head, *words])
