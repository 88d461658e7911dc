"""Stage 2 on a small mesh with an oracle."""

from dataclasses import replace

import lightning as L
import pytest
import torch

from dg.core.camera import orbit
from dg.core.rng import generator
from dg.eval.lpips import lpips
from dg.losses.refine import SDEditLPIPS, SDEditMSE
from dg.meshraster.cpu import CpuMeshRasterizer
from dg.meshraster.render import render_mesh
from dg.priors.oracle import MeshScore
from dg.stages.gaussians import steps
from dg.stages.texture import RefineOptions, TextureStage, ceil8, draw_ssaa, rescale
from dg.stages.views import OrbitSampler
from dg.types import Mesh, Reference
from tests.fake_alexnet import write_random_alexnet
from tests.shapes import ball

RASTER = CpuMeshRasterizer()


def picture(seed: int, size: int = 64) -> torch.Tensor:
    coarse = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    big = torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear", align_corners=True)
    return big[0].permute(1, 2, 0).contiguous()


def error(mesh: Mesh, truth: Mesh) -> float:
    cameras = orbit([0, 0, -20, 20], [30, 120, 210, 300], 2.0, height=96)
    white = torch.ones(3)
    return float(
        (render_mesh(mesh, cameras, RASTER, white).rgb - render_mesh(truth, cameras, RASTER, white).rgb).square().mean()
    )


def stage_of(mesh: Mesh, truth: Mesh, iters: int = 25, reference=None, **options) -> TextureStage:
    return TextureStage(
        mesh=mesh,
        reference=reference,
        prompt=None,
        prior=MeshScore(rasterizer=RASTER, mesh=truth, image_size=64),
        mesh_raster=RASTER,
        camera=OrbitSampler(),
        options=RefineOptions(**({"loss": SDEditMSE(), "size": 96, "reference_size": 96} | options)),
        iters=iters,
        seed=0,
    )


def trainer(max_steps: int) -> L.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return L.Trainer(accelerator="cpu", max_epochs=-1, max_steps=max_steps, enable_checkpointing=False, **quiet)


def refine(mesh: Mesh, truth: Mesh, iters: int = 25, reference=None, **options) -> TextureStage:
    stage = stage_of(mesh, truth, iters, reference, **options)
    trainer(iters).fit(stage, steps(iters))
    return stage


@pytest.mark.parametrize(
    ("size", "ssaa", "expected"),
    [(512, 0.125, 64), (512, 0.3, 160), (512, 1.37, 704), (512, 2.0, 1024), (256, 0.125, 32)],
)
def test_supersampled_sizes_of_the_release(size, ssaa, expected):
    assert ceil8(size * ssaa) == expected


def test_supersampling_is_clipped_one_time_in_sixteen():
    draws = [draw_ssaa(generator(0, "ssaa", i), 2.0) for i in range(4000)]
    assert min(draws) == 0.125 and max(draws) <= 2.0
    assert sum(d == 0.125 for d in draws) / 4000 == pytest.approx(1 / 16, abs=0.012)


def test_rescale_keeps_constants_and_sizes():
    flat = torch.full((1, 24, 24, 3), 0.3)
    for size in (8, 24, 57):
        torch.testing.assert_close(rescale(flat, size, size), torch.full((1, size, size, 3), 0.3))


def test_an_oracle_repairs_a_spoiled_texture():
    truth = ball(picture(0))
    spoiled = ball((picture(0) + 0.5 * picture(1)).clamp(0, 1))
    before = error(spoiled, truth)
    assert error(refine(spoiled, truth).mesh(), truth) < 0.5 * before


def test_a_good_texture_is_not_made_worse():
    """The prior's picture is smaller than the render: at the render's size its blur would overwrite detail."""
    fine = (torch.arange(64)[:, None] // 2 + torch.arange(64) // 2) % 2
    truth = ball(0.25 + 0.5 * fine[..., None].expand(-1, -1, 3).float())
    careful = error(refine(truth, truth, loss=SDEditMSE(t_start_ratio=0.1), lr=0.05).mesh(), truth)
    careless = SDEditMSE(t_start_ratio=0.1, compare_at_prior_size=False)
    assert careful < 1e-3
    assert careful < 0.75 * error(refine(truth, truth, loss=careless, lr=0.05).mesh(), truth)


def test_the_known_view_is_held_where_it_faces_us():
    truth = ball(picture(0))
    grey = ball(torch.full((64, 64, 3), 0.5))
    camera = orbit(0, 0, 2.0, height=96)
    seen = render_mesh(truth, camera, RASTER, torch.zeros(3))
    reference = Reference(torch.cat([seen.rgb, seen.alpha], -1), camera)
    stage = refine(grey, truth, iters=40, reference=reference, loss=SDEditMSE(weight=0.0))
    after = render_mesh(stage.mesh(), camera, RASTER, torch.zeros(3))
    facing = (seen.viewcos > 0.7) & (seen.alpha > 0)
    before = ((0.5 - seen.rgb) * facing).square().sum()
    assert ((after.rgb - seen.rgb) * facing).square().sum() < 0.1 * before
    changed = (stage.mesh().texture - grey.texture).abs().amax(-1) > 1e-4
    behind = changed[:, 24:40]  # u = 0.5 is the back: no pixel of the known view ever touched it
    assert not behind[16:48].any() and changed.any()


def test_lpips_against_the_targets(tmp_path, monkeypatch):
    """Random features of the public layout: the distance is the metric's, and it too leads to the oracle's texture."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"net=alex cannot be had"):
        SDEditLPIPS(net="alex")
    write_random_alexnet(tmp_path)
    shown, refined = torch.rand(2, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    shown.requires_grad_()
    loss = SDEditLPIPS(net="alex", mse_weight=2.0)
    pictures = (x.detach().permute(0, 2, 3, 1) for x in (shown, refined))
    expected = lpips(*pictures, "alex").mean() + 2 * (shown - refined).square().mean()
    torch.testing.assert_close(loss.difference(shown, refined), expected)
    assert torch.autograd.grad(loss.difference(shown, refined), shown)[0].abs().sum() > 0
    truth, spoiled = ball(picture(0)), ball((picture(0) + 0.5 * picture(1)).clamp(0, 1))
    refined = refine(spoiled, truth, iters=15, loss=SDEditLPIPS(net="alex"), lr=0.1).mesh()
    assert error(refined, truth) < 0.8 * error(spoiled, truth)


def test_a_mesh_without_texture_is_refused():
    mesh = ball(picture(0))
    with pytest.raises(ValueError, match="needs a mesh with uv"):
        refine(Mesh(mesh.vertices, mesh.faces), mesh)


def test_an_interrupted_stage_ends_as_the_unbroken_one_bit_for_bit(tmp_path):
    truth, spoiled = ball(picture(0)), ball(picture(1))
    whole = refine(spoiled, truth, iters=9)
    first = trainer(4)
    first.fit(stage_of(spoiled, truth, 9), steps(9))
    first.save_checkpoint(tmp_path / "texture.ckpt")
    second = stage_of(spoiled, truth, 9)
    trainer(9).fit(second, steps(9, 4), ckpt_path=tmp_path / "texture.ckpt", weights_only=False)
    assert second.step == 9
    assert torch.equal(second.logits, whole.logits)
    moments, wanted = (s.optimizers().optimizer.state_dict()["state"][0] for s in (second, whole))
    assert all(torch.equal(moments[key], wanted[key]) for key in ("step", "exp_avg", "exp_avg_sq"))
    forgetful = refine(replace(spoiled, texture=first.lightning_module.mesh().texture), truth, iters=9)
    assert not torch.equal(
        forgetful.logits, whole.logits
    )  # the state matters: a restart from its texture ends elsewhere


def test_a_gradient_that_is_not_finite_is_named_and_changes_nothing():
    truth = ball(picture(0))

    def explodes(rgb, prior, condition, draw, frac):
        assert frac <= 0.5
        loss = (rgb * 0).sum().sqrt() if frac == 0.5 else rgb.mean()  # the derivative of sqrt at 0 is infinite
        return loss, {}

    stage = stage_of(truth, truth, 6, loss=explodes)
    with pytest.raises(FloatingPointError, match=r"stage texture, step 3: the gradient of the texture's logits is not"):
        trainer(6).fit(stage, steps(6))
    assert torch.equal(stage.logits, refine(truth, truth, 2, loss=explodes_never).logits)


def explodes_never(rgb, prior, condition, draw, frac):
    return rgb.mean(), {}
