"""Designs of the prior under comparison (`experiments/prior_design`): networks, noise levels, losses, the table."""

import argparse
import json
import math
from dataclasses import replace

import pytest
import torch

from dg.data.training_views import make_bank
from dg.meshraster.cpu import CpuMeshRasterizer
from dg.priors import zero123_mini as mini
from dg.priors.mini_net import DATA_RMS, Block, MiniConfig, MiniNet
from experiments.prior_design import figures, probe, records, running
from experiments.prior_design.__main__ import shard
from experiments.prior_design.autoencoder import Autoencoder
from experiments.prior_design.levels import RATIOS, alpha_bar_at, step_at
from experiments.prior_design.nets import VariedNet, ViewsNet, together
from experiments.prior_design.unet import UNet
from experiments.prior_design.variants import VARIANTS

SMALL = {"width": 32, "depth": 2, "heads": 2, "modulation": 16}


def small(name):
    """A variant with a narrow network."""
    variant = VARIANTS[name]
    narrow = (lambda config: UNet(config, (16, 64), 1)) if name == "unet" else variant.make
    return replace(variant, config=replace(variant.config, **SMALL), make=narrow)


def build(name):
    """Random everywhere: a fresh network answers zero."""
    torch.manual_seed(0)
    net = small(name).build()
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.1)
    return net


def arguments(net, channels=3, side=64, references=1, targets=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=g)  # noqa: E731
    n, config, b = net.config.grid**2, net.config, references * targets
    reference = draw(references, 4, 64, 64), draw(references, n, 6), draw(references, config.reference_dim)
    rest = draw(b, channels, side, side), torch.full((b,), 400.0), torch.full((b,), 0.3), draw(b, n, 6), draw(b, 20)
    return reference, rest


@pytest.fixture(scope="module")
def bank():
    made = make_bank(
        torch.device("cpu"), library=None, procedural=3, rasterizer=CpuMeshRasterizer(), instances=3, targets=4,
        chunk=3, seed=1,
    )  # fmt: skip
    made.refresh()
    return made


@pytest.mark.parametrize("name", list(VARIANTS))
def test_shapes_and_gradients(name):
    net, variant = build(name), VARIANTS[name]
    channels, side = (variant.latent, 16) if variant.latent else (3, 64)
    reference, rest = arguments(net, channels, side, references=2)
    out, x0 = net(*rest, net.encode(*reference))
    assert out.shape == x0.shape == (8, channels, side, side)
    (out.square().mean() + x0.square().mean()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())
    silent = {n for n, p in net.named_parameters() if not p.grad.any()}
    assert not silent, silent
    other = net(*rest, net.encode(-reference[0], *reference[1:]))[0]
    assert not torch.allclose(out, other)  # it looks at the reference
    turned = net(*rest[:4], -rest[4], net.encode(*reference))[0]
    assert not torch.allclose(out, turned)  # and at the pose


@pytest.mark.parametrize("name", ["base", "unet", "concat", "pose4", "latent"])
def test_targets_are_denoised_one_by_one(name):
    net = build(name)
    channels, side = (8, 16) if name == "latent" else (3, 64)
    reference, rest = arguments(net, channels, side, references=2, targets=2)
    both = net(*rest, net.encode(*reference))[0]
    kept = net.encode(*(x[1:] for x in reference))
    torch.testing.assert_close(net(*(x[3:] for x in rest), kept)[0], both[3:], atol=1e-4, rtol=1e-3)


def test_four_views_see_each_other_but_no_other_group():
    net = build("four_views")
    reference, rest = arguments(net, references=2, targets=4)
    x = rest[0].clone()
    x[3] += 1
    before, after = (net(y, *rest[1:], net.encode(*reference))[0] for y in (rest[0], x))
    assert all(not torch.allclose(before[i], after[i]) for i in range(4))
    torch.testing.assert_close(before[4:], after[4:])


def test_a_group_of_one_is_the_shipped_block():
    torch.manual_seed(0)
    config = MiniConfig(**SMALL, image_size=16)
    net, block = ViewsNet(config), Block(config)
    torch.nn.init.normal_(block.modulation.weight)
    x, c, context = torch.randn(3, 16, 32), torch.randn(3, 16), (torch.randn(3, 2, 5, 16), torch.randn(3, 2, 5, 16))
    expected = block(x, c, net.cos, net.sin, context)[0]
    torch.testing.assert_close(together(block, x, c, net.cos, net.sin, context, 1), expected)


def test_the_varied_network_unvaried_is_the_shipped_one():
    net, varied = build("base"), VariedNet(small("base").config)
    varied.load_state_dict(net.state_dict())
    reference, rest = arguments(net)
    torch.testing.assert_close(varied(*rest, varied.encode(*reference)), net(*rest, net.encode(*reference)))


def test_pose4_is_blind_to_rays_and_elevations():
    net = build("pose4")
    reference, rest = arguments(net)
    out = net(*rest, net.encode(*reference))[0]
    vector, vector0 = rest[4].clone(), reference[2].clone()
    vector[:, 4:16] += 1
    vector0[:, :6] += 1
    same = net(*rest[:3], rest[3] + 1, vector, net.encode(reference[0], reference[1] + 1, vector0))[0]
    torch.testing.assert_close(out, same)


def test_big_networks_are_about_as_big_as_the_shipped_one():
    sizes = {name: probe.parameters(v.build()) for name, v in VARIANTS.items() if name != "patch8"}
    assert all(0.8 < size / sizes["base"] < 1.5 for size in sizes.values()), sizes


@pytest.mark.parametrize("shift", [1.0, 2.0, 4.0, VARIANTS["latent"].shift])
@pytest.mark.parametrize("ratio", [*RATIOS, RATIOS[0] * VARIANTS["latent"].level])
def test_levels_match_between_schedules(shift, ratio):
    """Against the formula of the schedule, and against the table of it."""
    alpha_bar = mini.shifted_cosine(shift=shift)
    t = step_at(alpha_bar, ratio)
    u = math.atan(ratio / shift) / (math.pi / 2 * 0.9999)
    assert t == pytest.approx(1000 * u - 1, abs=0.02)
    a2 = float(alpha_bar[round(t)])
    assert math.sqrt((1 - a2) / a2) == pytest.approx(ratio, rel=0.012)
    assert math.sqrt((1 - alpha_bar_at(ratio)) / alpha_bar_at(ratio)) == pytest.approx(ratio)
    with pytest.raises(ValueError, match="outside of the schedule"):
        step_at(alpha_bar, 1e4)


def test_the_shipped_schedule_has_the_levels_at_the_model_cards_steps():
    alpha_bar = mini.shifted_cosine()
    assert [round(step_at(alpha_bar, r), -1) for r in RATIOS] == [200, 400, 600, 800, 900]


def test_the_epsilon_loss_weighs_noise_alike(bank):
    """weight |dF|^2 is |d eps|^2 up to one factor for all levels."""
    stage = probe.ProbeStage(small("weighting"), budget(), bank)
    a2 = torch.tensor([0.9, 0.5, 0.01])
    c_out2 = DATA_RMS**2 * (1 - a2) / (a2 * DATA_RMS**2 + 1 - a2)
    of_noise = c_out2 * a2 / (1 - a2)  # |d eps|^2 of |dF|^2 = 1
    torch.testing.assert_close(stage.weight(a2), of_noise)
    assert torch.equal(probe.ProbeStage(small("base"), budget(), bank).weight(a2), torch.ones(3))


def budget(seconds=0.3):
    return probe.Budget(seconds, references=2, targets=2, seed=0, compile=False, warm=1)


def test_groups_share_their_noise_level(bank):
    stage = probe.ProbeStage(small("four_views"), budget(), bank)
    assert (stage.recipe.references, stage.recipe.targets) == (1, 4)
    t = stage.times(8, torch.Generator().manual_seed(0)).reshape(2, 4)
    assert (t == t[:, :1]).all() and t[0, 0] != t[1, 0]


def test_the_rate_rises_stays_and_falls():
    assert probe.rate(0.0, 1) < probe.rate(0.05, 1) < probe.rate(0.1, 1) == probe.LR == probe.rate(0.5, 500)
    assert probe.rate(0.75, 500) == pytest.approx(probe.LR / 2) and probe.rate(1.0, 500) < 0.01 * probe.LR


@pytest.mark.parametrize("name", ["base", "latent"])
def test_a_probe_trains_and_is_measured(name, bank, tmp_path):
    variant = small(name)
    before = probe.ProbeStage(variant, budget(), bank)
    stage, trained, changed = probe.with_fallbacks(variant, budget(1.0), bank, lambda text: None)
    assert trained.steps > 1 and trained.pictures == 4 * trained.steps and 0.9 < trained.seconds < 10
    assert changed == {"compiled": False, "references": 2}
    moved = [not torch.equal(a, b) for a, b in zip(before.net.parameters(), stage.net.parameters(), strict=True)]
    assert any(moved)
    held = figures.held_out(stage.averaged(), stage, bank, stage.alpha_bar, 2, variant.level)
    assert len(held.x0_psnr) == len(RATIOS) and held.x0_psnr[0] > held.x0_psnr[-1] and 0 < held.blank_psnr < 40
    sampled, sheet = figures.samples(stage.averaged(), stage, bank, stage.alpha_bar, 1, draws=2, steps=2)
    assert sheet.shape == (192, 256, 3) and sampled.mean_psnr >= sampled.one_psnr and 0 <= sampled.mean_iou <= 1


def test_warming_up_leaves_the_weights(bank):
    stage, fresh = (probe.ProbeStage(small("base"), budget(), bank) for _ in range(2))
    stage.warm()
    for a, b in zip(stage.net.parameters(), fresh.net.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert not stage.tally.any()


def test_latents_have_the_scale_that_the_preconditioning_expects():
    torch.manual_seed(0)
    net = Autoencoder(8, width=16)
    x = torch.rand(8, 3, 64, 64) * 2 - 1
    net.measure(x)
    z = net.encode(x)
    assert z.shape == (8, 8, 16, 16) and net.decode(z).shape == x.shape
    torch.testing.assert_close(z.std((0, 2, 3)), torch.full((8,), DATA_RMS), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(8), rtol=0, atol=1e-3)


def good(name, mean, **more):
    facts = {"variant": name, "failure": None, "compiled": True, "x0_mean": mean, "x0_psnr": [mean] * 5}
    facts |= {"without_picture": [20.0] * 5, "parameters": 12_100_000, "pictures_per_s": 7000.0, "pictures": 800_000}
    facts |= {"ms_gpu": 3.0, "ms_cpu": None, "device": "GPU", "budget_s": 120.0, "revision": "abc", "seed": 0}
    return facts | {"copy_psnr": 16.0, "blank_psnr": 15.0, **more}


def test_the_table_is_sorted_and_keeps_failures(tmp_path):
    path = tmp_path / "records.jsonl"
    samples = {"one_psnr": 17.0, "mean_psnr": 19.0, "one_iou": 0.6, "mean_iou": 0.7}
    lines = [
        good("base", 23.0),
        {"variant": "unet", "failure": "RuntimeError: a|b"},
        good("deep", 24.5, samples=samples),
    ]
    for line in [good("base", 1.0), *lines]:
        records.append(path, line)
    with path.open("a") as file:
        file.write('{"variant": "cut o')
    found = records.read(path)
    assert records.done(found) == {"base", "deep"}
    rows = records.table(found).splitlines()
    assert [row.split(" | ")[0] for row in rows[2:5]] == ["| deep", "| base", "| unet"]
    assert "| 24.50 | +1.50 |" in rows[2] and "| 19.00 | 0.700 |" in rows[2] and "failed: RuntimeError: a/b" in rows[4]
    assert all(row.count("|") == rows[0].count("|") for row in rows[1:5])
    readme = tmp_path / "README.md"
    readme.write_text(f"above\n{records.BEGIN}\nold\n{records.END}\nbelow\n")
    records.write_table(records.table(found), readme)
    text = readme.read_text()
    assert text.startswith("above\n") and text.endswith("\nbelow\n") and "24.50" in text and "old" not in text
    assert records.BEGIN in records.README.read_text() and records.END in records.README.read_text()


def test_shards_cover_everything_once():
    options = lambda part: argparse.Namespace(variants=None, shard=shard(part))  # noqa: E731
    halves = [running.chosen(options(part)) for part in ("1/2", "2/2")]
    names = [v.name for half in halves for v in half]
    assert sorted(names) == sorted(VARIANTS) and abs(len(halves[0]) - len(halves[1])) <= 1
    with pytest.raises(argparse.ArgumentTypeError, match="halves are 1/2 and 2/2"):
        shard("0/2")
    with pytest.raises(ValueError, match="No variant 'x'"):
        running.chosen(argparse.Namespace(variants=["x"], shard=(1, 1)))


def test_a_failure_is_a_record_and_does_not_stop(bank, monkeypatch, capsys):
    def broken(config):
        raise RuntimeError("no such layer\nmore")

    variant = replace(VARIANTS["base"], make=broken)
    options = argparse.Namespace(
        references=2, targets=2, seconds=0.1, seed=0, no_compile=True, revision="abc", sample=False
    )
    record = running.run_one(variant, options, bank, bank)
    assert record["failure"] == "RuntimeError: no such layer" and record["variant"] == "base"
    json.dumps(record)


def test_the_base_is_what_is_shipped():
    assert isinstance(VARIANTS["base"].build(), MiniNet) and VARIANTS["base"].config == MiniConfig()
    assert VARIANTS["base"].shift == 2.0
