"""Tiny checkpoints in the original single-file naming, from the folders that `tests.tiny_checkpoints` writes."""

from __future__ import annotations

import json
import shutil
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dg.priors import ldm_names as ldm
from tests import tiny_checkpoints


def tensors(folder: Path, part: str) -> dict[str, Tensor]:
    (file,) = (folder / part).glob("*.safetensors")
    return load_file(file)


def networks(folder: Path, unet_prefix: str | None = None) -> dict[str, Tensor]:
    """UNet and autoencoder under their original names; a UNet that has them already only gets its prefix."""
    unet, vae = (json.loads((folder / part / "config.json").read_text()) for part in ("unet", "vae"))
    if unet_prefix is not None:
        state = {unet_prefix + name: value for name, value in tensors(folder, "unet").items()}
    else:
        attends = ["CrossAttn" in kind for kind in unet["down_block_types"]]
        state = ldm.originals(tensors(folder, "unet"), ldm.unet_names(unet["layers_per_block"], attends))
    return state | ldm.originals(tensors(folder, "vae"), ldm.vae_names(len(vae["block_out_channels"])))


def zero123(folder: Path) -> dict[str, Tensor]:
    """The state_dict of 105000.ckpt, zero123-xl.ckpt, stable_zero123.ckpt."""
    state = _schedule() | networks(folder)
    state |= ldm.originals(tensors(folder, "image_encoder"), ldm.vision_names_openai)
    for key, value in tensors(folder, "clip_camera_projection").items():
        state[key.replace("proj.", "cc_projection.")] = value
    # What is left of CLIP's text half, and the normalisation of pictures
    model = "cond_stage_model.model."
    state |= {f"{model}positional_embedding": torch.zeros(77, 8), f"{model}text_projection": torch.zeros(8, 8)}
    state |= {f"{model}token_embedding.weight": torch.zeros(16, 8), f"{model}logit_scale": torch.tensor(4.6)}
    state |= {f"{model}ln_final.weight": torch.ones(8), f"{model}ln_final.bias": torch.zeros(8)}
    return state | {"cond_stage_model.mean": torch.zeros(3), "cond_stage_model.std": torch.ones(3)}


def sd(folder: Path, unet_prefix: str | None = None) -> dict[str, Tensor]:
    """The state_dict of v1-5-pruned.ckpt or v2-1_512-ema-pruned.ckpt, as the folder's text encoder says."""
    state, text = _schedule() | networks(folder, unet_prefix), tensors(folder, "text_encoder")
    if json.loads((folder / "text_encoder" / "config.json").read_text())["hidden_act"] == "quick_gelu":
        state |= ldm.originals(text, ldm.text_names_transformers)
        return state | {ldm.TEXT_1 + "embeddings.position_ids": torch.arange(77)[None]}
    state |= ldm.originals(text, ldm.text_names_openclip)
    layers = {n.split(".")[4] for n in state if n.startswith(ldm.TEXT_2 + "transformer.resblocks.")}
    last = f"{ldm.TEXT_2}transformer.resblocks.{len(layers)}."  # the one that Stable Diffusion 2 does not read
    state |= {last + n.split(".", 5)[5]: torch.full_like(v, 7) for n, v in list(state.items()) if ".resblocks.0." in n}
    width = text["text_model.final_layer_norm.weight"].shape[0]
    return state | {
        f"{ldm.TEXT_2}text_projection": torch.zeros(width, width),
        f"{ldm.TEXT_2}logit_scale": torch.tensor(4.6),
    }


def multiview(folder: Path) -> dict[str, Tensor]:
    """The state_dict of sd-v2.1-base-4view.pt, or of sd-v2.1-base-4view-ipmv.pt, which has names of its own."""
    state = sd(folder, ldm.UNET)
    if (folder / "image_encoder").is_dir():
        state |= ldm.originals(tensors(folder, "image_encoder"), ldm.vision_names_openai)
        state |= {ldm.VISION + "proj": torch.zeros(80, 64)}
        other = {"first_stage_model": "vae_model", "cond_stage_model": "clip_model"}
        state = {
            ".".join([other.get(n.split(".")[0], n.split(".")[0]), *n.split(".")[1:]]): v for n, v in state.items()
        }
    return state


def _schedule() -> dict[str, Tensor]:
    return {"betas": torch.linspace(0.00085, 0.012, 1000), "alphas_cumprod": torch.linspace(1, 0, 1000)}


def averaged(state: dict[str, Tensor], *, only: bool) -> dict[str, Tensor]:
    """With `model_ema.*`: beside the plain weights (then other values), or in place of them."""
    unet = {n: v for n, v in state.items() if n.startswith(ldm.UNET)}
    rest = {n: v for n, v in state.items() if n not in unet} if only else dict(state)
    for name, value in unet.items():
        rest["model_ema." + name.removeprefix("model.").replace(".", "")] = value if only else torch.zeros_like(value)
    return rest | {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(105000)}


def save(state: dict[str, Tensor], path: Path) -> Path:
    """.safetensors, a bare state_dict as .pt, or as Lightning wrote the public .ckpt: with its callbacks' states."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".pt":
        torch.save(OrderedDict(state), path)
        return path
    if path.suffix == ".safetensors":
        save_file({k: v.contiguous() for k, v in state.items()}, path)
        return path
    from pytorch_lightning.callbacks import ModelCheckpoint

    content: dict[str, Any] = {"epoch": 1, "global_step": 105000, "pytorch-lightning_version": "1.4.2"}
    content |= {"state_dict": OrderedDict(state), "lr_schedulers": [], "optimizer_states": []}
    content["callbacks"] = {ModelCheckpoint: {"monitor": None, "best_model_score": np.float64(0.5)}}
    torch.save(content, path)
    return path


def written(kind: str, folder: Path) -> list[Path]:
    """What `python tests/tiny_checkpoints.py KIND DIR --single-file` writes: the files under their public names."""
    source = folder / "diffusers"
    if kind in ("mvdream", "imagedream"):
        name = "sd-v2.1-base-4view" + "-ipmv" * (kind == "imagedream")
        of = tiny_checkpoints.WRITERS[kind](source)
        shutil.copytree(of / "tokenizer", folder / "tokenizer", dirs_exist_ok=True)
        return [save(multiview(of), folder / f"{name}{ending}") for ending in (".pt", ".safetensors")]
    if kind != "sd":
        names = {
            "zero123": ["105000.ckpt", "165000.ckpt", "zero123-xl.ckpt"],
            "stable_zero123": ["stable_zero123.ckpt"],
        }
        state = zero123(tiny_checkpoints.zero123(source, exact=True))
        return [save(averaged(state, only=False), folder / name) for name in names[kind]]
    made = []
    for generation, name in ((1, "v1-5-pruned-emaonly"), (2, "v2-1_512-ema-pruned")):
        of = tiny_checkpoints.sd(source / name, generation=generation, exact=True)
        made += [save(sd(of), folder / f"{name}{ending}") for ending in (".ckpt", ".safetensors")]
        if generation == 2:  # the vocabulary is a small one, so it has to stand beside the files
            shutil.copytree(of / "tokenizer", folder / "tokenizer", dirs_exist_ok=True)
    return made
