"""A user's mistake is one line that names the key and the mend."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dg.runtime import compose, launch, options
from dg.runtime.errors import UserError

CONF = Path(__file__).resolve().parents[2] / "conf"


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("in") / "cat.png"
    path.write_bytes(b"")
    return path


def prepare(*overrides: str) -> dict:
    return launch.prepare(compose.compose(CONF, "train", list(overrides)), CONF)


MISTAKES = [
    ("itres=3", r"^there is no key itrs|^there is no key itres; did you mean iters\?$"),
    ("densify.intervall=3", r"^there is no key densify\.intervall; did you mean densify\.interval\?$"),
    ("num_points=3", r"^there is no key num_points; did you mean init\.num_points\?$"),
    ("pior=point", r"^there is no key pior; did you mean prior\?$"),
    (
        "+densify.intervall=3",
        r"^densify\.intervall is no option of dg\.core\.densify\.AdaptiveDensity; did you mean interv",
    ),
    ("+seeed=3", r"^seeed is no key of the config; did you mean seed\?$"),
    ("+prior.profile.radus=3", r"^prior\.profile\.radus is read by nothing; did you mean radius\?$"),
    ("densify._target_=dg.core.densify.AdaptivDensity", r"^densify\._target_=.* has no AdaptivDensity; did you mean"),
    ("prior=silouette", r"^prior=silouette: there is no such option; did you mean silhouette\?$"),
    ("ablation=[no_densify,no_aneal]", r"^ablation=no_aneal: there is no such option; did you mean no_anneal\?$"),
    ("stages=[gausians]", r"^stages: there is no stage gausians; did you mean gaussians\?$"),
    ("stages=[]", r"^stages=\[\] must name at least one of \[gaussians, mesh, texture\]$"),
    ("stages=[mesh,mesh]", r"^stages=\[mesh,mesh\] names a stage twice$"),
    ("iters=many", r"^iters=many must be a whole number$"),
    ("iters=0", r"^iters=0 must be at least 1$"),
    ("iters=1.5", r"^iters=1\.5 must be a whole number$"),
    ("mesh_format=gltf", r"^mesh_format=gltf must be one of glb, obj, ply"),
    ("resume=maybe", r"^resume=maybe must be one of auto, true, false$"),
    ("elevation=120", r"^elevation=120 is outside -90\.\.90 degrees; negative looks down from above$"),
    ("densify.interval=often", r"^densify\.interval=often must be a whole number$"),
    ("threads=0", r"^threads=0 must be at least 1"),
    ("name=../up", r"^name=\.\./up must be a name or a relative path below outdir$"),
    ("seed=???", r"^seed has no value; give one with seed=\.\.\.$"),
    ("prior=oracle", r"^prior\.mesh has no value; give one with prior\.mesh=\.\.\.$"),
    ("camera.radius=${prior.profile.radus}", r"^camera\.radius refers to prior\.profile\.radus, which does not exist"),
    ("gaussians=nothing.ply", r"^gaussians=nothing\.ply: there is no such file"),
    ("prompt=a(b", r"^cannot read 'prompt=a\(b': quote what is not plain"),
    ("prior", r"^cannot read 'prior': options look like key=value$"),
]


@pytest.mark.parametrize(("override", "message"), MISTAKES, ids=[m[0] for m in MISTAKES])
def test_one_line_with_the_key_and_the_mend(override: str, message: str, picture: Path) -> None:
    with pytest.raises(UserError, match=message) as caught:
        prepare(f"input={picture}", override)
    assert "\n" not in str(caught.value)


def test_a_missing_picture_and_its_neighbour(picture: Path) -> None:
    with pytest.raises(UserError, match=r"cta\.png: there is no such file; did you mean cat\.png\?"):
        prepare(f"input={picture.parent / 'cta.png'}")


def test_a_prompt_needs_its_task(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="add task=text"):
        prepare("prompt=a cat", f"paths.example={_touched(tmp_path / 'example.png')}")
    for reads_both in ("imagedream", "magic123"):
        assert prepare(f"prior={reads_both}", "prompt=a cat", f"paths.example={tmp_path / 'example.png'}")["prompt"]
    with pytest.raises(UserError, match=r"task=text needs a prompt"):
        prepare("task=text", "prior=point")


def _touched(path: Path) -> Path:
    path.touch()
    return path


def test_a_file_that_is_not_yaml(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "broken.yaml").write_text("iters: [1, 2\nseed: 3")
    with pytest.raises(UserError, match=r"not valid YAML: .*broken\.yaml") as caught:
        compose.compose(CONF, "train", ["experiment=broken"], [str(tmp_path)])
    assert "\n" not in str(caught.value)


def test_a_wrong_key_in_yaml_that_hydra_accepts(tmp_path: Path, picture: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "typo.yaml").write_text("# @package _global_\ndensify:\n  strat: 50\n")
    config = compose.compose(CONF, "train", [f"input={picture}", "experiment=typo"], [str(tmp_path)])
    with pytest.raises(UserError, match=r"densify\.strat is no option of .*; did you mean start\?"):
        launch.prepare(config, CONF)


def test_names(picture: Path, tmp_path: Path) -> None:
    splats = _touched(tmp_path / "gaussians.ply")
    assert prepare(f"input={picture}")["name"] == "cat"
    assert prepare(f"input={picture}", "name=42")["name"] == "42"
    assert prepare(f"input={picture}")["paths"]["run"] == "outputs/cat"
    assert prepare("task=text", "prior=point", "prompt='A cat, (sitting)!'")["name"] == "A_cat_sitting"
    assert prepare("stages=[mesh]", f"gaussians={splats}")["name"] == f"{options.slug(tmp_path.name)}-mesh"
    swept = launch.prepare(
        compose.compose(CONF, "train", [f"input={picture}", "seed=3", "prior=point"]), CONF, ["seed=3", "prior=point"]
    )
    assert swept["name"] == "cat,seed=3,prior=point" and swept["paths"]["run"] == "outputs/cat,seed=3,prior=point"


@given(st.text(max_size=30))
def test_any_override_is_read_or_refused_clearly(text: str) -> None:
    try:
        parsed = compose.parse([text])
    except UserError as error:
        assert repr(text) in str(error)
    else:
        assert len(parsed) == 1 and parsed[0].input_line == text


@given(st.text(alphabet=st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="'\\$"), max_size=40))
def test_quoted_text_comes_back_as_it_was(text: str) -> None:
    (override,) = compose.parse([f"prompt='{text}'"])
    assert override.key_or_group == "prompt" and override.value() == text


@given(st.text(max_size=100), st.lists(st.text(max_size=100), max_size=5))
def test_names_made_from_anything_are_file_names(base: str, overrides: list[str]) -> None:
    name = options.sweep_name(options.slug(base), overrides)
    assert 0 < len(name) <= 150 and "/" not in name and "\0" not in name and name not in (".", "..")
    assert options.check_name(name) == name


@given(st.lists(st.sampled_from(options.STAGES), unique=True, min_size=1))
def test_stages_run_in_order_however_they_are_written(asked: list[str]) -> None:
    found = options.stages({"stages": asked})
    assert set(found) == set(asked) and found == sorted(found, key=options.STAGES.index)
