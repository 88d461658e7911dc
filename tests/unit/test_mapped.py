"""`dg.priors.mapped`: the same networks as `from_pretrained` makes, or none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dg.priors.mapped import mapped, weightless
from tests import tiny_checkpoints

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_checkpoints.zero123(tmp_path_factory.mktemp("zero123"))


def kinds():
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPVisionModelWithProjection

    return {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "image_encoder": CLIPVisionModelWithProjection}


def read(kind, folder: Path, dtype=torch.float32):
    config = json.loads((folder / "config.json").read_text())
    return mapped(kind, config, sorted(folder.glob("*.safetensors")), CPU, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("part", ["unet", "vae", "image_encoder"])
def test_it_is_the_network_of_from_pretrained(folder, part, dtype):
    kind = kinds()[part]
    ours, theirs = read(kind, folder / part, dtype), kind.from_pretrained(folder / part).to(dtype)
    for kept in ("state_dict", "named_buffers"):
        a, b = dict(getattr(ours, kept)()), dict(getattr(theirs, kept)())
        assert a.keys() == b.keys() and (kept == "named_buffers" or a)
        for name, value in a.items():
            assert value.dtype == b[name].dtype and torch.equal(value, b[name]), name
    assert not any(p.requires_grad for p in ours.parameters())


def test_other_names_and_shapes_are_left_to_from_pretrained(folder, tmp_path):
    kind, state = kinds()["vae"], load_file(next((folder / "vae").glob("*.safetensors")))
    config = json.loads((folder / "vae" / "config.json").read_text())
    first = next(iter(state))
    changed = {
        "another name": {("old." + k if k == first else k): v for k, v in state.items()},
        "missing": {k: v for k, v in state.items() if k != first},
        "another shape": {k: v[None] if k == first else v for k, v in state.items()},
    }
    for name, tensors in changed.items():
        path = tmp_path / f"{name}.safetensors"
        save_file({k: v.contiguous() for k, v in tensors.items()}, path)
        assert mapped(kind, config, [path], CPU, torch.float32) is None, name
    assert mapped(kind, {"latent_channels": -3}, [], CPU, torch.float32) is None


def test_weights_of_several_files_are_put_together(folder, tmp_path):
    kind, state = kinds()["vae"], load_file(next((folder / "vae").glob("*.safetensors")))
    names = sorted(state)
    paths = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for path, part in zip(paths, (names[:20], names[20:]), strict=True):
        save_file({k: state[k] for k in part}, path)
    made = mapped(kind, json.loads((folder / "vae" / "config.json").read_text()), paths, CPU, torch.float32)
    assert all(torch.equal(value, state[name]) for name, value in made.state_dict().items())


def test_modules_without_memory():
    class Broken(torch.nn.Module):
        def __init__(self):
            super().__init__()
            raise ValueError

    with pytest.raises(ValueError), weightless():
        layer = torch.nn.BatchNorm1d(3)
        Broken()
    assert layer.weight.is_meta and not layer.running_mean.is_meta
    assert not torch.nn.Linear(2, 2).weight.is_meta
