"""Optimizers that torch has not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

OFFSET = "z_minus_y"
"""Name of the state that holds z - y of `ScheduleFreeAdamW`."""


class ScheduleFreeAdamW(Optimizer):
    """AdamW whose rate needs no decay, since it reports an average of its iterates: Schedule-Free
    Learning (Defazio et al. 2024, arXiv 2405.15682), as the package `schedulefree` computes it.

    The parameters hold y, where gradients are taken; after `eval()` they hold x, the average, which
    is what to score and to keep; `train()` brings y back. The base sequence z is kept as its
    difference to y: that is zero at the start and linear in both, so nodes of a swarm may average
    it with the model (``exchange_state=("z_minus_y",)``; they have to, or each follows its own z)
    and the reported mean is the mean of what each would report.

    The weight of an iterate in the average is the square of the largest rate so far, so a warm-up
    may be had by setting the groups' `lr`. With `least_share` above 0 the newest iterate counts for
    at least that share, so that the average forgets: z - y then stays small, and the nodes of a
    swarm need not average it.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.0025,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        least_share: float = 0.0,
    ) -> None:
        if not 0 <= least_share < 1:
            raise ValueError(f"least_share {least_share}, wanted at least 0 and below 1")
        if lr < 0 or eps <= 0 or weight_decay < 0 or not all(0 <= b < 1 for b in betas):
            raise ValueError(
                f"lr {lr}, betas {betas}, eps {eps}, weight_decay {weight_decay}: wanted lr and "
                "weight_decay of at least 0, eps above 0, betas of at least 0 and below 1"
            )
        if betas[0] == 0:
            raise ValueError("the first of betas is 0: y would be z, and x could not be told")
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        defaults["least_share"] = least_share
        super().__init__(params, defaults)
        self._reports = False

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("least_share", 0.0)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step. Raises RuntimeError between `eval()` and `train()`."""
        if self._reports:
            raise RuntimeError("step() after eval(): call train() first, to bring y back")
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    _step(parameter, parameter.grad, self.state[parameter], group)
        return loss

    @property
    def reports(self) -> bool:
        """Whether the parameters hold x now."""
        return self._reports

    def eval(self) -> None:
        """Let the parameters hold x."""
        self._move(True)

    def train(self) -> None:
        """Let the parameters hold y."""
        self._move(False)

    @torch.no_grad()
    def _move(self, reports: bool) -> None:
        if reports == self._reports:
            return
        self._reports = reports
        for group in self.param_groups:
            # z - x is (z - y) / beta1, so the offset need not change with what is held.
            factor = report_factor(group["betas"][0])
            for parameter in group["params"]:
                offset = self.state[parameter].get(OFFSET)
                if offset is not None:
                    parameter.add_((factor if reports else -factor) * offset)


@contextmanager
def reporting(optimizer: Optimizer) -> Iterator[None]:
    """The parameters hold what the optimizer reports, if that is something else."""
    if not isinstance(optimizer, ScheduleFreeAdamW):
        yield
        return
    optimizer.eval()
    try:
        yield
    finally:
        optimizer.train()


def report_factor(beta1: float) -> float:
    """f in x = y + f (z - y)."""
    return 1 - 1 / beta1


def _step(y: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    lr, (beta1, beta2) = group["lr"], group["betas"]
    if not state:
        state["step"] = 0
        state["weights"], state["largest_lr"] = 0.0, 0.0
        state[OFFSET] = torch.zeros_like(y, memory_format=torch.preserve_format)
        state["exp_avg_sq"] = torch.zeros_like(y, memory_format=torch.preserve_format)
    state["step"] += 1
    state["largest_lr"] = max(state["largest_lr"], lr)
    weight = state["largest_lr"] ** 2
    state["weights"] += weight
    share = weight / state["weights"] if state["weights"] else 0.0
    share = max(share, group["least_share"])
    squares, offset = state["exp_avg_sq"], state[OFFSET]
    squares.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    scale = math.sqrt(1 - beta2 ** state["step"])
    direction = gradient / squares.sqrt().div_(scale).add_(group["eps"])
    if group["weight_decay"]:
        direction.add_(y, alpha=group["weight_decay"])
    # z' = z - lr d,  y' = y + share (z - y) + lr (beta1 (1 - share) - 1) d
    y.add_(offset, alpha=share).add_(direction, alpha=lr * (beta1 * (1 - share) - 1))
    offset.mul_(1 - share).sub_(direction, alpha=lr * beta1 * (1 - share))
