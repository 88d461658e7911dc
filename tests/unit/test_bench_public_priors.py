"""The benchmark of the public priors: its random checkpoints are ones that the priors read, and its table tells all."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import _public_checkpoints as made
from benchmarks import _public_table as page
from benchmarks import public_priors
from benchmarks._step_clock import watched
from dg.core.camera import orbit
from dg.priors import multiview_net
from dg.priors.imagedream import ImageDream
from dg.priors.mvdream import MVDream
from dg.priors.stable_diffusion import StableDiffusion
from dg.types import Reference

NARROW = {"block_out_channels": (64, 64, 64, 64), "layers_per_block": 1, "cross_attention_dim": 64}
NARROW |= {"attention_head_dim": (1, 1, 1, 1)}


def shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    """All widths down, everything else as at full size."""
    text = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1}
    vision = {"hidden_size": 80, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 1}
    monkeypatch.setattr(made, "UNET_SD", made.UNET_SD | NARROW)
    monkeypatch.setattr(made, "VAE_SD", made.VAE_SD | {"block_out_channels": (32,) * 4, "layers_per_block": 1})
    monkeypatch.setattr(made, "TEXT", made.TEXT | text | {"vocab_size": 600})
    monkeypatch.setattr(made, "VISION", made.VISION | vision)
    small = replace(multiview_net.PUBLIC, channels=(64,) * 4, blocks=1, context=64)
    monkeypatch.setattr(multiview_net, "PUBLIC", small)
    monkeypatch.setattr(multiview_net, "PUBLIC_IMAGE", multiview_net.ResamplerSize(80, 64, 128, 4, 1))


@pytest.mark.parametrize("prior", ["sd", "mvdream", "imagedream"])
def test_the_priors_read_the_checkpoints(prior: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch)
    folder = made.WRITERS[prior](tmp_path, "cpu")
    kind = {"sd": StableDiffusion, "mvdream": MVDream, "imagedream": ImageDream}[prior]
    loaded = kind(checkpoint=str(folder), image_size=64)
    count = loaded.views_per_sample
    reference = Reference(torch.rand(1, 64, 64, 4), orbit(0.0, 0.0, height=64)) if prior == "imagedream" else None
    views = orbit(0.0, [90.0 * i for i in range(count)], height=64)
    condition = loaded.condition(reference, "a cat", views, torch.ones(count, 3))
    z = torch.randn(count, 4, 8, 8)
    answer = loaded.predict(z, torch.full((count,), 500), condition)
    assert answer.cond.shape == z.shape and answer.cond.isfinite().all() and not torch.equal(answer.cond, answer.uncond)


def test_the_full_sizes_are_those_of_the_public_networks() -> None:
    """Numbers of parameters as the public repositories' files have them (Stable Diffusion 2.1: 865,910,724)."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        unet, text = UNet2DConditionModel(**made.UNET_SD), CLIPTextModel(CLIPTextConfig(**made.TEXT))
    assert [sum(p.numel() for p in x.parameters()) for x in (unet, text)] == [865_910_724, 340_387_840]


def test_a_prior_that_fails_is_recorded_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def load(self: public_priors.Measurement) -> dict:
        if self.prior == "sd":
            raise RuntimeError("CUDA out of memory")
        return {"dtype": "float16", "load_s": 2.0, "made_s": 1.0}

    def steps(self: public_priors.Measurement) -> tuple[list[float], dict]:
        return [30.0, 10.0, 20.0], {"peak_allocated_mb": 3000.0, "peak_reserved_mb": 4000.0}

    monkeypatch.setattr(public_priors.Measurement, "load", load)
    monkeypatch.setattr(public_priors.Measurement, "stage_1", steps)
    monkeypatch.setattr(public_priors.Measurement, "stage_2", steps)
    arguments = ["--tiny", "--priors", "sd", "zero123", "--results", str(tmp_path)]
    assert public_priors.main(arguments) == 1
    capsys.readouterr()
    records = [json.loads(line) for line in (tmp_path / "public_priors.jsonl").read_text().splitlines()]
    assert [(r["prior"], r["stage"]) for r in records] == [
        ("sd", "load"),
        *(("zero123", stage) for stage in ("load", "gaussians", "texture")),
    ]
    assert "out of memory" in records[0]["error"] and records[2]["median_s"] == pytest.approx(0.02)
    lines = (tmp_path / "public_priors.md").read_text().splitlines()
    (row,) = [x for x in lines if x.startswith("| `zero123`")]
    assert "| float16 | 2.0 | 20 | 20 | 3000 (4000 reserved) |" in row
    (row,) = [x for x in lines if x.startswith("| `sd`")]
    assert "failed: RuntimeError" in row and page.NOT_YET in row


def test_the_table_replaces_what_stood_between_the_marks(tmp_path: Path) -> None:
    file = tmp_path / "page.md"
    file.write_text(f"# Page\n{page.BEGIN}\nold\n{page.END}\nrest\n")
    page.write_page(file, tmp_path)
    page.write_page(file, tmp_path)
    text = file.read_text()
    assert "old" not in text and text.startswith("# Page\n") and text.endswith("\nrest\n") and text.count("| `sd`") == 1
    assert f"| `mvdream` |  | {page.NOT_YET} |" in text
    file.write_text("no marks")
    with pytest.raises(ValueError, match="measured: begin"):
        page.write_page(file, tmp_path)


def test_each_step_lasts_until_the_next_begins() -> None:
    class Stage:
        def training_step(self, batch: int, index: int) -> None:
            self.step = batch

    with watched(Stage, torch.device("cpu")) as seen:
        for n in (1, 2, 3):
            Stage().training_step(n, 0)
    assert len(seen.milliseconds()) == 3 and all(ms >= 0 for ms in seen.milliseconds())
    assert Stage.training_step.__qualname__.endswith("Stage.training_step")  # as before
