"""The networks of an original single-file checkpoint: their sizes read off the tensors' shapes, and their loading.

Such a file has no config.json. Two numbers leave no trace in shapes: attention heads (8 in each block where CLIP-L or
Zero123 conditions, 64 channels each where OpenCLIP does; 64 channels each in CLIP) and the 32 groups of every norm.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dg.priors import ldm_names as ldm
from dg.priors.checkpoint import frozen
from dg.priors.ldm_names import Names, Origin

SCALING_FACTOR = 0.18215  # of the latents, in all checkpoints of this family
CLIP_HEAD = 64  # channels of each head of every CLIP that these checkpoints use
SHOWN = 5


@dataclass(frozen=True)
class Part:
    """One network of a file: how it is made, and where its tensors lie."""

    make: Callable[[], nn.Module]
    names: Names


class Shapes:
    """Shapes by name, that explain what is missing."""

    def __init__(self, path: Path, state: Mapping[str, Tensor]) -> None:
        self.path, self._of = path, {name: tuple(value.shape) for name, value in state.items()}

    def __contains__(self, name: str) -> bool:
        return name in self._of

    def __getitem__(self, name: str) -> tuple[int, ...]:
        """
        Raises:
            ValueError: there is no such tensor.
        """
        if name not in self._of:
            begins = sorted({n.split(".")[0] for n in self._of})[:8]
            raise ValueError(
                f"{self.path}: lacks {name}; its tensors' names begin with {', '.join(begins) or 'nothing'}"
            )
        return self._of[name]

    def count(self, pattern: str) -> int:
        """How many different numbers stand where `pattern` has its group."""
        return len({m[1] for n in self._of if (m := re.match(pattern, n))})


def unet_part(shapes: Shapes, *, sample_size: int, heads: int | None) -> Part:
    """
    Args:
        heads: of every attention; None is 64 channels for each head.
    """
    from diffusers import UNet2DConditionModel

    base = ldm.UNET
    inputs = shapes[f"{base}input_blocks.0.0.weight"][1]
    levels: list[list[int]] = [[]]  # the residual blocks of each resolution
    for block in range(1, shapes.count(rf"{re.escape(base)}input_blocks\.(\d+)\.")):
        if f"{base}input_blocks.{block}.0.op.weight" in shapes:
            levels.append([])
        else:
            levels[-1].append(block)
    channels = [shapes[f"{base}input_blocks.{blocks[0]}.0.out_layers.3.weight"][0] for blocks in levels if blocks]
    attends = [f"{base}input_blocks.{blocks[0]}.1.proj_in.weight" in shapes for blocks in levels if blocks]
    if not any(attends):
        raise ValueError(f"{shapes.path}: its UNet has no attention to a condition; not of this family")
    attention = f"{base}input_blocks.{levels[attends.index(True)][0]}.1."
    config = {
        "sample_size": sample_size,
        "in_channels": inputs,
        "out_channels": shapes[f"{base}out.2.weight"][0],
        "block_out_channels": tuple(channels),
        "layers_per_block": len(levels[0]),
        "down_block_types": tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends),
        "up_block_types": tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)),
        "cross_attention_dim": shapes[f"{attention}transformer_blocks.0.attn2.to_k.weight"][1],
        "attention_head_dim": heads or tuple(max(1, c // 64) for c in channels),  # diffusers' name for their number
        "use_linear_projection": len(shapes[f"{attention}proj_in.weight"]) == 2,
    }
    return Part(lambda: UNet2DConditionModel(**config), ldm.unet_names(len(levels[0]), attends))


def vae_part(shapes: Shapes, *, sample_size: int) -> Part:
    from diffusers import AutoencoderKL

    base = f"{ldm.VAE}encoder."
    levels = shapes.count(rf"{re.escape(base)}down\.(\d+)\.")
    config = {
        "block_out_channels": tuple(shapes[f"{base}down.{i}.block.0.conv2.weight"][0] for i in range(levels)),
        "layers_per_block": shapes.count(rf"{re.escape(base)}down\.0\.block\.(\d+)\."),
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "latent_channels": shapes[f"{ldm.VAE}post_quant_conv.weight"][0],
        "sample_size": sample_size,
        "scaling_factor": SCALING_FACTOR,
    }
    return Part(lambda: AutoencoderKL(**config), ldm.vae_names(levels))


def text_part(shapes: Shapes) -> Part:
    """CLIP's text encoder; of OpenCLIP's the last layer is left out, as Stable Diffusion 2 reads the one before."""
    from transformers import CLIPTextConfig, CLIPTextModel

    first = is_first_generation(shapes)
    base = ldm.TEXT_1 if first else ldm.TEXT_2
    tokens, places, layer, up = (
        (
            "embeddings.token_embedding.weight",
            "embeddings.position_embedding.weight",
            "encoder.layers",
            "mlp.fc1.weight",
        )
        if first
        else ("token_embedding.weight", "positional_embedding", "transformer.resblocks", "mlp.c_fc.weight")
    )
    vocabulary, width = shapes[base + tokens]
    layers = shapes.count(rf"{re.escape(base + layer)}\.(\d+)\.")
    config = {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": shapes[f"{base}{layer}.0.{up}"][0],
        "num_hidden_layers": layers if first else layers - 1,
        "num_attention_heads": max(1, width // CLIP_HEAD),
        "max_position_embeddings": shapes[base + places][0],
        "hidden_act": "quick_gelu" if first else "gelu",
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
    }
    names = ldm.text_names_transformers if first else ldm.text_names_openclip
    return Part(lambda: CLIPTextModel(CLIPTextConfig(**config)), names)


def is_first_generation(shapes: Shapes) -> bool:
    """Whether CLIP-L as transformers writes it conditions (Stable Diffusion 1), not OpenCLIP (2).

    Raises:
        ValueError: neither does.
    """
    if f"{ldm.TEXT_1}final_layer_norm.weight" in shapes:
        return True
    return not shapes[f"{ldm.TEXT_2}ln_final.weight"]


def vision_part(shapes: Shapes) -> Part:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    base = ldm.VISION
    width, _, patch, _ = shapes[f"{base}conv1.weight"]
    grid = round((shapes[f"{base}positional_embedding"][0] - 1) ** 0.5)
    config = {
        "hidden_size": width,
        "intermediate_size": shapes[f"{base}transformer.resblocks.0.mlp.c_fc.weight"][0],
        "num_hidden_layers": shapes.count(rf"{re.escape(base)}transformer\.resblocks\.(\d+)\."),
        "num_attention_heads": max(1, width // CLIP_HEAD),
        "image_size": grid * patch,
        "patch_size": patch,
        "projection_dim": shapes[f"{base}proj"][1],
        "hidden_act": "quick_gelu",
    }
    return Part(lambda: CLIPVisionModelWithProjection(CLIPVisionConfig(**config)), ldm.vision_names_openai)


def projection_part(shapes: Shapes) -> Part:
    """Zero123's linear layer from [image embedding, pose] to the condition."""
    rows, columns = shapes[f"{ldm.CC_PROJECTION}weight"]
    return Part(lambda: nn.Linear(columns, rows), lambda key: Origin(ldm.CC_PROJECTION + key))


def load_parts(
    path: Path, state: Mapping[str, Tensor], parts: Sequence[Part], device: torch.device, dtype: torch.dtype
) -> list[Any]:
    """The networks, frozen, every tensor of them from the file. All are checked before the first one is filled.

    Raises:
        ValueError: tensors are missing or misshapen; lists them.
    """
    with torch.device("meta"):
        empty = [part.make() for part in parts]
    missing, misshapen = [], []
    for part, network in zip(parts, empty, strict=True):
        for key, value in network.state_dict().items():
            origin = part.names(key)
            if origin is None:
                continue
            expected = origin.stored_shape(value.shape)
            if origin.name not in state:
                missing.append(origin.name)
            elif (found := tuple(state[origin.name].shape)) != expected and not (
                origin.convolution and found == tuple(value.shape)
            ):
                misshapen.append(f"{origin.name} {found} instead of {expected}")
    missing, misshapen = list(dict.fromkeys(missing)), list(dict.fromkeys(misshapen))
    if missing or misshapen:
        told = [f"{len(missing)} tensors are missing ({_some(missing)})"] if missing else []
        told += [f"{len(misshapen)} are misshapen ({_some(misshapen)})"] if misshapen else []
        raise ValueError(f"{path}: {' and '.join(told)}; nothing of it is used")
    return [_filled(p, network, state, device, dtype) for p, network in zip(parts, empty, strict=True)]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def _filled(
    part: Part, network: nn.Module, state: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype
) -> nn.Module:
    made = ldm.networks(state, [k for k in network.state_dict() if part.names(k) is not None], part.names)
    network.load_state_dict({k: v.to(device, dtype).contiguous() for k, v in made.items()}, strict=False, assign=True)
    for module in network.modules():  # CLIP's counters, which are in no file, are still without values
        for name, buffer in list(module._buffers.items()):
            if buffer is not None and buffer.is_meta:
                module.register_buffer(name, torch.arange(buffer.shape[-1], device=device)[None], persistent=False)
    return frozen(network, device, dtype)
