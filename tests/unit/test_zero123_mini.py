"""The embedded prior: network, conditions, checkpoint, training. Random weights but for the shipped file's tests."""

import lightning as L
import pytest
import torch

from dg.core import camera
from dg.core.diffusion import add_noise, x0_from_eps
from dg.data.training_views import make_bank
from dg.meshraster.cpu import CpuMeshRasterizer
from dg.priors import mini_inputs
from dg.priors import zero123_mini as mini
from dg.priors.mini_net import DATA_RMS, MiniConfig, MiniNet, patchify, preconditioning, unpatchify
from dg.stages.muon import MuonAdam, orthogonalised
from dg.stages.prior import PriorStage, Recipe, steps
from dg.stages.prior_batch import network_inputs, spoiled
from dg.types import Reference

TINY = MiniConfig(image_size=32, patch=4, width=32, depth=2, heads=1, modulation=16)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A checkpoint whose network answers something (fresh ones answer zero: gates and head start at zero)."""
    torch.manual_seed(0)
    net = MiniNet(TINY)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.15)
    path = tmp_path_factory.mktemp("mini") / "tiny.safetensors"
    mini.save(net, path, note="random")
    return path, net


@pytest.fixture
def reference() -> Reference:
    rgba = torch.zeros(1, 64, 64, 4)
    rgba[:, 16:52, 20:40] = torch.tensor([0.9, 0.2, 0.1, 1.0])
    rgba[:, 16:30, 30:40, :3] = torch.tensor([0.1, 0.3, 0.8])
    return Reference(rgba, camera.orbit(-10.0, 0.0, 2.0, height=64))


def ask(prior, reference, azimuths=(30.0, 200.0), background=1.0, t=500, seed=0, elevation=0.0):
    cameras = camera.orbit([elevation] * len(azimuths), list(azimuths), 2.0, height=64)
    n, size = len(azimuths), prior.image_size
    cond = prior.condition(reference, None, cameras, torch.full((n, 3), background))
    z = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(seed)).expand(n, -1, -1, -1)
    return prior.predict(z, torch.full((n,), t), cond)


def test_checkpoint_round_trip(tiny):
    path, net = tiny
    loaded, header = mini.load(path)
    assert loaded.config == TINY and header["note"] == "random" and header["format"] == mini.FORMAT
    for name, value in net.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value.half().float(), rtol=0, atol=0)


def test_foreign_and_missing_checkpoints(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="not a zero123_mini checkpoint"):
        mini.Zero123Mini(tmp_path / "a.safetensors")
    with pytest.raises(FileNotFoundError, match="train_zero123_mini"):
        mini.Zero123Mini(tmp_path / "b.safetensors")


def test_encode_resizes_and_keeps_the_gradient(tiny):
    prior = mini.Zero123Mini(tiny[0])
    for size in (32, 64, 48, 20):
        rgb = torch.rand(2, 3, size, size, requires_grad=True)
        z = prior.encode(rgb)
        assert z.shape == (2, 3, 32, 32) and z.min() >= -1.01 and z.max() <= 1.01
        z.square().sum().backward()
        assert (rgb.grad.abs().flatten(1).sum(1) > 0).all()
    rgb = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(prior.encode(rgb)[0, :, 3, 5], 2 * rgb[0, :, 6:8, 10:12].mean((1, 2)) - 1)
    torch.testing.assert_close(prior.decode(prior.encode(rgb[..., :32, :32])), rgb[..., :32, :32])
    assert prior.decode(torch.full((1, 3, 32, 32), 3.0)).max() == 1


def test_answers_are_deterministic_and_depend_on_everything_asked(tiny, reference):
    prior = mini.Zero123Mini(tiny[0])
    first = ask(prior, reference).cond
    assert first.shape == (2, 3, 32, 32) and torch.isfinite(first).all()
    assert torch.equal(first, ask(prior, reference).cond)
    assert torch.equal(first, ask(mini.Zero123Mini(tiny[0]), reference).cond)
    assert not torch.allclose(first[0], first[1])  # another azimuth
    for changed in ({"background": 0.0}, {"t": 300}, {"elevation": -20.0}):
        assert not torch.allclose(first, ask(prior, reference, **changed).cond)
    other = Reference(reference.rgba.flip(2), reference.cameras)
    assert not torch.allclose(first, ask(prior, other).cond)


def test_the_kept_encoding_is_what_would_be_computed(tiny, reference):
    prior = mini.Zero123Mini(tiny[0])
    calls = []
    encode = prior.net.encode
    prior.net.encode = lambda *a: calls.append(1) or encode(*a)
    first = ask(prior, reference).cond
    copy = Reference(reference.rgba.clone(), reference.cameras)
    assert torch.equal(ask(prior, copy).cond, first) and len(calls) == 1
    ask(prior, Reference(reference.rgba * 0.5, reference.cameras))
    assert len(calls) == 2
    assert torch.equal(ask(prior, reference).cond, first) and len(calls) == 3


def test_a_batch_is_its_pictures_one_by_one(tiny, reference):
    prior = mini.Zero123Mini(tiny[0])
    both = ask(prior, reference, (30.0, 200.0)).cond
    for i, azimuth in enumerate((30.0, 200.0)):
        torch.testing.assert_close(ask(prior, reference, (azimuth,)).cond[0], both[i], atol=1e-5, rtol=1e-4)


def test_guidance_is_optional(tiny, reference):
    assert ask(mini.Zero123Mini(tiny[0]), reference).uncond is None
    prior = mini.Zero123Mini(tiny[0], unconditional=True)
    out = ask(prior, reference)
    other = ask(prior, Reference(reference.rgba.flip(2), reference.cameras))
    assert out.uncond.shape == out.cond.shape
    assert torch.equal(out.uncond, other.uncond) and not torch.allclose(out.cond, other.cond)


def test_a_prompt_alone_is_refused(tiny):
    with pytest.raises(ValueError, match="needs a picture"):
        mini.Zero123Mini(tiny[0]).condition(None, "a duck", camera.orbit(0.0, 0.0, 2.0), torch.ones(1, 3))


def test_only_the_difference_of_azimuths_counts(tiny, reference):
    """Turning both cameras about the vertical changes nothing; going up makes the first pose component negative."""
    prior = mini.Zero123Mini(tiny[0])
    turned = Reference(reference.rgba, camera.orbit(-10.0, 75.0, 2.0, height=64))
    a, b = ask(prior, reference, (30.0,)).cond, ask(prior, turned, (105.0,)).cond
    torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-3)
    asked_from = camera.orbit(-40.0, 90.0, 2.0)
    pose = mini_inputs.target_vector(asked_from, reference.cameras, torch.ones(1, 3), torch.zeros(1))
    torch.testing.assert_close(pose[0, :4], torch.tensor([-0.523599, 1.0, 0.0, 0.0]), atol=1e-5, rtol=0)


def test_rays_pass_through_their_patches():
    cameras = camera.orbit([0.0, -30.0], [20.0, 100.0], 2.0, height=64)
    found = mini_inputs.rays(cameras, torch.tensor([20.0, 20.0]), 4)
    direction, moment = found.split(3, -1)
    torch.testing.assert_close(direction.norm(dim=-1), torch.ones(2, 16), atol=1e-5, rtol=0)
    eyes = camera.orbit([0.0, -30.0], [0.0, 80.0], 2.0).position  # turned so that the reference stands at 0
    torch.testing.assert_close(moment, torch.linalg.cross(eyes[:, None].expand(2, 16, 3), direction) / 2)
    point = eyes[0] + direction[0, 6] * (2 / -direction[0, 6, 2])  # row 1, column 2, on the plane z = 0
    pixel, _ = camera.project(point[None], camera.orbit(0.0, 0.0, 2.0, height=64))
    torch.testing.assert_close(pixel[0, 0], torch.tensor([40.0, 24.0]), atol=1e-3, rtol=0)


def test_the_reference_is_composited_on_grey(reference):
    picture = mini_inputs.reference_picture(reference, 32)
    assert picture.shape == (1, 4, 32, 32)
    torch.testing.assert_close(picture[0, :, 20, 12], torch.tensor([0.8, -0.6, -0.8, 1.0]))
    assert picture[0, :, 0, 0].abs().max() == 0


def test_schedule():
    alpha_bar = mini.shifted_cosine()
    assert (alpha_bar.diff() < 0).all() and alpha_bar[0] <= 0.99999 and alpha_bar[-1] >= 9.9e-5
    assert ((1 - alpha_bar[499]) / alpha_bar[499]).sqrt().item() == pytest.approx(2, rel=1e-3)


def test_preconditioning_is_the_best_linear_guess():
    """With F = 0 the answer is the least-squares estimate of x_0 from x_t, and F's target has unit mean square."""
    g = torch.Generator().manual_seed(0)
    x0, eps = DATA_RMS * torch.randn(4096, 1, 1, 1, generator=g), torch.randn(4096, 1, 1, 1, generator=g)
    for a in (0.95, 0.5, 0.01):
        alpha_bar = torch.full((4096,), a)
        x_t = add_noise(x0, eps, alpha_bar[:, None, None, None])
        skip, out, scale = preconditioning(alpha_bar)
        assert (skip[0] - (x0 * x_t).mean() / x_t.square().mean()).abs() < 0.05
        assert ((x0 - skip * x_t) / out).square().mean().item() == pytest.approx(1, abs=0.08)
        assert (x_t * scale).square().mean().item() == pytest.approx(1, abs=0.08)


def test_patches_round_trip():
    x = torch.rand(2, 3, 16, 16)
    assert torch.equal(unpatchify(patchify(x, 4), 4), x)
    torch.testing.assert_close(patchify(x, 4)[0, 6].reshape(3, 4, 4), x[0, :, 4:8, 8:12])


def test_muon_moves_all_directions_alike():
    g = torch.Generator().manual_seed(0)
    m = torch.randn(2, 24, 10, generator=g)
    values = torch.linalg.svdvals(orthogonalised(m))
    assert values.min() > 0.6 and values.max() < 1.25
    left, _, right = torch.linalg.svd(m, full_matrices=False)
    assert torch.nn.functional.cosine_similarity(orthogonalised(m).flatten(), (left @ right).flatten(), 0) > 0.95
    weight = torch.nn.Parameter(torch.zeros(24, 10))
    weight.grad = m[0]
    MuonAdam([weight], [], 1e-3, weight_decay=0.0).step()
    assert weight.square().mean().sqrt().item() == pytest.approx(0.2e-3 * (24 / 24) ** 0.5, rel=0.25)


def test_the_rest_moves_as_adam_moves_it():
    p, q = (torch.nn.Parameter(torch.linspace(-1, 1, 7)) for _ in range(2))
    ours, torchs = MuonAdam([], [p], 0.01), torch.optim.Adam([q], 0.01, betas=(0.9, 0.98), eps=1e-8)
    for k in range(5):
        for x, optimizer in ((p, ours), (q, torchs)):
            optimizer.zero_grad()
            (x - k).pow(4).sum().backward()
            optimizer.step()
    torch.testing.assert_close(p, q, atol=1e-6, rtol=1e-5)


@pytest.fixture(scope="module")
def bank():
    made = make_bank(
        torch.device("cpu"), library=None, procedural=4, rasterizer=CpuMeshRasterizer(), instances=4, targets=2,
        chunk=4, seed=1,
    )  # fmt: skip
    made.refresh()
    return made


def stage(bank, iters: int) -> PriorStage:
    config = MiniConfig(width=32, depth=1, heads=1, modulation=16)
    recipe = Recipe(iters=iters, references=2, targets=2, warmup=1, lr=5e-3, refresh_every=1000, ema=0.5)
    return PriorStage(bank=lambda device: bank, net=config, recipe=recipe, seed=3, log_every=1000)


class SaveAt(L.Callback):
    def __init__(self, step, path):
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer, pl_module, *args):
        if pl_module.step == self.step:
            trainer.save_checkpoint(self.path)


def fit(module: PriorStage, iters: int, start: int = 0, checkpoint=None, callbacks=()):
    quiet = {f"enable_{k}": False for k in ("checkpointing", "progress_bar", "model_summary")}
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=-1, max_steps=iters, logger=False, callbacks=[*callbacks], **quiet
    )
    trainer.fit(module, steps(iters, start), ckpt_path=checkpoint, weights_only=False)


@pytest.mark.filterwarnings("ignore")
def test_training_lowers_the_loss_on_a_fixed_batch_and_resumes(tmp_path, bank):
    whole, half = stage(bank, 12), tmp_path / "half.ckpt"
    fit(whole, 12, callbacks=[SaveAt(8, half)])
    loss = lambda module: float(module._loss(torch.Generator().manual_seed(0)).detach())  # noqa: E731
    fresh = stage(bank, 12)
    fresh.bank = whole.bank
    fresh._run = lambda r, a, b, *rest: fresh.net(*rest, fresh.net.encode(r, a, b))
    assert loss(whole) < 0.8 * loss(fresh)

    resumed = stage(bank, 12)
    fit(resumed, 12, 8, half)
    assert resumed.step == 12
    for a, b in zip(whole.net.parameters(), resumed.net.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    for name, value in whole.average.items():
        torch.testing.assert_close(value, resumed.average[name], atol=1e-5, rtol=1e-4)

    resumed.export(tmp_path / "w.safetensors")
    prior = mini.Zero123Mini(tmp_path / "w.safetensors")
    assert prior.metadata["iters"] == "12" and prior.image_size == 64


def test_training_reads_pictures_as_the_prior_does(tiny, bank):
    """One instance, once through the bank's batch and once through `Zero123Mini.condition`, gives one prediction."""
    batch = bank.batch(1, 2, torch.Generator().manual_seed(2))
    background = torch.ones(2, 3)
    torch.manual_seed(0)
    net = MiniNet(MiniConfig(width=32, depth=2, heads=1, modulation=16))
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.15)
    inputs = network_inputs(batch, background, torch.zeros(1), net.config)
    rgb, alpha = batch.reference[:, :3], batch.reference[:, 3:]
    straight = torch.cat([rgb / alpha.clamp_min(1e-6), alpha], 1).permute(0, 2, 3, 1)
    reference = Reference(straight, batch.reference_cameras)
    prior = mini.Zero123Mini(tiny[0])
    prior.net, prior.image_size = net, 64
    extra = prior.condition(reference, None, batch.cameras, background).extra
    torch.testing.assert_close(extra.rays, inputs.rays, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(extra.vector, inputs.vector, atol=1e-5, rtol=1e-4)
    for kept, expected in zip(extra.reference, net.encode(*inputs.reference), strict=True):
        torch.testing.assert_close(kept[0], expected[0], atol=1e-3, rtol=1e-3)


def test_spoiling_spares_what_is_not_chosen():
    x0 = torch.rand(8, 3, 64, 64) * 2 - 1
    same, chosen = spoiled(x0, 4, 0.0, torch.Generator().manual_seed(0))
    assert torch.equal(same, x0) and chosen.sum() == 0
    changed, chosen = spoiled(x0, 4, 1.0, torch.Generator().manual_seed(0))
    assert chosen.sum() == 8 and (changed - x0).abs().flatten(1).mean(1).min() > 0.01
    assert changed.min() >= -1 and changed.max() <= 1


shipped = pytest.mark.skipif(not mini.WEIGHTS.is_file(), reason="no weights are shipped")


@shipped
def test_the_shipped_weights_denoise_the_reference_view(reference):
    """From half noise, asked for the reference's own view: closer to the truth than with the picture withheld."""
    assert mini.WEIGHTS.stat().st_size < 30e6
    prior = mini.Zero123Mini(unconditional=True)
    flat = torch.ones(1, 3)
    cond = prior.condition(reference, None, reference.cameras, flat)
    rgba = reference.rgba.permute(0, 3, 1, 2)
    x0 = prior.encode(rgba[:, :3] * rgba[:, 3:] + 1 - rgba[:, 3:])
    t = torch.tensor([700])
    alpha_bar = prior.alpha_bar[t][:, None, None, None]
    x_t = add_noise(x0, torch.randn(x0.shape, generator=torch.Generator().manual_seed(0)), alpha_bar)
    out = prior.predict(x_t, t, cond)
    error = lambda eps: (x0_from_eps(x_t, eps, alpha_bar) - x0).square().mean().item()  # noqa: E731
    assert error(out.cond) < 0.03 and error(out.cond) < 0.5 * error(out.uncond)
    black = prior.condition(reference, None, reference.cameras, torch.zeros(1, 3))
    corner = x0_from_eps(x_t, prior.predict(x_t, torch.tensor([999]), black).cond, alpha_bar)[..., :4, :4]
    assert torch.isfinite(corner).all()
