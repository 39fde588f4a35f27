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
            alike: dict[tuple[int, float, float], list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    state = self.state[parameter]
                    if not state:
                        _begin(parameter, state)
                    has = state["step"], state["weights"], state["largest_lr"]
                    alike.setdefault(has, []).append(parameter)
            for parameters in alike.values():
                _step(parameters, [self.state[each] for each in parameters], group)
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


def _begin(y: Tensor, state: dict[str, Any]) -> None:
    state["step"] = 0
    state["weights"], state["largest_lr"] = 0.0, 0.0
    state[OFFSET] = torch.zeros_like(y, memory_format=torch.preserve_format)
    state["exp_avg_sq"] = torch.zeros_like(y, memory_format=torch.preserve_format)


def _step(y: list[Tensor], states: list[dict[str, Any]], group: dict[str, Any]) -> None:
    """Of parameters that have stepped alike so far: z' = z - lr d, and
    y' = y + share (z - y) + lr (beta1 (1 - share) - 1) d, where d = g / (sqrt(v / (1 - beta2^t))
    + eps) + weight_decay y.
    """
    lr, decay, (beta1, beta2) = group["lr"], group["weight_decay"], group["betas"]
    step, largest_lr = states[0]["step"] + 1, max(states[0]["largest_lr"], lr)
    weights = states[0]["weights"] + largest_lr**2
    share = max(largest_lr**2 / weights if weights else 0.0, group["least_share"])
    for state in states:
        state["step"], state["weights"], state["largest_lr"] = step, weights, largest_lr
    gradients = [parameter.grad for parameter in y if parameter.grad is not None]
    squares = [state["exp_avg_sq"] for state in states]
    offsets = [state[OFFSET] for state in states]
    torch._foreach_mul_(squares, beta2)
    torch._foreach_addcmul_(squares, gradients, gradients, value=1 - beta2)
    roots = torch._foreach_sqrt(squares)
    scale = math.sqrt(1 - beta2**step)  # taken out of the root, for it costs a pass there
    torch._foreach_add_(roots, scale * group["eps"])
    y_moves, offset_moves = lr * (beta1 * (1 - share) - 1), -lr * beta1 * (1 - share)
    decayed = torch._foreach_mul(y, decay) if decay else ()
    torch._foreach_add_(y, offsets, alpha=share)
    torch._foreach_addcdiv_(y, gradients, roots, value=scale * y_moves)
    torch._foreach_mul_(offsets, 1 - share)
    torch._foreach_addcdiv_(offsets, gradients, roots, value=scale * offset_moves)
    if decay:
        torch._foreach_add_(y, decayed, alpha=y_moves)
        torch._foreach_add_(offsets, decayed, alpha=offset_moves)
