"""A low-order polynomial over the picture, fitted so that what does not follow it (the object) has no say."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray

DEGREE = 3  # 2 misses a studio's horizon, 4 follows objects that touch the border


def basis(height: int, width: int, degree: int = DEGREE) -> Float[ndarray, "H W K"]:
    """All monomials x^i y^j with i + j <= degree, x and y in [-1, 1]."""
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    return np.stack([x**i * y**j for i in range(degree + 1) for j in range(degree + 1 - i)], -1).astype(np.float32)


def fit_robust(
    A: Float[ndarray, "N K"],
    values: Float[ndarray, "N C"],
    weight: Float[ndarray, " N"] | None = None,
    rounds: int = 14,
) -> Float[ndarray, "K C"]:
    """Iteratively reweighted least squares, one weight per row for all channels.

    The first half minimises absolute residuals (which tolerates gross outliers) and is left out where weights to start
    from are given; the second drops what is further than 4.7 robust standard deviations (Tukey's biweight). A small
    ridge keeps it solvable when few rows keep a weight.
    """
    absolute = rounds // 2 if weight is None else 0
    weight = np.ones(len(A)) if weight is None else weight
    ridge = 1e-6 * len(A) * np.eye(A.shape[1])
    for i in range(rounds):
        Aw = A * weight[:, None]
        solution = np.linalg.solve(A.T @ Aw + ridge, Aw.T @ values)
        error = np.linalg.norm(values - A @ solution, axis=-1)
        weight = 1 / np.maximum(error, 0.1) if i < absolute else biweight(error)
    return solution.astype(np.float32)


def biweight(error: Float[ndarray, " N"], cutoff: float = 4.685) -> Float[ndarray, " N"]:
    """Tukey's weights: 1 for no error, 0 beyond `cutoff` robust standard deviations."""
    scale = max(1.4826 * float(np.median(error)), 0.3)
    return np.square(np.clip(1 - np.square(error / (cutoff * scale)), 0, None)) + 1e-9


def fit_frame(A: Float[ndarray, "N K"], values: Float[ndarray, "N C"]) -> Float[ndarray, "K C"]:
    """The background from the picture's frame: a plane first, since a cubic would follow an object at the border."""
    flat = np.stack([A[:, 0], A[:, 1], A[:, DEGREE + 1]], -1)  # 1, y, x in the order of `basis`
    error = np.linalg.norm(values - flat @ fit_robust(flat, values), axis=-1)
    return fit_robust(A, values, biweight(error, 8.0))
