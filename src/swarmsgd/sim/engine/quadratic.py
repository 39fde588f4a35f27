"""Local steps on a quadratic in one compiled pass: models of a few numbers, many nodes."""

from __future__ import annotations

import numba as nb
import numpy as np
from numba.core import types

from swarmsgd.codec.kernels.compiled import VECTOR, VECTOR_IN, kernel
from swarmsgd.codec.kernels.intrinsics import loose_sum

_RATES = types.Array(types.float64, 1, "C")
_ROWS = types.Array(types.float32, 2, "C")


@nb.njit(inline="never")
def _gradient(x, center, curvature, noise, out):
    loss = np.float32(0)
    for t in range(x.size):
        off = x[t] - center[t]
        exact = off * curvature[t]
        half = np.float32(0.5) * (exact * off)
        loss = loose_sum(loss, half + noise[t] * x[t])
        out[t] = exact + noise[t]
    return np.float64(loss)


@kernel(types.float64(VECTOR, VECTOR_IN, VECTOR_IN, VECTOR, VECTOR))
def gradient(x, center, curvature, noise, out):
    """out = the gradient of 1/2 (x - center)^T A (x - center) + <noise, x>; returns its value."""
    return _gradient(x, center, curvature, noise, out)


@kernel(
    types.float64(VECTOR, VECTOR, VECTOR_IN, VECTOR_IN, _ROWS, _RATES, types.float32, types.float32)
)
def steps(x, v, center, curvature, noise, rates, momentum, weight_decay):
    """One step of torch's SGD for each row of noise, on the gradients above; the sum of values."""
    loss = 0.0
    g = np.empty_like(x)
    for step in range(rates.size):
        loss += _gradient(x, center, curvature, noise[step], g)
        if weight_decay:
            g += weight_decay * x
        if momentum:
            v *= momentum
            v += g
            g[:] = v
        x -= np.float32(rates[step]) * g
    return loss
