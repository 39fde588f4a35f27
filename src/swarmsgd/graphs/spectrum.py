"""Laplacians and their eigenvalues: closed forms, else dense matrices."""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from swarmsgd.errors import ConfigError

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Ends = tuple[float, float]
"""The second-smallest and the largest eigenvalue; the smallest, of the constant vector, is 0."""

DENSE_NODES = 1024
"""The largest graph whose eigenvalues are computed, where no closed form is known."""


def circulant_ends(n: int, offsets: Collection[int]) -> Ends:
    """The ends for the graph with edges i, i + offset modulo n, for offsets up to n / 2."""
    if n == 1:
        return math.inf, 0.0
    frequency = np.arange(1, n)
    eigenvalues = np.zeros(n - 1)
    for offset in offsets:  # 2 - 2 cos, in the form that is exact near 0; n / 2 is its own opposite
        factor = 2 if 2 * offset == n else 4
        eigenvalues += factor * np.sin(np.pi * (frequency * offset % n) / n) ** 2
    return float(eigenvalues.min()), float(eigenvalues.max())


def laplacian(n: int, edges: Ints, weights: Floats) -> Floats:
    """The dense weighted Laplacian, [n, n]."""
    matrix = np.zeros((n, n))
    i, j = edges.T
    matrix[i, j] = matrix[j, i] = -weights
    np.fill_diagonal(matrix, -matrix.sum(axis=1))
    return matrix


def laplacian_ends(name: str, n: int, edges: Ints, weights: Floats) -> Ends:
    """The ends for a connected graph of at least 2 nodes, from a dense matrix."""
    if n > DENSE_NODES:
        raise ConfigError(
            f"the eigenvalues of {name} have no closed form and it has {n:,} nodes, wanted at most "
            f"{DENSE_NODES:,} to find them; take a ring, a torus or another kind that has one, or "
            "ask a smaller graph of the same kind"
        )
    eigenvalues = np.linalg.eigvalsh(laplacian(n, edges, weights))
    return float(eigenvalues[1]), float(eigenvalues[-1])
