"""Laplacians and their eigenvalues: closed forms, dense matrices, and Lanczos for large graphs."""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from swarmsgd.errors import ConfigError
from swarmsgd.seeds import fixed

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Ends = tuple[float, float]
"""The second-smallest and the largest eigenvalue; the smallest, of the constant vector, is 0."""

DENSE_NODES = 1024  # up to here from a dense matrix, above by Lanczos
LANCZOS_STEPS = 2048


def circulant_ends(n: int, offsets: Collection[int]) -> Ends:
    """Of the graph with edges i, i + offset modulo n, for offsets up to n / 2."""
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
    """Of the weighted Laplacian of a connected graph of at least 2 nodes."""
    if n > DENSE_NODES:
        return _lanczos_ends(name, n, edges, weights)
    eigenvalues = np.linalg.eigvalsh(laplacian(n, edges, weights))
    return float(eigenvalues[1]), float(eigenvalues[-1])


def _lanczos_ends(name: str, n: int, edges: Ints, weights: Floats) -> Ends:
    """From a fixed vector without its mean, until doubling the number of steps changes nothing."""
    i, j = edges.T
    strength = np.bincount(i, weights, n) + np.bincount(j, weights, n)

    def times_laplacian(vector: Floats) -> Floats:
        received = np.bincount(i, weights * vector[j], n) + np.bincount(j, weights * vector[i], n)
        return strength * vector - received

    before, vector = np.zeros(n), fixed().standard_normal(n)
    vector -= np.mean(vector)
    vector /= np.linalg.norm(vector)
    diagonal: list[float] = []  # of the tridiagonal matrix whose ends near those looked for
    beside: list[float] = [0.0]
    ends = np.full(2, np.inf)
    for step in range(1, LANCZOS_STEPS + 1):
        image = times_laplacian(vector) - beside[-1] * before
        diagonal.append(float(np.dot(image, vector)))
        image -= diagonal[-1] * vector
        image -= np.mean(image)
        beside.append(float(np.linalg.norm(image)))
        exhausted = beside[-1] < 1e-10 * strength.max()
        if exhausted or (step >= 32 and step & (step - 1) == 0):
            small = np.diag(diagonal) + np.diag(beside[1:-1], 1) + np.diag(beside[1:-1], -1)
            previous, ends = ends, np.linalg.eigvalsh(small)[[0, -1]]
            if exhausted or np.allclose(previous, ends, rtol=1e-7, atol=0):
                return float(ends[0]), float(ends[1])
        before, vector = vector, image / beside[-1]
    raise ConfigError(
        f"the spectrum of {name} was not found in {LANCZOS_STEPS} Lanczos steps: of {n} nodes, "
        f"lambda_2 is below {ends[0]:.2g}, wanted one not so near 0; take a builder with a closed "
        "form, such as ring or torus, or a smaller graph"
    )
