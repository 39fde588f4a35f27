"""How the nodes of `swarmsgd train` keep their models together: SwarmSGD, and what it is compared
with.

Each is seen from one node, behind the same few calls, so that all train on the same data with the
same loop and are measured in the same way.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from swarmsgd.errors import PeerError
from swarmsgd.observe.environment import environment
from swarmsgd.observe.records import Recorder
from swarmsgd.observe.schema import filled
from swarmsgd.optim import reporting

if TYPE_CHECKING:
    from swarmsgd.train.command.config import TrainConfig


class MeanModel(NamedTuple):
    """The mean of the live nodes' models, the same on each of them."""

    state: dict[str, Tensor]
    gamma: float
    """Sum over the nodes of the squared distance to the mean."""
    nodes: list[int]
    """Whose mean it is."""


class NodeAlgorithm(Protocol):
    """The part of one node, made by an entry of `NODE_MAKERS` when all nodes are there."""

    recorder: Recorder

    @property
    def model(self) -> nn.Module:
        """What the loss is to be computed with."""
        ...

    def backward(self, loss: Tensor) -> None:
        """Fill the gradients; the optimizer's step follows."""
        ...

    def figures(self) -> dict[str, Any]:
        """exchanges, bytes_sent, bytes_received, blocked_s so far, and gamma_estimate; null: not
        measured.
        """
        ...

    def mean(self) -> MeanModel:
        """Of what the optimizers report; a collective of all live nodes, after the last step."""
        ...

    def close(self) -> None:
        """Leave the others; closes the recorder."""
        ...


class SwarmNode:
    """Exchanges with random neighbours; see `swarmsgd.join`."""

    def __init__(
        self, model: nn.Module, optimizer: Optimizer, config: TrainConfig, record: Path
    ) -> None:
        from swarmsgd.train.node.join import join

        self._model = model
        self._optimizer = optimizer
        self._reports = config.optimizer.reports is not None
        self.swarm = join(
            model,
            optimizer,
            record=record,
            **vars(config.swarm),
        )
        self.swarm.lines.stop()  # those written here have what the task knows
        self.recorder = self.swarm.recorder

    @property
    def model(self) -> nn.Module:
        return self._model

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def figures(self) -> dict[str, Any]:
        stats = self.swarm.stats()
        return {
            "exchanges": stats.get("completed", 0) + stats.get("answered", 0),
            "bytes_sent": stats.get("bytes_sent", 0),
            "bytes_received": stats.get("bytes_received", 0),
            "blocked_s": stats["blocked_s"],
            "gamma_estimate": stats["gamma_estimate"],
        }

    def mean(self) -> MeanModel:
        swarm = self.swarm
        state, gamma = swarm.mean_model(recalibrate=False), swarm.gamma  # the task's data will do
        if self._reports:
            swarm.settle()  # what is reported follows from all of it; nothing more is on its way
            with reporting(self._optimizer):
                state = swarm.mean_model(recalibrate=False)
        return MeanModel(state, 0.0 if gamma is None else gamma, swarm.mean_of)

    def close(self) -> None:
        self.swarm.leave()


class DdpNode:
    """Torch's DistributedDataParallel over Gloo: the mean gradient of all nodes at every step.

    `blocked_s` is the time from the moment a step's last gradient bucket was ready to the end of
    its backward pass: there is nothing left to compute then, only others to wait for. `bytes_sent`
    is not counted on the wire but computed: 2 (n - 1)/n of each bucket, as a ring sends.
    """

    def __init__(
        self, model: nn.Module, optimizer: Optimizer, config: TrainConfig, record: Path
    ) -> None:
        import torch.distributed as dist
        from torch.nn.parallel import DistributedDataParallel

        dist.init_process_group("gloo")
        self._dist = dist
        self._bare = model
        self._optimizer = optimizer
        self._size = dist.get_world_size()
        self._parallel = DistributedDataParallel(model)
        self._parallel.register_comm_hook(None, self._average)
        self._sent = 0.0
        self._blocked_s = 0.0
        self._ready_at = 0.0
        self.recorder = Recorder(record, dist.get_rank())
        self.recorder.write(
            "start",
            num_nodes=self._size,
            dim=sum(p.numel() for p in model.parameters() if p.requires_grad),
            **environment(),
            **config.swarm.in_effect(uses=("seed",)),
        )

    @property
    def model(self) -> nn.Module:
        return self._parallel

    def _average(self, _state, bucket):  # torch refuses annotations that are texts
        gradients = bucket.buffer().div_(self._size)
        self._sent += 2 * (self._size - 1) / self._size * gradients.nbytes
        work = self._dist.all_reduce(gradients, async_op=True)
        assert work is not None
        self._ready_at = time.perf_counter()
        return work.get_future().then(lambda future: future.value()[0])

    def backward(self, loss: Tensor) -> None:
        try:
            loss.backward()
        except RuntimeError as error:
            if "gloo" not in str(error).lower():
                raise
            raise PeerError(
                f"a node is gone, and all-reduce cannot go on without it: {error}"
            ) from None
        self._blocked_s += time.perf_counter() - self._ready_at

    def figures(self) -> dict[str, Any]:
        sent = round(self._sent)
        return {
            "exchanges": 0,
            "bytes_sent": sent,
            "bytes_received": sent,
            "blocked_s": self._blocked_s,
            "gamma_estimate": None,
        }

    def mean(self) -> MeanModel:
        """All models should be equal; gamma is measured nevertheless."""
        with reporting(self._optimizer):
            return self._mean()

    def _mean(self) -> MeanModel:
        gamma = torch.zeros(1, dtype=torch.float64)
        state = {name: value.clone() for name, value in self._bare.state_dict().items()}
        parameters = {name for name, _ in self._bare.named_parameters()}
        for name, value in state.items():
            if value.is_floating_point():
                mine = value.double()
                mean = mine / self._size
                self._dist.all_reduce(mean)
                if name in parameters:
                    gamma += (mine - mean).square().sum().cpu()
                value.copy_(mean)
        self._dist.all_reduce(gamma)
        return MeanModel(state, float(gamma), list(range(self._size)))

    def close(self) -> None:
        del self._parallel  # it holds the group, whose threads must end before the interpreter
        gc.collect()
        self._dist.destroy_process_group()
        fields = {"blocked_s": self._blocked_s, "bytes_sent": round(self._sent)}
        self.recorder.write("end", **filled("end", **fields))
        self.recorder.close()


def _compile_kernels() -> None:
    from swarmsgd.codec import kernels

    kernels.prepare()


class NodeMaker(NamedTuple):
    """A line of `NODE_MAKERS`."""

    make: Callable[[nn.Module, Optimizer, TrainConfig, Path], NodeAlgorithm]
    """make(model, optimizer, config, record)."""
    prepare: Callable[[], None] = lambda: None
    """What is done once before the nodes start, so that not each of them does it."""


NODE_MAKERS: Mapping[str, NodeMaker] = {
    "swarm": NodeMaker(SwarmNode, _compile_kernels),
    "allreduce": NodeMaker(DdpNode),
}
"""Name in `swarmsgd.settings.algorithms.REAL_ALGORITHMS` -> how it is made here."""
