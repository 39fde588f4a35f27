"""What people train with, as cases: `test_works_with.py` runs each, docs/works-with.md lists them.

A case is a class: made anew for each node, it has a model and the optimizers that join, and makes
one local step on a batch that is a function of (node, step).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.optim import swa_utils
from torch.utils.data import Dataset

STEPS = 6


def batch(node: int, step: int) -> tuple[Tensor, Tensor]:
    """Inputs [8, 6] and targets [8, 3]."""
    draw = torch.Generator().manual_seed(1000 * node + step)
    x = torch.randn(8, 6, generator=draw)
    return x, torch.tanh(x[:, :3] - x[:, 3:])


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))


class Loop:
    """SGD with momentum, weight decay and Nesterov's step; the others change what they say."""

    words: ClassVar[str] = "SGD, momentum, weight decay, Nesterov"
    counted: ClassVar[int] = STEPS
    """Local steps that it makes."""
    tolerance: ClassVar[float] = 1e-6

    def __init__(self) -> None:
        self.model: nn.Module = self.make_model()
        self.optimizer: Any = self.make_optimizer()

    def make_model(self) -> nn.Module:
        return net()

    def make_optimizer(self) -> Any:
        return torch.optim.SGD(
            self.model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True
        )

    def joins(self) -> list[tuple[nn.Module, Any]]:
        """What is given to `join`, once each."""
        return [(self.model, self.optimizer)]

    def loss(self, node: int, step: int) -> Tensor:
        x, y = batch(node, step)
        return F.mse_loss(self.model(x), y)

    def step(self, node: int, step: int) -> None:
        self.optimizer.zero_grad()
        self.loss(node, step).backward()
        self.optimizer.step()

    def checkpoint(self) -> dict[str, Any]:
        """What a script would save."""
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}


class Adam(Loop):
    words = "AdamW"
    options: ClassVar[dict[str, Any]] = {}

    def make_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.model.parameters(), lr=0.01, **self.options)


class Fused(Adam):
    words = "fused optimizers"
    options: ClassVar = {"fused": True}


class Foreach(Adam):
    words = "foreach optimizers"
    options: ClassVar = {"foreach": True}


class Amsgrad(Adam):
    words = "AMSGrad, maximize, a rate that is a tensor"
    options: ClassVar = {"amsgrad": True, "maximize": True}

    def step(self, node: int, step: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = torch.tensor(0.01 / (1 + step))
        super().step(node, step)


class Autocast(Loop):
    words = "`torch.autocast`"

    def loss(self, node: int, step: int) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return super().loss(node, step)


class Scaled(Loop):
    words = "`GradScaler`: a step that it skips is no local step"
    counted = STEPS - 2
    fused: ClassVar = False

    def __init__(self) -> None:
        super().__init__()
        self.scaler = torch.amp.GradScaler("cpu", init_scale=64.0)

    def make_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9, fused=self.fused)

    def step(self, node: int, step: int) -> None:
        self.optimizer.zero_grad()
        loss = self.loss(node, step) * (float("inf") if step in (1, 4) else 1.0)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()


class ScaledFused(Scaled):
    words = "`GradScaler` with a fused optimizer, on the CPU"
    fused = True


class Accumulated(Loop):
    words = "gradient accumulation: a local step is one of the optimizer"

    def step(self, node: int, step: int) -> None:
        self.optimizer.zero_grad()
        for part in range(3):
            (self.loss(node, 3 * step + part) / 3).backward()
        self.optimizer.step()


class Clipped(Loop):
    words = "clipping by norm and by value"

    def step(self, node: int, step: int) -> None:
        self.optimizer.zero_grad()
        self.loss(node, step).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 0.1)
        nn.utils.clip_grad_value_(self.model.parameters(), 0.05)
        self.optimizer.step()


class Compiled(Loop):
    words = "`torch.compile` of the model"

    def __init__(self) -> None:
        super().__init__()
        self.compiled: Any = torch.compile(self.model, backend="aot_eager")

    def loss(self, node: int, step: int) -> Tensor:
        x, y = batch(node, step)
        return F.mse_loss(self.compiled(x), y)


class CompiledItself(Compiled):
    words = "`torch.compile`: the compiled model itself joins"

    def joins(self) -> list[tuple[nn.Module, Any]]:
        return [(self.compiled, self.optimizer)]


class CompiledStep(Loop):
    words = "`torch.compile` of the optimizer's step"

    def __init__(self) -> None:
        super().__init__()
        self.compiled = torch.compile(lambda: self.optimizer.step(), backend="aot_eager")

    def step(self, node: int, step: int) -> None:
        self.optimizer.zero_grad()
        self.loss(node, step).backward()
        self.compiled()


class Groups(Loop):
    words = "several parameter groups"

    def make_optimizer(self) -> torch.optim.Optimizer:
        decayed = [p for p in self.model.parameters() if p.ndim > 1]
        others = [p for p in self.model.parameters() if p.ndim == 1]
        groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "lr": 0.01}]
        return torch.optim.SGD(groups, lr=0.1)


class Several(Loop):
    words = "several optimizers of one model (Muon, AdamW): `join(model, [muon, adamw])`"

    def make_optimizer(self) -> list[torch.optim.Optimizer]:
        matrices = [p for p in self.model.parameters() if p.ndim == 2]
        others = [p for p in self.model.parameters() if p.ndim == 1]
        return [torch.optim.Muon(matrices, lr=0.02), torch.optim.AdamW(others, lr=0.01)]

    def step(self, node: int, step: int) -> None:
        for optimizer in self.optimizer:
            optimizer.zero_grad()
        self.loss(node, step).backward()
        for optimizer in self.optimizer:
            optimizer.step()

    def checkpoint(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": [optimizer.state_dict() for optimizer in self.optimizer],
        }


class InBackward(Several):
    words = "steps inside `backward()`, an optimizer for each parameter"

    def make_optimizer(self) -> list[torch.optim.Optimizer]:
        made = {p: torch.optim.SGD([p], lr=0.1) for p in reversed(list(self.model.parameters()))}

        def update(parameter: Tensor) -> None:
            made[parameter].step()
            made[parameter].zero_grad()

        for parameter in made:
            parameter.register_post_accumulate_grad_hook(update)
        return list(made.values())

    def step(self, node: int, step: int) -> None:
        self.loss(node, step).backward()


class Gan(Loop):
    words = "GANs: two models in one process, a `join` each"

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.critic = nn.Linear(3, 1)
        self.second = torch.optim.Adam(self.critic.parameters(), lr=0.01)

    def joins(self) -> list[tuple[nn.Module, Any]]:
        return [(self.model, self.optimizer), (self.critic, self.second)]

    def step(self, node: int, step: int) -> None:
        x, real = batch(node, step)
        self.second.zero_grad()
        (self.critic(self.model(x).detach()) - self.critic(real)).mean().backward()
        self.second.step()
        self.optimizer.zero_grad()
        (-self.critic(self.model(x))).mean().backward()
        self.optimizer.step()

    def checkpoint(self) -> dict[str, Any]:
        return super().checkpoint() | {"critic": self.critic.state_dict()}


class Lbfgs(Loop):
    words = "closures (L-BFGS): a local step is one `step(closure)`"
    tolerance = 1e-4  # a line search amplifies the rounding of an average

    def make_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.LBFGS(self.model.parameters(), lr=0.1, max_iter=3)

    def step(self, node: int, step: int) -> None:
        def closure() -> Tensor:
            self.optimizer.zero_grad()
            loss = self.loss(node, step)
            loss.backward()
            return loss

        self.optimizer.step(closure)


class Sharp(torch.optim.Optimizer):
    """Sharpness-aware steps around another optimizer, as people write them."""

    def __init__(self, inner: torch.optim.Optimizer) -> None:
        self.inner = inner
        super().__init__(inner.param_groups[0]["params"], {})
        self.param_groups = inner.param_groups

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # pyright: ignore
        parameters = [p for group in self.param_groups for p in group["params"]]
        ascents = [0.05 * p.grad / (p.grad.norm() + 1e-12) for p in parameters]
        for parameter, ascent in zip(parameters, ascents, strict=True):
            parameter.add_(ascent)
        with torch.enable_grad():
            closure()
        for parameter, ascent in zip(parameters, ascents, strict=True):
            parameter.sub_(ascent)
        self.inner.step()


class SharpnessAware(Loop):
    words = "an optimizer around another (SAM): the outer one joins"

    def make_optimizer(self) -> torch.optim.Optimizer:
        return Sharp(torch.optim.SGD(self.model.parameters(), lr=0.1))

    def step(self, node: int, step: int) -> None:
        def closure() -> None:
            self.optimizer.zero_grad()
            self.loss(node, step).backward()

        closure()
        self.optimizer.step(closure)


class Scheduled(Loop):
    words = "schedulers"

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, max_lr=0.2, total_steps=STEPS
        )

    def step(self, node: int, step: int) -> None:
        super().step(node, step)
        self.scheduler.step()

    def checkpoint(self) -> dict[str, Any]:
        return super().checkpoint() | {"scheduler": self.scheduler.state_dict()}


class Averaged(Loop):
    words = "EMA and SWA copies (`torch.optim.swa_utils`), each node its own"

    def __init__(self) -> None:
        super().__init__()
        decay = swa_utils.get_ema_multi_avg_fn(0.9)
        self.ema = swa_utils.AveragedModel(self.model, multi_avg_fn=decay)
        self.swa = swa_utils.AveragedModel(self.model)

    def step(self, node: int, step: int) -> None:
        super().step(node, step)
        self.ema.update_parameters(self.model)
        self.swa.update_parameters(self.model)

    def checkpoint(self) -> dict[str, Any]:
        copies = {"ema": self.ema.state_dict(), "swa": self.swa.state_dict()}
        return super().checkpoint() | copies


class Words(nn.Module):
    """An embedding, and a head on the same weights."""

    def __init__(self, *, tied: bool, sparse: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(11, 6, sparse=sparse)
        self.middle = nn.Linear(6, 6)
        self.head = nn.Linear(6, 11, bias=False)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, words: Tensor) -> Tensor:
        return self.head(torch.tanh(self.middle(self.embed(words))))


class Tied(Loop):
    words = "tied weights"

    def make_model(self) -> nn.Module:
        return Words(tied=True, sparse=False)

    def loss(self, node: int, step: int) -> Tensor:
        draw = torch.Generator().manual_seed(1000 * node + step)
        words = torch.randint(11, (32,), generator=draw)
        return F.cross_entropy(self.model(words), words * 3 % 11)


class Sparse(Tied):
    words = "sparse gradients of embeddings"

    def make_model(self) -> nn.Module:
        return Words(tied=False, sparse=True)

    def make_optimizer(self) -> list[torch.optim.Optimizer]:
        embed, *others = self.model.parameters()
        return [torch.optim.SparseAdam([embed], lr=0.01), torch.optim.SGD(others, lr=0.1)]

    step = Several.step
    checkpoint = Several.checkpoint


class Frozen(Loop):
    words = "frozen layers: only what is trained is exchanged"

    def make_model(self) -> nn.Module:
        model = net()
        model[0].requires_grad_(False)
        return model

    def make_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.SGD((p for p in self.model.parameters() if p.requires_grad), lr=0.1)


class Adapter(nn.Module):
    """A frozen layer and a low-rank addition to it."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Parameter(torch.randn(2, base.in_features) / 4)
        self.up = nn.Parameter(torch.zeros(base.out_features, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + F.linear(F.linear(x, self.down), self.up)


class Lora(Frozen):
    words = "LoRA and other adapters: they alone are exchanged"

    def make_model(self) -> nn.Module:
        model = net()
        return nn.Sequential(Adapter(model[0]), nn.Tanh(), Adapter(model[2]))


class FrozenForAWhile(Loop):
    words = "layers frozen for a while after joining, and trained again"

    def step(self, node: int, step: int) -> None:
        self.model[0].requires_grad_(step % 2 == 1)
        super().step(node, step)


class LateGroup(Loop):
    words = "`add_param_group` of parameters that the model had when it joined"

    def make_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.model[2].parameters(), lr=0.1, momentum=0.9)

    def step(self, node: int, step: int) -> None:
        if step == 3:
            self.optimizer.add_param_group({"params": self.model[0].parameters(), "lr": 0.05})
        super().step(node, step)


class Images(Loop):
    words = "`channels_last`"

    def make_model(self) -> nn.Module:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 3))
        return model.to(memory_format=torch.channels_last)

    def loss(self, node: int, step: int) -> Tensor:
        draw = torch.Generator().manual_seed(1000 * node + step)
        x = torch.randn(4, 3, 6, 6, generator=draw)
        return self.model(x.to(memory_format=torch.channels_last)).square().mean()


class Lazy(Loop):
    words = "lazy modules, once a batch has gone through them"

    def make_model(self) -> nn.Module:
        torch.manual_seed(0)
        model = nn.Sequential(nn.LazyLinear(16), nn.Tanh(), nn.LazyLinear(3))
        model(batch(0, 0)[0])
        return model


class Parametrized(Loop):
    words = "parametrizations: `weight_norm`, `orthogonal`"
    tolerance = 1e-5

    def make_model(self) -> nn.Module:
        model = net()
        parametrizations.weight_norm(model[0])
        parametrizations.orthogonal(model[2])
        return model


class Spectral(Loop):
    words = "spectral norm: its vectors stay the node's own in training"

    def make_model(self) -> nn.Module:
        model = net()
        parametrizations.spectral_norm(model[0])
        return model


class BatchNormed(Loop):
    words = (
        "batch norm: statistics are the node's own, `mean_model(recalibrate=...)` makes new ones"
    )

    def make_model(self) -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 3))


class Dropout(Loop):
    words = "dropout: no random number of torch's is used up"

    def make_model(self) -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Dropout(0.3), nn.Linear(16, 3))


class Checkpointed(Loop):
    words = "activation checkpointing"

    def loss(self, node: int, step: int) -> Tensor:
        x, y = batch(node, step)
        hidden = torch.utils.checkpoint.checkpoint(self.model[:2], x, use_reentrant=False)
        return F.mse_loss(self.model[2](hidden), y)


class InPlaceOfParameters(Loop):
    words = "parameters clamped, or replaced by `p.data = ...`, between steps"

    def step(self, node: int, step: int) -> None:
        super().step(node, step)
        for parameter in self.model.parameters():
            parameter.data = parameter.data.clamp(-0.3, 0.3)


LOOPS: tuple[type[Loop], ...] = (
    Loop, Adam, Fused, Foreach, Amsgrad, Lbfgs, SharpnessAware, Several, InBackward, Groups,
    LateGroup, Scheduled, Averaged, Autocast, Scaled, ScaledFused, Accumulated, Clipped, Compiled,
    CompiledItself, CompiledStep, Checkpointed, Dropout, BatchNormed, Spectral, Parametrized, Tied,
    Sparse, Frozen, FrozenForAWhile, Lora, Images, Lazy, InPlaceOfParameters, Gan,
)  # fmt: skip

ON_ONE_NODE = (Dropout,)
"""In one process two nodes would share torch's generator."""


START_METHODS = ("fork", "spawn", "forkserver")


class Batches(Dataset):
    """As a `DataLoader` reads them, in its workers."""

    def __len__(self) -> int:
        return STEPS

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        return batch(0, step)


def frozen_first() -> nn.Sequential:
    model = net()
    model[0].requires_grad_(False)
    return model


def unfreeze(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model[0].requires_grad_(True)


def new_head(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model[2] = nn.Linear(16, 3)
    optimizer.add_param_group({"params": model[2].parameters()})


def nothing(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    pass


class Refusal(NamedTuple):
    """What is refused: at `join`, or at the first step after `change`."""

    words: str
    make_model: Callable[[], nn.Module]
    says: str
    """In the error's text."""
    change: Callable[[nn.Module, torch.optim.Optimizer], None] | None = None


REFUSALS: tuple[Refusal, ...] = (
    Refusal("layers unfrozen after joining", frozen_first, "leave() and join() again", unfreeze),
    Refusal("layers replaced or added after joining", net, "leave() and join() again", new_head),
    Refusal(
        "lazy modules before their first batch",
        lambda: nn.Sequential(nn.LazyLinear(16), nn.Linear(16, 3)),
        "run one batch, then join",
    ),
    Refusal(
        "bfloat16 and float16 parameters",
        lambda: net().bfloat16(),
        "compute in less with torch.autocast",
    ),
    Refusal(
        "float64 parameters",
        lambda: net().double(),
        "the other bits would be lost in every exchange",
    ),
)


def table() -> str:
    """For docs/works-with.md: a row for each case, with what the tests see of it."""
    lines = ["| | one node | two nodes |", "| --- | --- | --- |"]
    for loop in LOOPS:
        two = "-" if loop in ON_ONE_NODE else "the average"
        lines.append(f"| {loop.words} | plain PyTorch | {two} |")
    lines.append(f"| `DataLoader` workers: {', '.join(START_METHODS)} | plain PyTorch | - |")
    for refusal in REFUSALS:
        lines.append(f'| {refusal.words} | refused: "{refusal.says}" | refused |')
    return "\n".join(lines)
