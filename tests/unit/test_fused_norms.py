"""Networks whose group norms have been replaced: they answer as before, and pictures keep their order in them."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from dg.core.camera import orbit
from dg.core.rng import generator
from dg.priors import graphs
from dg.priors.adapter import LowRankAdapter
from dg.priors.checkpoint import load_model
from dg.priors.fused_norms import FusedGroupNorm, fuse_group_norms
from dg.priors.graphs import fast_layout
from dg.priors.group_norm import kernels_work
from dg.priors.one_token import spare_queries
from dg.priors.token_merging import merge_tokens
from dg.types import Condition
from tests import tiny_checkpoints

CUDA = torch.device("cuda")


def noise(label: str, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(0, label))


def in_order(x: torch.Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last)


def _unet(**own) -> nn.Module:
    from diffusers import UNet2DConditionModel

    usual = {
        "sample_size": 8,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "cross_attention_dim": 12,
        "attention_head_dim": 2,
    }
    return UNet2DConditionModel(**usual | own)


def _vae() -> nn.Module:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        norm_num_groups=4,
    )


def _multi_view() -> nn.Module:
    from dg.priors.multiview_net import MultiViewUNet, NetSize

    return MultiViewUNet(NetSize(4, 4, (64, 128), (True, False), 1, 1, 24, 16))


NETWORKS = {
    "UNet": _unet,
    "UNet, linear": lambda: _unet(use_linear_projection=True),
    "VAE": _vae,
    "multi-view UNet": _multi_view,
}


def _made(name: str) -> nn.Module:
    torch.manual_seed(0)
    network = NETWORKS[name]().requires_grad_(False).eval()
    for norm in network.modules():
        if isinstance(norm, nn.GroupNorm):  # as trained ones are: neither ones nor zeros
            norm.weight.normal_(1, 0.3)
            norm.bias.normal_()
    return network


def _both(network: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """The answer, and the gradient on the input of a sum of it."""
    like = next(network.parameters())
    draw = lambda label, *shape: noise(label, *shape).to(like)  # noqa: E731
    if hasattr(network, "encode"):
        x = draw("picture", 1, 3, 24, 16).requires_grad_()
        answer = network.decode(network.encode(x).latent_dist.mode()).sample
    else:
        x, t = draw("z", 4, 4, 8, 16).requires_grad_(), torch.tensor([5, 600, 5, 900], device=like.device)
        if hasattr(network, "camera_embed"):
            answer = network(x, t, draw("text", 4, 3, 24), draw("camera", 4, 16), frames=4)
        else:
            answer = network(x, t, encoder_hidden_states=draw("text", 4, 3, 12)).sample
    slope = draw("slope", *answer.shape)
    return answer.detach(), torch.autograd.grad(answer, x, slope)[0]


def _unfused(network: nn.Module) -> list[str]:
    return [name for name, module in network.named_modules() if type(module) in (nn.GroupNorm, nn.SiLU)]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_answers_as_before(name):
    network = _made(name)
    norms = sum(type(module) is nn.GroupNorm for module in network.modules())
    before, keys = _both(network), list(network.state_dict())
    assert fuse_group_norms(network) == norms > 8 and fuse_group_norms(network) == 0
    assert list(network.state_dict()) == keys
    assert not [n for n in _unfused(network) if "time_emb" not in n and "camera_emb" not in n and "emb_layers" not in n]
    for layout in (torch.contiguous_format, torch.channels_last):
        for found, true in zip(_both(network.to(memory_format=layout)), before, strict=True):
            torch.testing.assert_close(found, true, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_no_layer_is_handed_another_order_than_channels_last(name):
    """Copies are what is to be spared. torch's norms keep the order on a CPU, as the kernels do on a GPU."""
    network, wrong = _made(name), []
    fuse_group_norms(network)
    network.to(memory_format=torch.channels_last)

    def look(module, inputs, name):
        x = inputs[0]
        if not in_order(x if x.ndim == 4 else x.unsqueeze(-1)):
            wrong.append(name)

    for part, layer in network.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.GroupNorm)):
            layer.register_forward_pre_hook(lambda module, inputs, part=part: look(module, inputs, part))
    _both(network)
    # the inputs of the networks, and the mean, which is half of the encoder's channels
    assert set(wrong) <= {"conv_in", "encoder.conv_in", "post_quant_conv", "input_blocks.0.0"}


@pytest.mark.parametrize("tokens", [1, 3])
def test_what_else_changes_a_network_works_with_them(tokens):
    """LoRA with a camera in the time's embedding, merged tokens, spared queries: values and gradients as before."""

    def adapted(fused):
        network = _made("UNet")
        if fused:
            fuse_group_norms(network)
        merge_tokens(network, 0.5)
        spare_queries(network)
        ask = lambda z, t, cond: network(z, t, encoder_hidden_states=noise("text", 2, tokens, 12)).sample  # noqa: E731
        adapter = LowRankAdapter(network, ask, generator(0, "adapter"), 2, time_embedding="time_embedding")
        for i, p in enumerate(adapter.parameters()):
            p.data = 0.1 * noise(str(i), *p.shape)  # half of them are zero at first
        cond = Condition(orbit(0.0, [0.0, 90.0], 2.0, height=8), torch.ones(2, 3), None)
        answer = adapter.predict(noise("z", 2, 4, 8, 8), torch.tensor([5, 600]), cond)
        (answer * noise("slope", *answer.shape)).sum().backward()
        return {"answer": answer.detach()} | {n: p.grad for n, p in adapter.named_parameters() if p.grad is not None}

    found, true = adapted(fused=True), adapted(fused=False)
    assert found.keys() == true.keys() and len(true) > 40 and true["camera.into.weight"].any()
    for name, value in true.items():
        torch.testing.assert_close(found[name], value, atol=1e-4 * float(value.abs().max()), rtol=0, msg=name)


def test_copies_are_independent():
    network = _made("UNet")
    fuse_group_norms(network)
    before, other = _both(network), copy.deepcopy(network)
    for tensor in (*network.parameters(), *network.buffers()):
        tensor.zero_()
    for copied in (other, pickle.loads(pickle.dumps(other))):
        assert all(torch.equal(found, true) for found, true in zip(_both(copied), before, strict=True))
    assert not any(torch.equal(found, true) for found, true in zip(_both(network), before, strict=True))


def test_what_is_built_differently_is_left_alone():
    for own in ({"resnet_time_scale_shift": "scale_shift"}, {"act_fn": "gelu"}):
        network = _unet(**own)
        before = _both(network.requires_grad_(False))
        fuse_group_norms(network)
        blocks = [m for m in network.modules() if type(m).__name__ == "ResnetBlock2D"]
        assert blocks and all(type(b.norm1) is type(b.norm2) is nn.GroupNorm for b in blocks)
        assert (type(network.conv_norm_out) is FusedGroupNorm) == ("act_fn" not in own)
        for found, true in zip(_both(network), before, strict=True):
            torch.testing.assert_close(found, true, atol=1e-5, rtol=1e-5)
    assert (
        fuse_group_norms(nn.Sequential(nn.GroupNorm(2, 4), nn.ReLU(), nn.GroupNorm(2, 4, affine=False), nn.SiLU())) == 0
    )


def test_the_layout_is_chosen_by_device_and_mode(monkeypatch):
    def chosen(device, mode, works=True):
        monkeypatch.setattr(graphs, "kernels_work", lambda device: works)
        unet, vae = nn.Sequential(nn.GroupNorm(2, 4), nn.SiLU(), nn.Conv2d(4, 4, 3)), nn.Sequential(nn.Conv2d(4, 4, 3))
        fast_layout(unet, vae, torch.device(device), mode)
        return type(unet[0]) is FusedGroupNorm, in_order(unet[-1].weight), in_order(vae[-1].weight)

    assert chosen("cpu", "none") == (False, False, False)
    assert chosen("cuda", "graph") == chosen("cuda", "none") == (True, True, True)
    assert chosen("cuda", "full") == chosen("cuda", "graph", works=False) == (False, True, False)
    monkeypatch.setattr(graphs, "FUSED_NORMS", False)
    assert chosen("cuda", "graph") == (False, True, False)


@pytest.mark.gpu
@pytest.mark.parametrize("name", NETWORKS)
def test_on_a_gpu_a_network_answers_as_before(name):
    """In float16 as near to float64 as with torch's norms."""
    network = _made(name)
    true = [x.to(CUDA) for x in _both(copy.deepcopy(network).double())]
    half = network.to(CUDA, torch.float16)
    error = lambda: [float((f.double() - t).norm() / t.norm()) for f, t in zip(_both(half), true, strict=True)]  # noqa: E731
    before = error()
    assert fuse_group_norms(half.to(memory_format=torch.channels_last)) > 8
    after = error()
    assert all(a <= 1.5 * b + 1e-4 for a, b in zip(after, before, strict=True)), (after, before)


@pytest.mark.gpu
def test_on_a_gpu_a_prior_uses_them(tmp_path):
    from dg.priors.zero123 import Zero123

    folder = tiny_checkpoints.zero123(tmp_path)
    prior = Zero123(checkpoint=str(folder), image_size=64, device="cuda")
    assert kernels_work(CUDA)
    assert not [m for network in (prior.unet, prior.vae) for m in network.modules() if type(m) is nn.GroupNorm]
    assert in_order(prior.vae.encoder.conv_in.weight) and in_order(prior.unet.conv_in.weight)
    picture = noise("picture", 1, 3, 64, 64).to(CUDA, torch.float16).sigmoid()
    from diffusers import AutoencoderKL

    plain = load_model(AutoencoderKL, folder / "vae", CUDA, torch.float32)
    true = plain.encode(2 * picture.float() - 1).latent_dist.mode() * plain.config.scaling_factor
    torch.testing.assert_close(prior.encode(picture), true, atol=2e-2, rtol=2e-2)
