"""Every distillation ends where it is known to with `point` and `oracle_blur`, and docs/distill.md has the figures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dg.core.rng import generator
from dg.meshraster.cpu import CpuMeshRasterizer
from dg.priors.oracle import MeshScore
from experiments.distillations.optimum import BEGIN, CASES, END, REACHED, TIMESTEPS, Case, descend, distances, problem
from tests.config.test_options_docs import options
from tests.shapes import ball

PAGE = Path(__file__).resolve().parents[2] / "docs" / "distill.md"


@pytest.fixture(scope="module")
def truth() -> MeshScore:
    texture = torch.rand(16, 16, 3, generator=generator(3, "texture"))
    return MeshScore(rasterizer=CpuMeshRasterizer(), mesh=ball(texture), image_size=16)


@pytest.mark.parametrize("prior", TIMESTEPS)
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.compares])
def test_it_reaches_the_priors_picture(name: str, prior: str, truth: MeshScore) -> None:
    known, off = distances(CASES[name], problem(prior, truth, compares=False), TIMESTEPS[prior])
    assert known < REACHED
    assert off < REACHED if prior == "point" else 0.05 < off < 0.4  # the bias is the prior's


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.compares])
def test_what_compares_two_predictions_overshoots_as_far_as_its_gradient_says(name: str, truth: MeshScore) -> None:
    """With these priors every gradient is a x + b, pixel by pixel: a and b from two pictures, the zero is -b / a."""
    case, at = CASES[name], problem("oracle_blur", truth, compares=True)
    (t,) = TIMESTEPS["oracle_blur"]

    def gradient(value: float) -> torch.Tensor:
        z = torch.full_like(at.known, value)
        eps = torch.randn(z.shape, generator=generator(1, name))
        return sum(
            case.method.gradient(
                lambda z_t, s: at.prior.predict(z_t, s, at.cond), z, torch.tensor([t]), e, at.prior.alpha_bar
            )
            for e in (eps, -eps)
        )

    zero = -gradient(0.0) / (gradient(1.0) - gradient(0.0))
    found = descend(Case(case.method, True, 700), at, (t,))
    assert (found - zero).square().mean().sqrt() < 0.02 * (zero - at.known).square().mean().sqrt()
    assert (zero - at.known).square().mean().sqrt() > 0.3
    if name in ("csd", "nfsd"):  # as the page has it
        a = at.prior.alpha_bar[t]
        torch.testing.assert_close(zero, at.known + (1 - a) / (0.25 * a) * (at.known - 0.5), atol=1e-2, rtol=1e-2)


def test_the_page() -> None:
    text = PAGE.read_text()
    table = text[text.index(BEGIN) : text.index(END)]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[3:] if line]
    figures = {row[0]: [float(x) for x in row[1:]] for row in rows}
    assert set(figures) == set(CASES) and {name.split(",")[0] for name in figures} == options("distill")
    for name, (point, blur, off) in figures.items():
        assert (max(point, blur) < REACHED) != CASES[name].compares and off > REACHED
