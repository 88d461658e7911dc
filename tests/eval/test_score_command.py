import json

import pytest

from dg.eval.catalog import CATALOG
from dg.eval.score import PROTOCOLS, main, read_rules, score_file
from tests.eval import lump


@pytest.fixture(scope="module")
def item(tmp_path_factory):
    return lump.item(tmp_path_factory.mktemp("lump"))


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """A protocol in the format of conf/protocol that takes no time."""
    path = tmp_path_factory.mktemp("protocol") / "quick.yaml"
    path.write_text(
        "_target_: dg.eval.protocol.Protocol\nname: quick\nsource: {_target_: x, root: '${data}'}\nobjects: [a, b]\n"
        "views: {_target_: dg.eval.protocol.ViewSpec, elevations_deg: [0, 0], azimuths_deg: [0, 180],\n"
        "  size: 32, ssaa: 1}\n"
        "metrics: [psnr_db, 'f_score@0.02', chamfer, volume_iou, input_iou, clip_image, components, lpips_vgg,\n"
        "  seconds]\n"
        "headline: [clip_image]\nalignments: [unaligned, yaw]\npoints: 1000\nvolume_resolution: 16\n"
    )
    return str(path)


def test_json_has_the_three_figures_of_score_file_and_all_others(item, capsys):
    """What experiments/true_objects reads keeps its names and values."""
    assert main([str(item.truth), "--truth", str(item.truth), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    few = score_file(item.truth, item.truth)
    assert {name: found[name] for name in vars(few)} == vars(few) == {n: found[n] for n in vars(few)}
    assert found["mesh"] == found["truth"] == str(item.truth)
    assert {"chamfer/icp", "ssim/back", "watertight", "faces"} <= found.keys()
    assert not any(name.startswith(("input", "clip", "seconds")) for name in found)


def test_table(item, quick, capsys):
    arguments = [str(item.truth), "--truth", str(item.truth), "--image", str(item.image), "--framed"]
    assert main([*arguments, "--protocol", quick]) == 0
    lines = capsys.readouterr().out.splitlines()
    cells = {line[2:24].strip(): line[24:].split() for line in lines if line[:1] in "^v " and line.strip()}
    assert cells["psnr (dB)"] == ["100.00"] * 5
    assert cells["chamfer"] == ["0.00000"] * 4 and cells["f_score@0.02"] == ["1.0000"] * 2
    assert float(cells["input_iou"][0]) > 0.95
    assert any(line.split() == ["unaligned", "yaw", "visible", "hidden"] for line in lines)
    assert lines[-1].startswith("blank: lpips_vgg, lpips_vgg/front, lpips_vgg/back: torchvision's weights")


def test_an_image_is_enough(item, quick, capsys):
    assert main([str(item.truth), "--image", str(item.image), "--framed", "--protocol", quick, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"mesh", "protocol", "image", "input_iou", "components", "blanks"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.glb", "--truth", "TRUTH"], "no file at absent.glb"),
        (["TRUTH", "--truth", "absent.glb"], "no file at absent.glb"),
        (["TRUTH", "--truth", "TRUTH", "--protocol", "nonsense"], "protocol nonsense: is no file and none of novel16"),
        (["TRUTH", "--truth", "TRUTH", "--clip", "other"], "--clip other: must be openclip"),
        (["TRUTH", "--truth", "TRUTH", "--clip", "openclip:ViT-nonsense"], "neither a folder nor one of open_clip's"),
    ],
)
def test_mistakes_are_one_line(item, arguments, message, capsys):
    assert main([str(item.truth) if a == "TRUTH" else a for a in arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.strip().splitlines()) == 1


def test_something_to_compare_with_is_needed(item):
    with pytest.raises(SystemExit):
        main([str(item.truth)])


@pytest.mark.parametrize("path", sorted(PROTOCOLS.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_protocol_can_be_used_for_one_file(path):
    rules = read_rules(path.stem)
    assert rules.name == path.stem and set(rules.metrics) <= set(CATALOG) and len(rules.views.cameras())
