"""Checkpoints of nodes without a swarm: what each would have written, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from swarmsgd.core.layout import Layout
from swarmsgd.core.node import Burst
from swarmsgd.settings.swarm import SwarmSettings, lengths_of
from swarmsgd.train.checkpoint.resumed import PlaceInSwarm, SwarmStreams
from swarmsgd.train.checkpoint.save import Standing, save


def make(seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A model with buffers and an optimizer with state, after two steps."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    step(model, optimizer)
    step(model, optimizer)
    return model, optimizer


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.randn(8, 4)).square().mean().backward()
    optimizer.step()


def write(path: Path | str, rank: int, nodes: int, steps: int = 2, **given: Any) -> nn.Module:
    """Node `rank`'s checkpoint, of a model of its own (what `make` makes of the rank); that
    model.
    """
    model, optimizer = given.pop("make", make)(rank)
    config = SwarmSettings.of(given.pop("settings", {}))
    streams = SwarmStreams.of(config, rank)
    burst = Burst(lengths_of(config.local_steps), streams.lengths)
    place = PlaceInSwarm(config, burst, streams, Layout(model)).state()
    node = Standing(model, [optimizer], config, rank, nodes, steps, place)
    save(path, node, given.pop("resumed", None), given)
    return model
