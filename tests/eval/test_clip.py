"""Tiny random checkpoints in the public layouts; the features are those of the libraries themselves."""

import json

import open_clip
import pytest
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

from dg.eval.clip import OpenClip, TransformersClip, Unavailable

TEXTS = ["a red ball", "a small wooden chair, seen from the side"]


def pictures(count: int, side: int = 40):
    draw = torch.Generator().manual_seed(count)
    return (torch.rand(count, 3, side, side + 9, generator=draw) * 255).round() / 255


def as_images(x):
    return [Image.fromarray((p * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()) for p in x]


def cosines(a, b):
    return torch.nn.functional.normalize(a, dim=-1) @ torch.nn.functional.normalize(b, dim=-1).T


@pytest.fixture(scope="module")
def transformers_folder(tmp_path_factory):
    """As openai/clip-vit-large-patch14: config.json, model.safetensors, preprocessor_config.json, vocab.json, ..."""
    folder = tmp_path_factory.mktemp("tiny-clip")
    torch.manual_seed(0)
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    words = open_clip.tokenizer.SimpleTokenizer()
    letters = list(words.byte_encoder.values())
    vocabulary = {
        t: i for i, t in enumerate([*letters, *(c + "</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"])
    }
    text = {"vocab_size": len(vocabulary), "max_position_embeddings": 77, "eos_token_id": vocabulary["<|endoftext|>"]}
    text |= {"bos_token_id": vocabulary["<|startoftext|>"]}
    vision = {"image_size": 24, "patch_size": 8}
    CLIPModel(CLIPConfig(text_config=tower | text, vision_config=tower | vision, projection_dim=12)).save_pretrained(
        folder
    )
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer.from_pretrained(folder).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def open_clip_folder(tmp_path_factory):
    """As the hub has laion's models: open_clip_config.json and open_clip_pytorch_model.bin."""
    folder = tmp_path_factory.mktemp("tiny-open-clip")
    torch.manual_seed(0)
    vision = {"image_size": 24, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8}
    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
    model = {"embed_dim": 12, "vision_cfg": vision, "text_cfg": text}
    prepared = {"mean": [0.5, 0.4, 0.3], "std": [0.25, 0.25, 0.25]}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": prepared}))
    torch.save(open_clip.CLIP(**model).state_dict(), folder / "open_clip_pytorch_model.bin")
    return folder


@torch.no_grad()
def test_transformers_gives_what_the_library_gives(transformers_folder):
    scorer = TransformersClip(str(transformers_folder))
    assert scorer.name == f"transformers-{transformers_folder.name}"
    a, b = pictures(2), pictures(11)
    model, processor = (
        CLIPModel.from_pretrained(transformers_folder),
        CLIPProcessor.from_pretrained(transformers_folder),
    )
    inputs = processor(text=TEXTS, images=as_images(b), return_tensors="pt", padding=True)
    out = model(**inputs)
    own = model(**processor(text=TEXTS, images=as_images(a), return_tensors="pt", padding=True))
    torch.testing.assert_close(
        scorer.text_image(TEXTS, b), cosines(out.text_embeds, out.image_embeds), atol=1e-5, rtol=0
    )
    found = scorer.image_image(a, b)
    torch.testing.assert_close(found, cosines(own.image_embeds, out.image_embeds), atol=1e-5, rtol=0)
    assert found.shape == (2, 11) and found.std() > 1e-4
    torch.testing.assert_close(scorer.image_image(a, a).diagonal(), torch.ones(2))


@torch.no_grad()
def test_open_clip_gives_what_the_library_gives(open_clip_folder):
    scorer = OpenClip(str(open_clip_folder), name="openclip-tiny")
    assert scorer.name == "openclip-tiny"
    assert OpenClip(str(open_clip_folder)).name == f"openclip-{open_clip_folder.name}"
    a, b = pictures(2), pictures(9)
    content = json.loads((open_clip_folder / "open_clip_config.json").read_text())
    model = open_clip.CLIP(**content["model_cfg"]).eval()
    model.load_state_dict(torch.load(open_clip_folder / "open_clip_pytorch_model.bin", weights_only=True))
    prepare = open_clip.image_transform(24, is_train=False, **content["preprocess_cfg"])
    images = [model.encode_image(torch.stack([prepare(p) for p in as_images(x)])) for x in (a, b)]
    text = model.encode_text(open_clip.get_tokenizer("ViT-B-32")(TEXTS))
    torch.testing.assert_close(scorer.image_image(a, b), cosines(*images), atol=1e-5, rtol=0)
    torch.testing.assert_close(scorer.text_image(TEXTS, b), cosines(text, images[1]), atol=1e-5, rtol=0)


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """Whoever opens a connection fails the test."""
    import socket

    def refuse(*_):
        raise AssertionError("something asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_absent_weights_say_so_without_asking_the_network(no_network):
    cache = str(no_network / "cache")
    with pytest.raises(Unavailable, match=r"no weights of ViT-bigG-14 \(laion2b_s39b_b160k\).*download=true"):
        OpenClip(cache_dir=cache)
    with pytest.raises(Unavailable, match=r"no weights of openai/clip-vit-large-patch14.*download=true"):
        TransformersClip(cache_dir=cache)
    with pytest.raises(Unavailable, match="neither a file nor a tag of ViT-B-32; there are: openai"):
        OpenClip("ViT-B-32", "nonsense", cache_dir=cache)
    with pytest.raises(Unavailable, match="neither a folder nor one of open_clip's names"):
        OpenClip("ViT-nonsense", cache_dir=cache)


def test_folders_that_lack_something_say_what(open_clip_folder, tmp_path):
    with pytest.raises(Unavailable, match=r"no open_clip_config\.json"):
        OpenClip(str(tmp_path))
    (tmp_path / "open_clip_config.json").write_text((open_clip_folder / "open_clip_config.json").read_text())
    with pytest.raises(Unavailable, match="no weights"):  # open_clip itself would invent some
        OpenClip(str(tmp_path))
    with pytest.raises(Unavailable, match="no weights of"):
        TransformersClip(str(tmp_path))


def test_what_belongs_to_a_tag_survives_its_weights_being_a_file(tmp_path):
    from dg.eval.clip import _open_clip_cached, _recipe

    assert _recipe("ViT-B-32-quickgelu", "openai")["force_quick_gelu"] is True
    assert "force_quick_gelu" not in _recipe("ViT-bigG-14", "laion2b_s39b_b160k")
    weights = tmp_path / "weights.pt"
    weights.touch()
    assert _open_clip_cached("ViT-B-32", str(weights), None) == str(weights)
