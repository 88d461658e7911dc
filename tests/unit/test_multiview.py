"""MVDream and ImageDream: the network against two independent derivations, cameras, both public forms, messages."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from dg.core.camera import orbit, pose_mvdream, spherical, turned
from dg.priors import ldm_names as ldm
from dg.priors.imagedream import ImageDream
from dg.priors.ldm_parts import Shapes
from dg.priors.multiview_load import renamed
from dg.priors.multiview_net import PUBLIC, PUBLIC_IMAGE, MultiViewUNet, net_size
from dg.priors.mvdream import MVDream
from dg.types import Reference
from tests import tiny_checkpoints, tiny_single_files

KINDS = {"mvdream": MVDream, "imagedream": ImageDream}
WHITE = torch.ones(4, 3)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: tiny_checkpoints.WRITERS[kind](tmp_path_factory.mktemp(kind)) for kind in KINDS}


@pytest.fixture(scope="module")
def priors(folders: dict[str, Path]) -> dict:
    return {k: KINDS[k](checkpoint=str(folder), image_size=64) for k, folder in folders.items()}


@pytest.fixture(scope="module")
def reference() -> Reference:
    rgba = torch.zeros(1, 64, 64, 4)
    rgba[:, 20:44, 16:50] = torch.tensor([0.8, 0.3, 0.1, 1.0])
    return Reference(rgba, orbit(0, 0, 2.0, height=64))


def quad(elevation: float = 0.0, first: float = 0.0):
    return orbit(elevation, [first + 90 * k for k in range(4)], 2.5, height=64)


class Slow:
    """The network as a walk along the tensors' names; attention one head, one sample and one view at a time."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self.s = state

    def linear(self, x: Tensor, name: str) -> Tensor:
        out = x @ self.s[f"{name}.weight"].T
        return out + self.s[f"{name}.bias"] if f"{name}.bias" in self.s else out

    def conv(self, x: Tensor, name: str, **own) -> Tensor:
        weight = self.s[f"{name}.weight"]
        return F.conv2d(x, weight, self.s[f"{name}.bias"], padding=weight.shape[-1] // 2, **own)

    def group(self, x: Tensor, name: str, eps: float = 1e-5) -> Tensor:
        parts = x.reshape(len(x), 32, -1)
        spread = (parts.var(-1, unbiased=False, keepdim=True) + eps).sqrt()
        parts = ((parts - parts.mean(-1, keepdim=True)) / spread).reshape(x.shape)
        return parts * self.s[f"{name}.weight"][:, None, None] + self.s[f"{name}.bias"][:, None, None]

    def layer(self, x: Tensor, name: str) -> Tensor:
        spread = (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        return (x - x.mean(-1, keepdim=True)) / spread * self.s[f"{name}.weight"] + self.s[f"{name}.bias"]

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = torch.zeros_like(q)
        for head in range(0, q.shape[-1], 64):
            at = slice(head, head + 64)
            out[:, at] = torch.softmax(q[:, at] @ k[:, at].T / 8, -1) @ v[:, at]
        return out

    def mlp(self, x: Tensor, name: str) -> Tensor:
        hidden = self.linear(x, f"{name}.0")
        return self.linear(hidden * hidden.sigmoid(), f"{name}.2")

    def residual(self, x: Tensor, e: Tensor, name: str) -> Tensor:
        h = self.group(x, f"{name}.in_layers.0")
        h = self.conv(h * h.sigmoid(), f"{name}.in_layers.2")
        h = self.group(
            h + self.linear(e * e.sigmoid(), f"{name}.emb_layers.1")[:, :, None, None], f"{name}.out_layers.0"
        )
        skip = self.conv(x, f"{name}.skip_connection") if f"{name}.skip_connection.weight" in self.s else x
        return skip + self.conv(h * h.sigmoid(), f"{name}.out_layers.3")

    def transformer(self, x: Tensor, context: Tensor, image: Tensor | None, frames: int, name: str) -> Tensor:
        tokens = self.group(x, f"{name}.norm", 1e-6).flatten(2).transpose(1, 2)
        tokens, block = self.linear(tokens, f"{name}.proj_in"), f"{name}.transformer_blocks.0"
        normed, joint = self.layer(tokens, f"{block}.norm1"), torch.zeros_like(tokens)
        for view in range(len(x)):
            first = view // frames * frames  # every view of the sample is looked at
            seen = torch.cat([normed[v] for v in range(first, first + frames)])
            q = self.linear(normed[view], f"{block}.attn1.to_q")
            k, v = (self.linear(seen, f"{block}.attn1.to_{of}") for of in "kv")
            joint[view] = self.attend(q, k, v)
        tokens = tokens + self.linear(joint, f"{block}.attn1.to_out.0")
        normed, told = self.layer(tokens, f"{block}.norm2"), torch.zeros_like(tokens)
        for view in range(len(x)):
            q = self.linear(normed[view], f"{block}.attn2.to_q")
            told[view] = self.attend(q, *(self.linear(context[view], f"{block}.attn2.to_{of}") for of in "kv"))
            if image is not None:
                told[view] += self.attend(q, *(self.linear(image[view], f"{block}.attn2.to_{of}_ip") for of in "kv"))
        tokens = tokens + self.linear(told, f"{block}.attn2.to_out.0")
        value, gate = self.linear(self.layer(tokens, f"{block}.norm3"), f"{block}.ff.net.0.proj").chunk(2, -1)
        tokens = tokens + self.linear(value * gate * 0.5 * (1 + torch.erf(gate / 2**0.5)), f"{block}.ff.net.2")
        return x + self.linear(tokens, f"{name}.proj_out").transpose(1, 2).reshape(x.shape)

    def picture(self, hidden: Tensor) -> Tensor:
        """The resampler, on one picture [M W]."""
        tokens, queries = self.linear(hidden, "image_embed.proj_in"), self.s["image_embed.latents"][0]
        for i in range(2):
            own = f"image_embed.layers.{i}."
            normed = self.layer(queries, f"{own}0.norm2")
            both = self.linear(torch.cat([self.layer(tokens, f"{own}0.norm1"), normed]), f"{own}0.to_kv")
            k, v = both[:, : both.shape[1] // 2], both[:, both.shape[1] // 2 :]
            looked = self.attend(self.linear(normed, f"{own}0.to_q"), k, v)
            queries = queries + self.linear(looked, f"{own}0.to_out")
            inner = F.gelu(self.linear(self.layer(queries, f"{own}1.0"), f"{own}1.1"))
            queries = queries + self.linear(inner, f"{own}1.3")
        return self.layer(self.linear(queries, "image_embed.proj_out"), "image_embed.norm_out")

    def __call__(self, x, t, context, camera, image=None, *, frames):
        angles = t[:, None] / 10000 ** (torch.arange(32) / 32)
        e = self.mlp(torch.cat([angles.cos(), angles.sin()], 1), "time_embed") + self.mlp(camera, "camera_embed")
        given = (context, image, frames)
        kept = [self.conv(x, "input_blocks.0.0")]
        kept.append(self.transformer(self.residual(kept[0], e, "input_blocks.1.0"), *given, "input_blocks.1.1"))
        kept.append(self.conv(kept[1], "input_blocks.2.0.op", stride=2))
        kept.append(self.residual(kept[2], e, "input_blocks.3.0"))
        h = self.residual(kept[3], e, "middle_block.0")
        h = self.residual(self.transformer(h, *given, "middle_block.1"), e, "middle_block.2")
        for i in range(4):
            h = self.residual(torch.cat([h, kept.pop()], 1), e, f"output_blocks.{i}.0")
            if i == 1:
                h = self.conv(h.repeat_interleave(2, 2).repeat_interleave(2, 3), "output_blocks.1.1.conv")
            if i > 1:
                h = self.transformer(h, *given, f"output_blocks.{i}.1")
        h = self.group(h, "out.0")
        return self.conv(h * h.sigmoid(), "out.2")


@pytest.mark.parametrize("kind", KINDS)
def test_network_against_a_slow_derivation(kind: str, folders: dict, priors: dict) -> None:
    state = load_file(folders[kind] / "unet" / "diffusion_pytorch_model.safetensors")
    g, frames = torch.Generator().manual_seed(0), 4 + (kind == "imagedream")
    n = 2 * frames
    x, context, camera = (torch.randn(n, *s, generator=g) for s in ((4, 8, 8), (7, 64), (16,)))
    t, image, slow = torch.randint(0, 1000, (n,), generator=g), None, Slow(state)
    unet = priors[kind].unet
    with torch.no_grad():
        if kind == "imagedream":
            hidden = torch.randn(n, 5, 80, generator=g)
            image = torch.stack([slow.picture(h) for h in hidden])
            torch.testing.assert_close(unet.image_tokens(hidden), image, atol=1e-4, rtol=1e-4)
        expected = slow(x, t, context, camera, image, frames=frames)
        got = unet(x, t, context, camera, image, frames=frames)
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
        apart = unet(x, t, context, camera, image, frames=1)
    assert (apart - got).abs().max() > 1e-3  # views look at each other


def test_a_single_view_without_a_camera_is_stable_diffusion() -> None:
    """With diffusers' own UNet2DConditionModel, whose tensors get their original names."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    stock = UNet2DConditionModel(
        in_channels=4,
        out_channels=4,
        block_out_channels=(64, 128),
        layers_per_block=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=64,
        attention_head_dim=(1, 2),
        use_linear_projection=True,
    ).eval()
    state = ldm.originals(stock.state_dict(), ldm.unet_names(2, (True, False)))
    sizes = {"0.weight": (256, 16), "0.bias": (256,), "2.weight": (256, 256), "2.bias": (256,)}
    state |= {f"{ldm.UNET}camera_embed.{k}": torch.zeros(s) for k, s in sizes.items()}
    unet = MultiViewUNet(net_size(Shapes(Path("x"), state), ldm.UNET)).eval()
    unet.load_state_dict({k.removeprefix(ldm.UNET): v for k, v in state.items()}, strict=True)
    x, context, t = torch.randn(2, 4, 16, 16), torch.randn(2, 9, 64), torch.tensor([30, 900])
    with torch.no_grad():
        expected = stock(x, t, encoder_hidden_states=context).sample
        got = unet(x, t, context, torch.randn(2, 16), frames=1)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("image", "gigabytes"), [(None, 1.74), (PUBLIC_IMAGE, 1.88)])
def test_full_size_has_the_public_size_and_names(image: object, gigabytes: float) -> None:
    """The public files' sizes in float16, and names from their listings."""
    size = replace(PUBLIC, image=image)
    with torch.device("meta"):
        state = MultiViewUNet(size).state_dict()
    assert round(2 * sum(v.numel() for v in state.values()) / 1e9, 2) == gigabytes
    expected = {
        "camera_embed.0.weight": (1280, 16),
        "input_blocks.3.0.op.weight": (320, 320, 3, 3),
        "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": (640, 1024),
        "middle_block.1.transformer_blocks.0.ff.net.0.proj.weight": (10240, 1280),
        "output_blocks.2.1.conv.weight": (1280, 1280, 3, 3),
        "output_blocks.5.2.conv.bias": (1280,),
        "output_blocks.11.1.transformer_blocks.0.attn1.to_out.0.bias": (320,),
        "output_blocks.3.0.skip_connection.weight": (1280, 2560, 1, 1),
        "out.2.weight": (4, 320, 3, 3),
    }
    if image is not None:
        expected |= {"image_embed.latents": (1, 16, 1024), "image_embed.layers.3.0.to_kv.weight": (1536, 1024)}
        expected |= {"image_embed.layers.0.1.3.weight": (1024, 4096), "image_embed.proj_in.weight": (1024, 1280)}
        expected |= {"middle_block.1.transformer_blocks.0.attn2.to_v_ip.weight": (1280, 1024)}
    assert {name: tuple(state[name].shape) for name in expected} == expected
    read = net_size(Shapes(Path("x"), {f"p.{k}": v for k, v in state.items()}), "p.")
    assert read == size


def test_turning_cameras_moves_their_azimuth_alone() -> None:
    before = orbit([-30.0, 20.0], [10.0, -100.0], [2.0, 2.5])
    for got, expected in zip(spherical(turned(before, 90)), ([-30.0, 20.0], [100.0, -10.0], [2.0, 2.5]), strict=True):
        torch.testing.assert_close(got, torch.tensor(expected), atol=1e-4, rtol=0)
    torch.testing.assert_close(turned(before, 90).c2w, orbit([-30.0, 20.0], [100.0, -10.0], [2.0, 2.5]).c2w)


@pytest.mark.parametrize("kind", KINDS)
def test_the_network_is_told_height_and_side(kind: str, priors: dict, reference: Reference, monkeypatch) -> None:
    """A network that answers with the camera's position: z is up in it, and +x is where the front is seen from."""

    class Echo:
        size = priors[kind].unet.size
        image_tokens = staticmethod(lambda hidden: torch.zeros(len(hidden), 4, 64))

        def __call__(self, x, t, context, camera, image=None, *, frames):
            return camera.reshape(-1, 4, 4)[:, :, 3, None, None].expand(-1, -1, 8, 8)

    monkeypatch.setattr(priors[kind], "unet", Echo())
    monkeypatch.setattr(ImageDream, "_cached", None)
    z, t = torch.zeros(4, 4, 8, 8), torch.full((4,), 500)
    seen = priors[kind].predict(z, t, priors[kind].condition(reference, "a cat", quad(-30.0), WHITE))
    position = seen.cond[:, :3, 0, 0]
    torch.testing.assert_close(position[:, 2], torch.full((4,), 0.5), atol=1e-4, rtol=0)  # negative elevation is above
    side = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]]) * 3**0.5 / 2  # front, the side that our +x sees, ...
    torch.testing.assert_close(position[:, :2], side, atol=1e-4, rtol=0)
    torch.testing.assert_close(seen.uncond, seen.cond)  # the same cameras without the condition
    if kind == "imagedream":  # the picture's view is the front wherever it was taken from
        aside = replace(reference, cameras=orbit(0, 90, 2.0, height=64))
        cond = priors[kind].condition(aside, None, quad(0.0, 90.0), WHITE)
        assert priors[kind].predict(z, t, cond).cond[0, 0, 0, 0] > 0.99


def test_order_and_content_of_what_imagedream_is_asked(priors: dict, reference: Reference, monkeypatch) -> None:
    prior, asked = priors["imagedream"], []
    true = prior.unet

    class Spy:
        size, image_tokens = true.size, true.image_tokens

        def __call__(self, *inputs, frames):
            asked.append((*inputs, frames))
            return true(*inputs, frames=frames)

    monkeypatch.setattr(prior, "unet", Spy())
    z, t = torch.randn(8, 4, 8, 8), torch.tensor([300] * 4 + [600] * 4)
    cameras = orbit(0.0, [10.0 + 90 * k for k in range(4)] + [50.0 + 90 * k for k in range(4)], 2.5, height=64)
    prior.predict(z, t, prior.condition(reference, "a cat", cameras, WHITE.repeat(2, 1)))
    ((x, steps, text, camera, image, frames),) = asked
    assert frames == 5 and len(x) == len(steps) == len(text) == len(camera) == len(image) == 20
    groups = x.reshape(4, 5, 4, 8, 8)
    torch.testing.assert_close(groups[:2, :4].flatten(0, 1), z)
    torch.testing.assert_close(groups[:2, :4], groups[2:, :4])
    assert not groups[:2, 4].any()  # without the condition there is no picture
    white = torch.ones(1, 64, 64, 3)
    white[:, 20:44, 16:50] = torch.tensor([0.8, 0.3, 0.1])
    latent = prior.encode(white.permute(0, 3, 1, 2))
    torch.testing.assert_close(groups[2:, 4], latent.expand(2, -1, -1, -1), atol=1e-5, rtol=1e-4)
    assert steps.tolist() == ([300] * 5 + [600] * 5) * 2
    poses = camera.reshape(2, 2, 5, 16)
    assert not poses[:, :, 4].any() and torch.equal(poses[0], poses[1])
    torch.testing.assert_close(poses[0, :, :4].flatten(0, 1), pose_mvdream(turned(cameras, 90)))
    torch.testing.assert_close(text[0], prior.prompts([("", "")])[0])
    torch.testing.assert_close(text[10], prior.prompts([("a cat", "")])[0])
    torch.testing.assert_close(image[0], true.image_tokens(torch.zeros(1, 5, 80))[0])
    assert not torch.allclose(image[10], image[0])


def test_picture_or_prompt_or_both(priors: dict, reference: Reference) -> None:
    prior, z, t = priors["imagedream"], torch.randn(4, 4, 8, 8), torch.full((4,), 500)
    answers = [prior.predict(z, t, prior.condition(*told, quad(), WHITE)).cond for told in
               ((reference, "a cat"), (reference, None), (None, "a cat"))]  # fmt: skip
    assert all((a - b).abs().max() > 1e-5 for a, b in zip(answers, answers[1:] + answers[:1], strict=True))
    nothing = prior.predict(z, t, prior.condition(None, "a cat", quad(), WHITE))
    assert not torch.equal(nothing.cond, nothing.uncond)
    with pytest.raises(ValueError, match="needs input=PICTURE, or a prompt"):
        prior.condition(None, None, quad(), WHITE)


def test_negative_prompts(folders: dict) -> None:
    def prior(**own: str) -> MVDream:
        return MVDream(checkpoint=str(folders["mvdream"]), image_size=64, **own)

    assert prior(usual_negative_prompt="ugly").negative_prompt == "ugly"
    assert prior(usual_negative_prompt="ugly", negative_prompt="dog").negative_prompt == "dog"
    z, t = torch.randn(4, 4, 8, 8), torch.full((4,), 500)
    a, b = (p.predict(z, t, p.condition(None, "a cat", quad(), WHITE)) for p in (prior(), prior(negative_prompt="dog")))
    assert torch.equal(a.cond, b.cond) and not torch.equal(a.uncond, b.uncond)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
def test_the_single_file_answers_as_the_folder(
    kind: str, ending: str, folders: dict, priors: dict, reference: Reference, tmp_path: Path
) -> None:
    state = tiny_single_files.multiview(folders[kind])
    file = tiny_single_files.save(state, tmp_path / f"{kind}{ending}")
    (tmp_path / "tokenizer").symlink_to(folders[kind] / "tokenizer")
    prior = KINDS[kind](checkpoint=str(file), image_size=64)
    z, t = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.full((4,), 500)
    of = [p.predict(z, t, p.condition(reference, "a cat", quad(-10.0), WHITE)) for p in (prior, priors[kind])]
    torch.testing.assert_close(of[0].cond, of[1].cond, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(of[0].uncond, of[1].uncond, atol=1e-4, rtol=1e-4)
    back = {ldm.UNET + k: v for k, v in prior.unet.state_dict().items()}
    back |= ldm.originals(prior.vae.state_dict(), ldm.vae_names(4))
    back |= ldm.originals(prior.prompts.text_encoder.state_dict(), ldm.text_names_openclip)
    if kind == "imagedream":
        back |= ldm.originals(prior.image_encoder.state_dict(), ldm.vision_names_openai)
    original = renamed(state)
    assert all(torch.equal(value, original[name]) for name, value in back.items())


def test_the_manifest_is_told_where_it_came_from(priors: dict, folders: dict) -> None:
    assert priors["mvdream"].source == {"checkpoint": str(folders["mvdream"]), "revision": None}
    assert priors["mvdream"].views_per_sample == priors["imagedream"].views_per_sample == 4


def test_what_is_wrong_is_named(folders: dict, priors: dict, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folders["mvdream"], tmp_path / "copy"))
    file = copy / "unet" / "diffusion_pytorch_model.safetensors"
    state, whole = load_file(file), file.read_bytes()
    file.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match="damaged or cut short"):
        MVDream(checkpoint=str(copy))
    name = "middle_block.1.proj_in.bias"
    save_file({k: v[:-1] if k == name else v for k, v in state.items() if k != "out.0.bias"}, file)
    with pytest.raises(ValueError, match=rf"1 tensors are missing \(\S*out\.0\.bias\) and 1 are misshapen \(\S*{name}"):
        MVDream(checkpoint=str(copy))
    save_file({k: v for k, v in state.items() if "camera_embed" not in k}, file)
    with pytest.raises(ValueError, match="so it is no multi-view network; prior=sd may take it"):
        MVDream(checkpoint=str(copy))
    file.write_bytes(whole)
    config = copy / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"_class_name": "UNet2DConditionModel"}))
    with pytest.raises(ValueError, match="describes a UNet2DConditionModel; expected a MultiViewUNetModel"):
        MVDream(checkpoint=str(copy))
    (copy / "vae" / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"vae/config\.json not found"):
        MVDream(checkpoint=str(copy))
    with pytest.raises(FileNotFoundError, match="no such folder"):
        MVDream(checkpoint="/no/such/folder")
    with pytest.raises(ValueError, match="so it is an ImageDream: prior=imagedream"):
        MVDream(checkpoint=str(folders["imagedream"]))
    with pytest.raises(ValueError, match="must be a multiple of 16"):
        MVDream(checkpoint=str(folders["mvdream"]), image_size=72)
    with pytest.raises(ValueError, match="needs a prompt"):
        priors["mvdream"].condition(None, None, quad(), WHITE)
    with pytest.raises(ValueError, match="4 views at a time; got 3"):
        priors["mvdream"].condition(None, "a cat", quad()[:3], WHITE[:3])


@pytest.mark.parametrize(("kind", "other"), [("mvdream", "zero123"), ("imagedream", "mvdream")])
def test_a_foreign_single_file(kind: str, other: str, folders: dict, tmp_path: Path) -> None:
    if other == "zero123":
        state = tiny_single_files.zero123(tiny_checkpoints.zero123(tmp_path / "z", exact=True))
    else:
        state = tiny_single_files.multiview(folders[other])
    file = tiny_single_files.save(state, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=f"prior={other}"):
        KINDS[kind](checkpoint=str(file))
