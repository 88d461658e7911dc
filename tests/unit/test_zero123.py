"""Zero123 against an independent path through stock diffusers, on the same random weights."""

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from dg.core.camera import orbit
from dg.priors.zero123 import Zero123
from dg.types import Reference
from tests import tiny_checkpoints


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_checkpoints.zero123(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def reference():
    rgba = torch.rand(1, 64, 64, 4, generator=torch.Generator().manual_seed(0))
    rgba = (rgba * 255).round() / 255
    rgba[..., 3] = 1
    return Reference(rgba, orbit(-10, 0, 2.0, height=64))


def test_noise_prediction_equals_stock_diffusers(folder, reference):
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

    prior = Zero123(checkpoint=str(folder), image_size=64)
    cameras = orbit([-40, 10], [90, -135], 2.0, height=64)
    z, t = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([300, 700])
    ours = prior.predict(z, t, prior.condition(reference, None, cameras, torch.ones(2, 3)))

    picture = Image.fromarray((reference.rgba[0, ..., :3].numpy() * 255).round().astype("uint8"))
    pixels = CLIPImageProcessor(size={"shortest_edge": 224}, crop_size=224)(picture, return_tensors="pt").pixel_values
    poses = [[-0.523599, 1.0, 0.0, 0.0], [0.349066, -0.707107, -0.707107, 0.0]]
    projection = load_file(folder / "clip_camera_projection" / "diffusion_pytorch_model.safetensors")
    with torch.no_grad():
        embedding = CLIPVisionModelWithProjection.from_pretrained(folder / "image_encoder").eval()(pixels).image_embeds
        vae = AutoencoderKL.from_pretrained(folder / "vae").eval()
        latent = vae.encode(2 * reference.rgba[..., :3].permute(0, 3, 1, 2) - 1).latent_dist.mode()
        unet = UNet2DConditionModel.from_pretrained(folder / "unet").eval()
        for i, pose in enumerate(poses):
            token = torch.cat([embedding, torch.tensor([pose])], -1) @ projection["proj.weight"].T
            token = (token + projection["proj.bias"])[:, None]
            cond = unet(torch.cat([z[i : i + 1], latent], 1), t[i], encoder_hidden_states=token).sample
            blank = torch.cat([z[i : i + 1], torch.zeros_like(latent)], 1)
            uncond = unet(blank, t[i], encoder_hidden_states=torch.zeros_like(token)).sample
            # CLIP's processor resizes 8-bit pictures with PIL, ours floats with torch: 1e-3 apart at most.
            torch.testing.assert_close(ours.cond[i : i + 1], cond, atol=2e-3, rtol=0)
            torch.testing.assert_close(ours.uncond[i : i + 1], uncond, atol=1e-4, rtol=1e-4)


def test_stable_zero123_tells_the_reference_s_polar_angle(folder, reference):
    cameras = orbit([-10], [40], 2.0, height=64)
    plain, stable = (Zero123(checkpoint=str(folder), image_size=64, pose=p) for p in ("zero123", "stable_zero123"))
    tokens = [p.condition(reference, None, cameras, torch.ones(1, 3)).extra.context for p in (plain, stable)]
    difference = (tokens[1] - tokens[0])[0, 0]
    expected = plain.projection.weight[:, -1] * torch.deg2rad(torch.tensor(80.0))
    torch.testing.assert_close(difference, expected, atol=1e-5, rtol=1e-4)


def test_missing_parts_are_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"unet/config.json.*clip_camera_projection/config.json not found"):
        Zero123(checkpoint=str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no such folder"):
        Zero123(checkpoint="./nowhere")


def test_a_foreign_projection_is_refused(folder, tmp_path):
    from dg.priors.zero123 import load_projection

    (tmp_path / "config.json").write_text(json.dumps({"embedding_dim": 24, "additional_embeddings": 4}))
    save_file({"proj.weight": torch.zeros(24, 24), "proj.bias": torch.zeros(24)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"expected tensors .*\(24, 28\).*found .*\(24, 24\)"):
        load_projection(tmp_path)


def test_a_prompt_is_refused(folder, reference):
    prior = Zero123(checkpoint=str(folder), image_size=64)
    with pytest.raises(ValueError, match="takes no prompt"):
        prior.condition(reference, "a cat", orbit([0], [0], 2.0), torch.ones(1, 3))
