"""LPIPS with random weights of the backbone, stored as torchvision stores its own."""

import pytest
import torch

from dg.eval.lpips import distance, lpips, missing, needed
from tests.fake_alexnet import write_random_alexnet


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    return tmp_path


def test_absent_weights_are_a_reason_and_no_download(cache):
    assert "hub/checkpoints/vgg16-397923af.pth" in missing("vgg")
    with pytest.raises(ValueError, match=r"lpips_alex: torchvision's weights are not in torch's cache"):
        lpips(torch.zeros(1, 64, 64, 3), torch.zeros(1, 64, 64, 3), "alex")
    with pytest.raises(FileNotFoundError, match=r"net=vgg cannot be had: .*models\.vgg16\(weights=.*checkpoints"):
        needed("vgg")


def test_equals_the_paper_written_out(cache):
    import torchmetrics.functional.image.lpips as theirs

    state = write_random_alexnet(cache)
    assert missing("alex") is None

    a, b = torch.rand(2, 2, 70, 64, 3, generator=torch.Generator().manual_seed(1))
    a.requires_grad_()
    found = lpips(a, b, "alex")

    def features(picture):
        x = 2 * picture.movedim(-1, 1) - 1
        x = (x - torch.tensor([-0.030, -0.088, -0.188])[:, None, None]) / torch.tensor([0.458, 0.448, 0.450])[
            :, None, None
        ]
        out = []
        for index, (stride, padding) in {0: (4, 2), 3: (1, 2), 6: (1, 1), 8: (1, 1), 10: (1, 1)}.items():
            x = torch.nn.functional.max_pool2d(x, 3, 2) if index in (3, 6) else x
            weight, bias = state[f"features.{index}.weight"], state[f"features.{index}.bias"]
            x = torch.nn.functional.conv2d(x, weight, bias, stride, padding).relu()
            out.append(x / x.square().sum(1, keepdim=True).sqrt().clamp_min(1e-10))
        return out

    folder = theirs.__file__.replace("lpips.py", "lpips_models/alex.pth")
    linear = list(torch.load(folder, weights_only=True, map_location="cpu").values())
    layers = zip(features(a), features(b), linear, strict=True)
    expected = sum(((x - y).square() * w).sum(1).mean((1, 2)) for x, y, w in layers)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    (wanted,) = torch.autograd.grad(expected.sum(), a)
    (gradient,) = torch.autograd.grad(distance(a, b, "alex").sum(), a)
    assert not found.requires_grad and gradient.abs().max() > 0
    torch.testing.assert_close(gradient, wanted, atol=1e-6 * float(wanted.abs().max()), rtol=2e-3)
    assert lpips(a, a, "alex").abs().max() == 0
