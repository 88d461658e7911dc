"""Original single-file checkpoints: their names against diffusers' and open_clip's own, and what must be refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dg.core.camera import orbit
from dg.priors import ldm_names as ldm
from dg.priors import ldm_parts as parts
from dg.priors.clip_vocabulary import packaged
from dg.priors.ldm_file import read_tensors
from dg.priors.sd_schedule import told_prediction
from dg.priors.stable_diffusion import StableDiffusion
from dg.priors.zero123 import Zero123
from dg.types import Reference
from tests import tiny_checkpoints, tiny_single_files
from tests.tiny_single_files import averaged, save

CAMERAS = orbit([-40, 10], [90, -135], 2.0, height=64)
HERE = torch.device("cpu")
FULL = {"sample_size": 64, "block_out_channels": (320, 640, 1280, 1280)}  # Stable Diffusion's and Zero123's UNet


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    at = tmp_path_factory.mktemp("folders")
    return {
        "zero123": tiny_checkpoints.zero123(at / "zero123", exact=True),
        "sd1": tiny_checkpoints.sd(at / "sd1", generation=1, exact=True),
        "sd2": tiny_checkpoints.sd(at / "sd2", exact=True),
    }


@pytest.fixture(scope="module")
def states(folders: dict[str, Path]) -> dict[str, dict[str, Tensor]]:
    write = {"zero123": tiny_single_files.zero123, "sd1": tiny_single_files.sd, "sd2": tiny_single_files.sd}
    return {name: write[name](folder) for name, folder in folders.items()}


@pytest.fixture(scope="module")
def files(folders, states, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Under their public names, with the tiny vocabulary beside Stable Diffusion's."""
    at = tmp_path_factory.mktemp("files")
    (at / "tokenizer").symlink_to(folders["sd1"] / "tokenizer")
    return {
        "zero123": save(averaged(states["zero123"], only=False), at / "105000.ckpt"),
        "sd1": save(states["sd1"], at / "v1-5-pruned-emaonly.safetensors"),
        "sd2": save(states["sd2"], at / "v2-1_512-ema-pruned.ckpt"),
    }


def reference() -> Reference:
    rgba = torch.rand(1, 64, 64, 4, generator=torch.Generator().manual_seed(0))
    return Reference(rgba, orbit(-10, 0, 2.0, height=64))


def predicted(prior) -> Tensor:
    prompt = None if isinstance(prior, Zero123) else "a cat"
    z, t = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([300, 700])
    answer = prior.predict(z, t, prior.condition(reference(), prompt, CAMERAS, torch.ones(2, 3)))
    return torch.cat([answer.cond, answer.uncond])


def made(kind: str, checkpoint: Path):
    if kind == "zero123":
        return Zero123(checkpoint=str(checkpoint), image_size=64)
    return StableDiffusion(checkpoint=str(checkpoint), image_size=64, negative_prompt="blurry")


@pytest.mark.parametrize("kind", ["zero123", "sd1", "sd2"])
def test_a_file_is_its_folder(kind: str, files, folders) -> None:
    one, other = (predicted(made(kind, where[kind])) for where in (files, folders))
    torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
    assert one.std() > 0.01


@pytest.mark.parametrize("kind", ["zero123", "sd1", "sd2"])
def test_there_and_back_is_the_identity(kind: str, states) -> None:
    old = states[kind]
    shapes = parts.Shapes(Path("x"), old)
    heads = None if kind == "sd2" else 8
    wanted = [parts.unet_part(shapes, sample_size=8, heads=heads), parts.vae_part(shapes, sample_size=64)]
    wanted += [parts.vision_part(shapes), parts.projection_part(shapes)] if kind == "zero123" else []
    wanted += [] if kind == "zero123" else [parts.text_part(shapes)]
    loaded = parts.load_parts(Path("x"), old, wanted, HERE, torch.float32)
    again: dict[str, Tensor] = {}
    for part, network in zip(wanted, loaded, strict=True):
        new = network.state_dict()
        forth = ldm.networks(ldm.originals(new, part.names), list(new), part.names)
        assert forth.keys() == new.keys() and all(torch.equal(forth[k], new[k]) for k in new)
        again |= ldm.originals(new, part.names)
    assert all(torch.equal(value, old[name]) for name, value in again.items())
    left = {name.split(".")[0] + "." + name.split(".")[1] for name in old.keys() - again.keys() if "." in name}
    assert left <= {
        "cond_stage_model.model",
        "cond_stage_model.transformer",
        "cond_stage_model.mean",
        "cond_stage_model.std",
    }


@pytest.mark.parametrize("kind", ["zero123", "sd1", "sd2"])
def test_stock_converters_read_the_same_networks(kind: str, files, states, folders) -> None:
    """diffusers' own conversion of the file's tensors, run through its own networks, predicts the same noise."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from diffusers.loaders import single_file_utils as stock

    prior, state = made(kind, files[kind]), states[kind]
    unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(folders[kind] / "unet"))
    # It asks a config for nothing but the number of layers, but takes its argument apart: hence the copies.
    unet.load_state_dict(stock.convert_ldm_unet_checkpoint(dict(state), dict(unet.config)), strict=True)
    vae = AutoencoderKL.from_config(AutoencoderKL.load_config(folders[kind] / "vae"))
    vae.load_state_dict(stock.convert_ldm_vae_checkpoint(dict(state), dict(vae.config)), strict=True)
    rgb = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        latent = vae.eval().encode(2 * rgb - 1).latent_dist.mode() * 0.18215
        torch.testing.assert_close(prior.encode(rgb), latent, atol=1e-4, rtol=1e-4)
        z, t = torch.randn(1, prior.unet.config.in_channels, 8, 8), torch.tensor([400])
        context = torch.randn(1, 3, unet.config.cross_attention_dim)
        answers = [net(z, t, encoder_hidden_states=context).sample for net in (prior.unet, unet.eval())]
    torch.testing.assert_close(*answers, atol=1e-4, rtol=1e-4)


def test_the_vision_encoder_is_the_one_that_open_clip_builds(states, files) -> None:
    from open_clip.transformer import QuickGELU, VisionTransformer

    own = {n.removeprefix(ldm.VISION): v for n, v in states["zero123"].items() if n.startswith(ldm.VISION)}
    stock = VisionTransformer(
        image_size=224, patch_size=32, width=64, layers=2, heads=1, mlp_ratio=1.0, output_dim=24, act_layer=QuickGELU
    ).eval()
    stock.load_state_dict(own, strict=True)
    picture = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = made("zero123", files["zero123"]).image_encoder(picture).image_embeds
        torch.testing.assert_close(ours, stock(picture), atol=1e-5, rtol=1e-4)


def test_the_text_encoder_of_2_is_the_last_layer_but_one_of_open_clip(states, files) -> None:
    from open_clip.transformer import TextTransformer

    tensors = {n.removeprefix(ldm.TEXT_2): v for n, v in states["sd2"].items() if n.startswith(ldm.TEXT_2)}
    tensors.pop("logit_scale")
    stock = TextTransformer(
        context_length=77,
        vocab_size=518,
        width=64,
        heads=1,
        layers=3,
        mlp_ratio=0.75,
        output_dim=64,
        output_tokens=True,
    ).eval()
    stock.load_state_dict(tensors, strict=True)
    stock.transformer.resblocks = stock.transformer.resblocks[:-1]
    prior = made("sd2", files["sd2"])
    ids = prior.prompts.tokens("a cat in a vat")
    with torch.no_grad():
        torch.testing.assert_close(prior.prompts.text_encoder(ids)[0], stock(ids)[1], atol=1e-5, rtol=1e-4)


def test_full_sizes_are_told_from_shapes() -> None:
    """On the meta device, against diffusers' own names and shapes of the public networks."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from diffusers.loaders import single_file_utils as stock

    second = {"cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True}
    for own, heads in ({"in_channels": 8, "cross_attention_dim": 768}, 8), (second, None):
        with torch.device("meta"):
            unet = UNet2DConditionModel(**FULL, **own)
            vae = AutoencoderKL(
                block_out_channels=(128, 256, 512, 512),
                layers_per_block=2,
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
            )
        names = ldm.unet_names(2, (True, True, True, False))
        old = ldm.originals(unet.state_dict(), names)
        old |= ldm.originals(vae.state_dict(), ldm.vae_names(4))
        shapes = parts.Shapes(Path("x"), old)
        for network, part in (
            (unet, parts.unet_part(shapes, sample_size=64, heads=heads)),
            (vae, parts.vae_part(shapes, sample_size=512)),
        ):
            with torch.device("meta"):
                again = part.make()
            assert {k: v.shape for k, v in again.state_dict().items()} == {
                k: v.shape for k, v in network.state_dict().items()
            }
        if heads is None:
            assert tuple(again.config.block_out_channels) == (128, 256, 512, 512)
        converted = stock.convert_ldm_unet_checkpoint(dict(old), dict(unet.config))
        assert {k: v.shape for k, v in converted.items()} == {k: v.shape for k, v in unet.state_dict().items()}
        dotless = {n: "model_ema." + n.removeprefix("model.").replace(".", "") for n in old if n.startswith(ldm.UNET)}
        assert all(ldm.averaged_name(short) == name for name, short in dotless.items())


def test_averaged_weights_serve_only_alone(states, tmp_path: Path) -> None:
    both, alone = (
        read_tensors(save(averaged(states["zero123"], only=o), tmp_path / f"{o}.ckpt")) for o in (False, True)
    )
    assert both.keys() == alone.keys() == states["zero123"].keys()
    assert all(torch.equal(both[n], v) and torch.equal(alone[n], v) for n, v in states["zero123"].items())


def test_missing_and_misshapen_tensors_are_listed(states, tmp_path: Path) -> None:
    broken = dict(states["zero123"])
    for name in ("model.diffusion_model.middle_block.1.norm.bias", "first_stage_model.decoder.conv_out.weight"):
        del broken[name]
    broken["cond_stage_model.model.visual.ln_post.weight"] = torch.ones(3)
    broken["model.diffusion_model.out.0.bias"] = torch.ones(5)
    path = save(broken, tmp_path / "a.ckpt")
    with pytest.raises(ValueError) as error:
        made("zero123", path)
    for word in ("2 tensors are missing", "middle_block.1.norm.bias", "decoder.conv_out.weight", "2 are misshapen"):
        assert word in str(error.value)
    assert "visual.ln_post.weight (3,) instead of (64,)" in str(error.value)


class Runs:
    def __reduce__(self) -> tuple[Callable, tuple[str]]:
        return os.system, ("touch ran",)


def test_what_is_no_checkpoint_is_refused(states, files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(kind: str, path: Path, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            made(kind, path)

    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": states["sd1"], "callbacks": [Runs()]}, tmp_path / "evil.ckpt")
    refused("sd1", tmp_path / "evil.ckpt", "holds a posix.system, which is no plain value and could run code")
    assert not (tmp_path / "ran").exists()
    (tmp_path / "cut.ckpt").write_bytes(files["zero123"].read_bytes()[:9000])
    refused("zero123", tmp_path / "cut.ckpt", r"cut.ckpt: damaged or cut short \(9000 bytes")
    (tmp_path / "cut.safetensors").write_bytes(files["sd1"].read_bytes()[:9000])
    refused("sd1", tmp_path / "cut.safetensors", r"damaged or cut short \(9000 bytes")
    (tmp_path / "one.ckpt").write_bytes(b"1")
    refused("sd1", tmp_path / "one.ckpt", "one.ckpt: .*damaged")
    (tmp_path / "a.bin").write_bytes(b"1")
    refused("sd1", tmp_path / "a.bin", "expected a checkpoint that ends in .ckpt")
    torch.save([1, 2], tmp_path / "list.ckpt")
    refused("sd1", tmp_path / "list.ckpt", "holds no state_dict")
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "linear.ckpt")
    refused("zero123", tmp_path / "linear.ckpt", "lacks cc_projection.weight, so it is no Zero123")
    refused("sd1", tmp_path / "linear.ckpt", "lacks .*; its tensors' names begin with bias, weight")
    refused("zero123", files["sd1"], "for Stable Diffusion: prior=sd")
    refused("sd1", files["zero123"], "so it is a Zero123: prior=zero123")
    refused("sd1", save(states["sd1"], tmp_path / "alone.ckpt"), "knows 518 tokens, CLIP's vocabulary has 49408")


def test_old_pickles_are_read(states, tmp_path: Path) -> None:
    torch.save({"state_dict": states["sd1"]}, tmp_path / "old.ckpt", _use_new_zipfile_serialization=False)
    assert read_tensors(tmp_path / "old.ckpt").keys() == states["sd1"].keys()


def test_what_the_unet_predicts(tmp_path: Path) -> None:
    assert told_prediction(Path("sd-v1-4.ckpt"), True) == "epsilon"
    assert told_prediction(Path("v2-1_512-ema-pruned.ckpt"), False) == "epsilon"
    assert told_prediction(Path("v2-1_768-ema-pruned.ckpt"), False) == "v_prediction"
    with pytest.raises(ValueError, match=r"prior\.prediction_type=epsilon"):
        told_prediction(Path("mine.ckpt"), False)
    (tmp_path / "mine.yaml").write_text('model:\n  params:\n    parameterization: "v"\n')
    assert told_prediction(tmp_path / "mine.ckpt", False) == "v_prediction"


def test_the_packaged_vocabulary_is_open_clip_s() -> None:
    import open_clip

    texts = ["a photo of a Cat, naïve é", "  12 ripe strawberries, "]  # no "!", which is split off where it pads
    for padding, short in (("!", 0), ("<|endoftext|>", 49407)):
        ours = packaged(padding)(texts, padding="max_length", max_length=77, return_tensors="pt").input_ids
        theirs = open_clip.tokenize(texts)
        length = (theirs > 0).sum(1)
        for row, expected, n in zip(ours, theirs, length, strict=True):
            assert torch.equal(row[:n].long(), expected[:n]) and (row[n:] == short).all()
