"""What the optimizers of N nodes remember from step to step, in torch's own terms.

A tensor of a parameter's shape (SGD's `momentum_buffer`, Adam's `exp_avg`) lies in an array [N, D]
of its name, in the node's row, where the parameter lies in the model. All else (Adam's `step`) is
kept as torch made it, for each node and parameter.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

from swarmsgd.codec import vectors
from swarmsgd.core.layout import Layout
from swarmsgd.core.wire_code import Vector

TorchState = defaultdict[Tensor, Any]
"""As `torch.optim.Optimizer.state`: parameter -> name -> what is remembered."""

_ALIGNED = 16
"""Rows begin at multiples of 16 floats, 64 bytes, as the vectors of real nodes do: a matrix product
may round differently elsewhere.
"""


def zero_rows(num_nodes: int, dim: int) -> Vector:
    """Zeros [N, D], float32; each row is contiguous and begins where torch aligns a vector."""
    stride = -(-dim // _ALIGNED) * _ALIGNED
    return vectors.zeros(num_nodes * stride).reshape(num_nodes, stride)[:, :dim]


class OptimizerStates:
    """Of N nodes with models of D parameters. A node that made no step has none; its rows are zero.

    Rows may be changed between steps, also before a node's first: what torch then makes is added.
    """

    def __init__(self, num_nodes: int, dim: int) -> None:
        self._shape = num_nodes, dim
        self._rows: dict[str, Vector] = {}
        self._states: dict[int, TorchState] = {}
        self._placed: dict[int, dict[tuple[Tensor, str], Tensor]] = {}

    def rows(self, name: str) -> Vector:
        """float32 [N, D], always the same array, made when it is first asked for."""
        found = self._rows.get(name)
        if found is None:
            found = self._rows[name] = zero_rows(*self._shape)
        return found

    def of(self, node: int, fresh: TorchState) -> TorchState:
        """What torch is to find as the optimizer's state; for a first step a copy of `fresh`."""
        found = self._states.get(node)
        if found is None:
            found = self._states[node] = defaultdict(dict)
            for parameter, values in fresh.items():
                found[parameter] = {name: _copy(value) for name, value in values.items()}
        return found

    def gather(self, node: int, layout: Layout) -> None:
        """Move what torch made in steps of `node` to its rows, where it stays from then on."""
        placed = self._placed.setdefault(node, {})
        for parameter, values in self._states[node].items():
            for name, value in values.items():
                if value is placed.get((parameter, name)) or not _fits(value, parameter):
                    continue
                row = torch.from_numpy(self.rows(name)[node])
                place = layout.by_identity(row)[id(parameter)]
                if (parameter, name) in placed:  # torch put another in place of ours
                    place.copy_(value)
                else:
                    place.add_(value)
                values[name] = placed[parameter, name] = place

    def reset(self, node: int) -> None:
        """Forget all of `node`: its next step is a first one."""
        for rows_ND in self._rows.values():
            rows_ND[node] = 0
        self._states.pop(node, None)
        self._placed.pop(node, None)


def _fits(value: object, parameter: Tensor) -> bool:
    """Whether it has a place in the rows; a frozen parameter has none."""
    if not isinstance(value, Tensor) or not parameter.requires_grad:
        return False
    return value.shape == parameter.shape and value.dtype == torch.float32


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value
