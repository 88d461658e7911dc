"""Where each distillation ends with a prior whose optimum is known, on pixels: no renderer, no other loss.

python -m experiments.distillations.optimum            # rewrites the table in docs/distill.md, about two minutes
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dg.core.camera import orbit
from dg.core.distill import SDS, SJC, X0, Distillation
from dg.core.distill_guided import CSD, NFSD
from dg.core.distill_inverted import ISM, SDI
from dg.core.distill_particles import VSD
from dg.core.rng import generator
from dg.priors.exact import ExactScore
from dg.priors.oracle import MeshScore
from dg.priors.point import PointPrior
from dg.stages.own_score import OwnScore
from dg.types import Condition

BEGIN, END = "<!-- optimum: begin -->", "<!-- optimum: end -->"
REACHED = 0.02  # root mean square over pixels in [0, 1]
START = 0.5  # grey
TIMESTEPS = {"point": (900, 600, 300, 100), "oracle_blur": (500,)}  # the second one's error differs from t to t
UNCONDITIONAL_STD = 0.5  # of the normal data that the guided ones are given as eps_0
SIZE = 32


@dataclass(frozen=True)
class Case:
    """One line of the table: a distillation without guidance, and how it is run.

    Attributes:
        compares: needs eps_0.
        steps: of Adam; more where there is farther to go, or where an adapter has to follow.
    """

    method: Distillation
    compares: bool = False
    steps: int = 120


CASES = {
    "sds": Case(SDS(guidance_scale=1)),
    "sjc": Case(SJC(guidance_scale=1)),
    "x0": Case(X0(guidance_scale=1)),
    "sdi": Case(SDI(guidance_scale=1, inversion_steps=3)),
    "vsd": Case(VSD(guidance_scale=1), steps=500),
    "sds, mask 0.05": Case(SDS(guidance_scale=1, mask=0.05)),
    "csd": Case(CSD(guidance_scale=1), compares=True, steps=500),
    "nfsd": Case(NFSD(guidance_scale=1), compares=True, steps=500),
    "ism": Case(ISM(guidance_scale=1), compares=True, steps=500),
}


@dataclass(frozen=True)
class Problem:
    """A prior at one view.

    Attributes:
        known: the optimum [1 3 h w]; `truth`: the picture before the prior's own blur and error.
        alpha: of the object, for masks.
    """

    prior: ExactScore
    cond: Condition
    known: Float[Tensor, "1 3 h w"]
    truth: Float[Tensor, "1 3 h w"]
    alpha: Float[Tensor, "1 1 h w"]


def problem(name: str, truth: MeshScore, *, compares: bool) -> Problem:
    """`truth`'s object from one view on white, as the data of `point` or of `oracle_blur`."""
    size, cameras, white = truth.image_size, orbit([10.0], [40.0], 2.0, height=truth.image_size), torch.ones(1, 3)
    picture, black = truth.target(None, cameras, white), truth.target(None, cameras, torch.zeros(1, 3))
    alpha = (1 - (picture - black)).mean(1, keepdim=True).clamp(0, 1)
    std = UNCONDITIONAL_STD if compares else None
    if name == "point":
        prior: ExactScore = PointPrior(target_rgb=picture[0], image_size=size, unconditional_std=std)
        return Problem(prior, prior.condition(None, None, cameras, white), picture, picture, alpha)
    own = {"blur_px": 1.5, "noise": 0.1, "seed": 7, "unconditional_std": std}
    prior = MeshScore(rasterizer=truth.rasterizer, mesh=truth.mesh, image_size=size, **own)
    cond = prior.condition(None, None, cameras, white)
    (t,) = TIMESTEPS[name]
    return Problem(prior, cond, prior.believed(cond.extra, torch.tensor([t]), cond), picture, alpha)


def descend(case: Case, at: Problem, timesteps: tuple[int, ...]) -> Float[Tensor, "1 3 h w"]:
    """Adam on pixels with a falling rate; each noise is followed by its negative, so that its mean is 0."""
    z = torch.full_like(at.known, START).requires_grad_()
    optimizer = torch.optim.Adam([z], lr=0.1)
    own = OwnScore(case.method, 0) if isinstance(case.method, VSD) else None
    for step in range(case.steps):
        optimizer.param_groups[0]["lr"] = 0.1 * 0.01 ** (step / case.steps)
        optimizer.zero_grad()
        eps = torch.randn(z.shape, generator=generator(0, "optimum", step))
        t = torch.tensor([timesteps[step % len(timesteps)]])
        predict = lambda z_t, steps: at.prior.predict(z_t, steps, at.cond)  # noqa: E731
        if own is not None:
            predict = own.beside("", at.prior, z, at.cond)
        for sign in (1, -1):
            case.method.loss(predict, z, t, sign * eps, at.prior.alpha_bar, at.alpha).backward()
        optimizer.step()
        if own is not None:
            own.learn(step)
    return z.detach()


def distances(case: Case, at: Problem, timesteps: tuple[int, ...]) -> tuple[float, float]:
    """Root mean square distance to the known optimum and to the truth; of a masked case where its gradient is whole."""
    found = descend(case, at, timesteps)
    where = torch.ones_like(found)
    if case.method.mask is not None:
        from dg.core.distill import silhouette_weight

        size = (found.shape[-2], found.shape[-1])
        where = (silhouette_weight(at.alpha, size, case.method.mask, 0.0) > 0.99).expand_as(found).float()
    each = ((found - x).square().mul(where).sum().div(where.sum()).sqrt().item() for x in (at.known, at.truth))
    first, second = each
    return first, second


def table(truth: MeshScore) -> str:
    """Markdown."""
    rows = ["| distillation | `point`: to x* | `oracle_blur`: to its picture | to the truth |", "|---|---|---|---|"]
    for name, case in CASES.items():
        cells = []
        for prior, timesteps in TIMESTEPS.items():
            at = problem(prior, truth, compares=case.compares)
            cells.append(distances(case, at, timesteps))
        (point, _), (blur, off) = cells
        rows.append(f"| {name} | {point:.3f} | {blur:.3f} | {off:.3f} |")
        print(rows[-1], flush=True)
    return "\n".join(rows)


def main() -> None:
    from dg.data.objects import make
    from dg.io.files import write_text
    from dg.meshraster.cpu import CpuMeshRasterizer
    from dg.runtime.options import REPOSITORY

    argparse.ArgumentParser(description=__doc__).parse_args()
    truth = MeshScore(rasterizer=CpuMeshRasterizer(), mesh=make("robot"), image_size=SIZE)
    text, page = table(truth), REPOSITORY / "docs" / "distill.md"
    old = page.read_text(encoding="utf-8")
    write_text(page, old[: old.index(BEGIN) + len(BEGIN)] + "\n" + text + "\n" + old[old.index(END) :])


if __name__ == "__main__":
    main()
