import pytest
import torch

from dg.core.diffusion import add_noise, eps_from_x0, scaled_linear_alpha_bar
from dg.core.distill import SDS, gradient_as_loss, weight_of_t
from dg.types import Prediction

ALPHA_BAR = scaled_linear_alpha_bar()


def exact(x0):
    return lambda z_t, t: Prediction(eps_from_x0(z_t, x0, ALPHA_BAR[t].reshape(-1, 1, 1, 1)))


def test_gradient_as_loss_has_that_gradient():
    z = torch.randn(2, 3, 4, 4, requires_grad=True)
    grad = torch.randn(2, 3, 4, 4)
    gradient_as_loss(z, grad).backward()
    torch.testing.assert_close(z.grad, grad)


def test_nan_becomes_zero():
    z = torch.zeros(1, 1, 1, 2, requires_grad=True)
    gradient_as_loss(z, torch.tensor([float("nan"), 2.0]).reshape(1, 1, 1, 2)).backward()
    assert z.grad.flatten().tolist() == [0.0, 2.0]


@pytest.mark.parametrize("t", [20, 500, 980])
def test_sds_of_a_point_mass_has_its_closed_form(t):
    """w (eps_hat - eps) = (1 - a) sqrt(a / (1 - a)) (x - x*): the noise cancels."""
    x0, z, eps = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
    a = ALPHA_BAR[t]
    grad = SDS(scale_to_elements=None).gradient(exact(x0), z, torch.tensor([t, t]), eps, ALPHA_BAR)
    torch.testing.assert_close(grad, (a * (1 - a)).sqrt() * (z - x0), atol=1e-5, rtol=1e-4)


def test_loss_divides_by_the_batch_and_rescales_the_sum():
    x0, z = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8, requires_grad=True)
    eps, t = torch.randn(2, 3, 8, 8), torch.tensor([300, 300])
    sds = SDS(weight=2.0, scale_to_elements=4096)
    sds.loss(exact(x0), z, t, eps, ALPHA_BAR).backward()
    plain = SDS(scale_to_elements=None).gradient(exact(x0), z.detach(), t, eps, ALPHA_BAR)
    torch.testing.assert_close(z.grad, plain * 2.0 * 4096 / (3 * 64) / 2)


def test_guidance_uses_both_predictions():
    z, eps = torch.rand(1, 1, 2, 2), torch.randn(1, 1, 2, 2)
    cond, uncond = torch.randn(1, 1, 2, 2), torch.randn(1, 1, 2, 2)
    t = torch.tensor([500])
    seen = []

    def predict(z_t, t):
        seen.append(z_t)
        return Prediction(cond, uncond)

    sds = SDS(guidance_scale=5.0, weighting="uniform", scale_to_elements=None)
    grad = sds.gradient(predict, z, t, eps, ALPHA_BAR)
    torch.testing.assert_close(grad, uncond + 5 * (cond - uncond) - eps)
    torch.testing.assert_close(seen[0], add_noise(z, eps, ALPHA_BAR[500]))


def test_weightings():
    a = torch.tensor(0.36)
    assert weight_of_t(a, "1-alpha_bar").item() == pytest.approx(0.64)
    assert weight_of_t(a, "uniform").item() == 1
    assert weight_of_t(a, "fantasia3d").item() == pytest.approx(0.6 * 0.64)
    with pytest.raises(ValueError, match="unknown weighting 'sigma'"):
        weight_of_t(a, "sigma")


def test_descending_the_gradient_finds_the_point():
    x0 = torch.rand(1, 3, 8, 8)
    z = torch.full_like(x0, 0.5).requires_grad_()
    optimizer = torch.optim.Adam([z], lr=0.05)
    for step in range(200):
        optimizer.zero_grad()
        eps = torch.randn(z.shape, generator=torch.Generator().manual_seed(step))
        SDS().loss(exact(x0), z, torch.tensor([500]), eps, ALPHA_BAR).backward()
        optimizer.step()
    torch.testing.assert_close(z.detach(), x0, atol=0.02, rtol=0)
