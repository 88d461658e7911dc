"""Stable Diffusion as a text prior against an independent path through stock diffusers, on the same random weights."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dg.core.camera import orbit
from dg.core.diffusion import add_noise, eps_from_v, guide
from dg.core.perp_neg import VIEWS
from dg.priors.checkpoint import choose_files
from dg.priors.sd_schedule import read_schedule
from dg.priors.stable_diffusion import LAYOUT, StableDiffusion
from tests import tiny_checkpoints

CAMERAS = orbit([-10, 20], [15, -100], 2.5, height=64)  # front, side
BLACK = torch.zeros(2, 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoints.sd(tmp_path_factory.mktemp("sd"))


@pytest.fixture(scope="module")
def copied(folder: Path, tmp_path_factory: pytest.TempPathFactory):
    """A copy of the checkpoint that a test may damage."""
    return lambda: Path(shutil.copytree(folder, tmp_path_factory.mktemp("copy") / "sd"))


def noisy(seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(seed)), torch.tensor([300, 700])


def stock(folder: Path, z: torch.Tensor, t: torch.Tensor, prompts: list[str]) -> torch.Tensor:
    """What diffusers' own parts answer, one sample at a time, as noise by their own scheduler."""
    from diffusers import DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer")
    encoder = CLIPTextModel.from_pretrained(folder, subfolder="text_encoder").eval()
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet").eval()
    scheduler = DDIMScheduler.from_pretrained(folder, subfolder="scheduler", clip_sample=False)
    out = []
    with torch.no_grad():
        for i, prompt in enumerate(prompts):
            ids = tokenizer(prompt, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
            answer = unet(z[i : i + 1], t[i], encoder_hidden_states=encoder(ids)[0]).sample
            a = scheduler.alphas_cumprod[t[i]]
            scheduler.set_timesteps(1000)
            x0 = scheduler.step(answer, int(t[i]), z[i : i + 1]).pred_original_sample
            out.append((z[i : i + 1] - a.sqrt() * x0) / (1 - a).sqrt())
    return torch.cat(out)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_noise_prediction_equals_stock_diffusers(kind: str, tmp_path: Path) -> None:
    made = tiny_checkpoints.sd(tmp_path, seed=3, prediction_type=kind)
    prior = StableDiffusion(checkpoint=str(made), negative_prompt="blurry")
    z, t = noisy()
    ours = prior.predict(z, t, prior.condition(None, "a cat", CAMERAS, BLACK))
    cond, uncond = (stock(made, z, t, [text] * 2) for text in ("a cat", "blurry"))
    torch.testing.assert_close(ours.cond, cond, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours.uncond, uncond, atol=1e-4, rtol=1e-4)
    assert (ours.cond - ours.uncond).abs().max() > 5e-3  # so the order of the two is told apart
    assert prior.prediction_type == kind and prior.image_size == 64


def test_words_for_views_and_perp_neg_equal_the_stock_path(folder: Path) -> None:
    z, t = noisy()
    plain = StableDiffusion(checkpoint=str(folder), view_dependent_prompt=True)
    ours = plain.predict(z, t, plain.condition(None, "a cat", CAMERAS, BLACK))
    expected = stock(folder, z, t, ["a cat, front view", "a cat, side view"])
    torch.testing.assert_close(ours.cond, expected, atol=1e-4, rtol=1e-4)

    pushed = StableDiffusion(checkpoint=str(folder), perp_neg=True)
    exact = orbit([0, 0], [0, 180], 2.5, height=64)  # where no two texts are mixed
    answer = pushed.predict(z, t, pushed.condition(None, "a cat", exact, BLACK))
    front, side, back = (stock(folder, z, t, [f"a cat, {view} view"] * 2) for view in VIEWS[:3])
    uncond = stock(folder, z, t, ["", ""])
    for i, (positive, avoided) in enumerate(
        [(front, [(side, 4 - 2.426)]), (back, [(side, 1 - 0.606), (front, 1 + 0.967)])]
    ):
        e = (positive - uncond)[i]
        total = e.clone()
        for negative, weight in avoided:
            n = (negative - uncond)[i]
            total -= weight * (n - (n * e).sum() / (e * e).sum() * e)
        guided = guide(answer.cond, answer.uncond, 7.5)[i]
        torch.testing.assert_close(guided, uncond[i] + 7.5 * total, atol=2e-3, rtol=1e-3)


def test_velocity_becomes_the_noise_it_stands_for() -> None:
    x0, eps = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    a = torch.tensor(0.3)
    v = a.sqrt() * eps - (1 - a).sqrt() * x0
    torch.testing.assert_close(eps_from_v(add_noise(x0, eps, a), v, a), eps)


def test_pictures_go_through_the_vae_and_back_as_in_diffusers(folder: Path, copied) -> None:
    from diffusers import AutoencoderKL

    rgb = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    vae = AutoencoderKL.from_pretrained(folder / "vae").eval()
    with torch.no_grad():
        latent = vae.encode(2 * rgb - 1).latent_dist.mean * 0.18215
        picture = vae.decode(latent / 0.18215).sample / 2 + 0.5
    prior = StableDiffusion(checkpoint=str(folder))
    torch.testing.assert_close(prior.encode(rgb), latent, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(prior.decode(latent), picture.clamp(0, 1), atol=1e-5, rtol=1e-4)
    # The public 2.1-base keeps the names that diffusers' attention had in 2022.
    old, file = copied(), "diffusion_pytorch_model.safetensors"
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = load_file(old / "vae" / file)
    for new, before in names.items():
        state = {k.replace(f"attentions.0.{new}.", f"attentions.0.{before}."): v for k, v in state.items()}
    assert any(".query." in k for k in state)
    save_file(state, old / "vae" / file, metadata={"format": "pt"})
    torch.testing.assert_close(StableDiffusion(checkpoint=str(old)).encode(rgb), latent, atol=1e-5, rtol=1e-4)


def test_embeddings_are_computed_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prior = StableDiffusion(checkpoint=str(folder))
    calls, forward = [], prior.prompts.text_encoder.forward
    monkeypatch.setattr(prior.prompts.text_encoder, "forward", lambda *a, **k: (calls.append(1), forward(*a, **k))[1])
    first, second = (prior.condition(None, "a cat", CAMERAS, BLACK).extra for _ in range(2))
    assert len(calls) == 2 and torch.equal(first.cond, second.cond)  # the prompt and the empty one
    assert not any(p.requires_grad for m in (prior.unet, prior.vae, prior.prompts.text_encoder) for p in m.parameters())


def test_a_long_prompt_loses_its_end_with_one_warning(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    prior = StableDiffusion(checkpoint=str(folder), view_dependent_prompt=True)
    long = "cat " * 80 + "vie"  # every word is one token
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            condition = prior.condition(None, long, CAMERAS, BLACK)
    (message,) = [r.getMessage() for r in caplog.records]
    suffix = len(prior.prompts.tokenizer(", front view", add_special_tokens=False)["input_ids"])
    assert f"reads {75 - suffix}" in message and message.endswith("cat vie'")
    assert condition.extra.cond.shape[1] == 77
    front, side = (prior.prompts.tokens(long, f", {view} view")[0].tolist() for view in ("front", "side"))
    assert len(front) == len(side) == 77 and front != side  # the words for the view are never cut
    short = prior.prompts.tokens("a cat")[0].tolist()
    assert len(short) == 77 and prior.prompts.tokenizer.decode(short[1:3]).strip() == "a cat"


def test_what_is_missing_cut_short_or_foreign_is_named(folder: Path, copied, tmp_path: Path) -> None:
    def refused(path: Path, kind: type[Exception], message: str) -> None:
        with pytest.raises(kind, match=message):
            StableDiffusion(checkpoint=str(path))

    refused(tmp_path, FileNotFoundError, r"unet/config.json.*tokenizer/vocab.json.*not found.*found an empty folder")
    refused(tmp_path / "nowhere", FileNotFoundError, "no such folder")
    (tmp_path / "model.ckpt").write_bytes(b"1")
    refused(tmp_path / "model.ckpt", ValueError, "model.ckpt: .*damaged")
    refused(tiny_checkpoints.zero123(tmp_path / "z"), FileNotFoundError, "text_encoder/config.json.*found clip_camera")
    cut = copied()
    file = cut / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    refused(cut, ValueError, r"unet.*model\.safetensors: damaged or cut short \(5000 bytes")
    file.unlink()
    refused(cut, FileNotFoundError, r"unet/\*\.safetensors not found")
    half = copied()
    state = load_file(half / "unet" / file.name)
    save_file({k: v for k, v in state.items() if "mid_block" not in k}, half / "unet" / file.name)
    refused(half, ValueError, r"tensors of a UNet2DConditionModel are missing or misshapen \(mid_block")
    state["conv_in.weight"] = state["conv_in.weight"].repeat(1, 2, 1, 1)
    save_file(state, half / "unet" / file.name)
    refused(half, ValueError, r"unet: its weights are not those of the UNet2DConditionModel.*conv_in")
    text = copied()
    encoder = load_file(text / "text_encoder" / "model.safetensors")
    save_file(dict(list(encoder.items())[:3]), text / "text_encoder" / "model.safetensors", metadata={"format": "pt"})
    refused(text, ValueError, "tensors of a CLIPTextModel are missing or misshapen")
    swapped = copied()
    shutil.rmtree(swapped / "unet")
    shutil.copytree(swapped / "vae", swapped / "unet")
    refused(swapped, ValueError, "describes a AutoencoderKL; expected a UNet2DConditionModel")
    (text / "tokenizer" / "vocab.json").write_text("{")
    shutil.copytree(folder / "text_encoder", text / "text_encoder", dirs_exist_ok=True)
    refused(text, ValueError, "not the files of a CLIPTokenizer")
    mixed = copied()
    shutil.rmtree(mixed / "unet")
    shutil.copytree(tmp_path / "z" / "unet", mixed / "unet")
    refused(mixed, ValueError, "not a text-to-picture Stable Diffusion .*in_channels 8 instead of 4")


def test_a_foreign_schedule_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "scheduler_config.json"
    good = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    path.write_text(json.dumps(good))
    alpha_bar, kind = read_schedule(path)
    assert kind == "epsilon"  # configs of Stable Diffusion 1.x do not say it
    torch.testing.assert_close(
        alpha_bar[[20, 500, 980]], torch.tensor([0.981314, 0.276333, 0.005844]), atol=1e-6, rtol=0
    )
    for bad, word in [
        ({"beta_schedule": "squaredcos_cap_v2"}, "found squaredcos"),
        ({"rescale_betas_zero_snr": True}, "scaled_linear with one of them"),
        ({"prediction_type": "sample"}, "prediction_type sample"),
    ]:
        path.write_text(json.dumps(good | bad))
        with pytest.raises(ValueError, match=word):
            read_schedule(path)


def test_one_set_of_weights_is_downloaded() -> None:
    names = ["README.md", "v2-1_512-ema-pruned.ckpt", "model_index.json", "scheduler/scheduler_config.json"]
    names += [f"tokenizer/{n}" for n in ("vocab.json", "merges.txt")] + [
        "unet/config.json",
        "safety_checker/config.json",
    ]
    stems = [f"unet/diffusion_pytorch_model{v}" for v in ("", ".fp16", ".non_ema")] + ["vae/diffusion_pytorch_model"]
    names += [f"{stem}.{kind}" for stem in stems for kind in ("bin", "safetensors")]
    small = {"scheduler/scheduler_config.json", "tokenizer/vocab.json", "tokenizer/merges.txt", "unet/config.json"}
    small |= {"vae/diffusion_pytorch_model.safetensors"}
    for half, mark in ((True, ".fp16"), (False, "")):
        weights = f"unet/diffusion_pytorch_model{mark}.safetensors"
        assert set(choose_files(names, LAYOUT, half=half)) == small | {weights}


def test_the_float16_file_serves_where_it_is_the_only_one(folder: Path, copied) -> None:
    small = copied()
    for path in [small / p for p in ("unet", "vae", "text_encoder")]:
        for file in path.glob("*.safetensors"):
            save_file(
                {k: v.half() for k, v in load_file(file).items()},
                file.with_suffix(".fp16.safetensors"),
                {"format": "pt"},
            )
            file.unlink()
    z, t = noisy()
    answers = []
    for made in (folder, small):
        prior = StableDiffusion(checkpoint=str(made))
        assert {p.dtype for p in prior.unet.parameters()} == {torch.float32}
        answers.append(prior.predict(z, t, prior.condition(None, "a cat", CAMERAS, BLACK)).cond)
    torch.testing.assert_close(*answers, atol=2e-2, rtol=1e-2)


def test_half_precision_answers_in_float32_and_lets_gradients_through(folder: Path) -> None:
    exact, rough = (StableDiffusion(checkpoint=str(folder), dtype=d, perp_neg=True) for d in ("float32", "bfloat16"))
    assert {p.dtype for m in (rough.unet, rough.vae, rough.prompts.text_encoder) for p in m.parameters()} == {
        torch.bfloat16
    }
    z, t = noisy()
    a, b = (p.predict(z, t, p.condition(None, "a cat", CAMERAS, BLACK)) for p in (exact, rough))
    assert b.cond.dtype == b.uncond.dtype == torch.float32
    torch.testing.assert_close(b.uncond, a.uncond, atol=0.1, rtol=0.05)
    rgb = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    encoded = rough.encode(rgb)
    encoded.square().sum().backward()
    assert encoded.dtype == torch.float32 and torch.isfinite(rgb.grad).all() and rgb.grad.abs().sum() > 0


def test_a_prompt_is_needed_and_the_size_must_fit(folder: Path) -> None:
    with pytest.raises(ValueError, match="needs a prompt"):
        StableDiffusion(checkpoint=str(folder)).condition(None, None, CAMERAS, BLACK)
    with pytest.raises(ValueError, match="image_size=100 must be a multiple of 16"):
        StableDiffusion(checkpoint=str(folder), image_size=100)
