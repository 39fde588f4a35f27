"""Image classification on real data, split over nodes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swarmsgd.checks import one_of, whole
from swarmsgd.seeds import fixed
from swarmsgd.tasks.augment import crop_and_flip
from swarmsgd.tasks.base import (
    Batch,
    Notify,
    Score,
    check_node,
    check_nodes,
    device_of,
    evaluating,
    silent,
)
from swarmsgd.tasks.datasets import DATASETS, ImageData, Split, load_images
from swarmsgd.tasks.models import MODELS, make_model
from swarmsgd.tasks.partition import PARTITIONS, parse_partition
from swarmsgd.tasks.stream import index_batches, node_generator

_SCORE_BATCH = 1000
_TRAIN_SCORE_SAMPLES = 10_000


@dataclass(frozen=True, kw_only=True)
class VisionOptions:
    """Settings of the vision task."""

    dataset: str = field(default="fashion-mnist", metadata={"table": DATASETS})
    """fashion-mnist, digits, cifar10 or cifar10-jpeg75."""

    model: str = field(default="cnn", metadata={"table": MODELS})
    """cnn, mlp or resnet20."""

    partition: str = field(default="iid", metadata={"table": PARTITIONS})
    """How samples are split over nodes: iid, grouped, or dirichlet:ALPHA for label skew."""

    batch_size: int = 32
    """Samples in one local step."""

    augment: bool = False
    """Shift and mirror the training images at random."""

    data: Path | None = None
    """Folder to look for data in; default: SWARMSGD_DATA, the system's, the cache, then fetch."""

    seed: int = 0
    """Seed of the split over nodes and of the order of samples."""

    def __post_init__(self) -> None:
        one_of("dataset", self.dataset, DATASETS)
        one_of("model", self.model, MODELS)
        parse_partition(self.partition)
        whole("batch_size", self.batch_size, 1)
        whole("seed", self.seed, 0)

    @property
    def name(self) -> str:
        """The task's name in titles."""
        return f"{self.dataset}/{self.model}"


class VisionTask:
    """Image classification; a `Task`. A batch is (images float32 ``[B, C, H, W]``, labels).

    `shards_NK` holds the training samples of each node, by index.
    """

    def __init__(self, options: VisionOptions, num_nodes: int, notify: Notify = silent) -> None:
        check_nodes(num_nodes)
        self.options = options
        self.num_nodes = num_nodes
        self.images: ImageData = load_images(options.dataset, options.data, notify)
        self.shards_NK = parse_partition(options.partition).split(
            self.images.train.labels.numpy(), num_nodes, options.seed
        )

    @property
    def name(self) -> str:
        return self.options.name

    @property
    def batch_size(self) -> int:
        return self.options.batch_size

    @property
    def samples_per_epoch(self) -> int:
        return self.shards_NK.size

    def make_model(self, seed: int) -> nn.Module:
        return make_model(self.options.model, self.images.shape, self.images.num_classes, seed)

    def batches(self, node: int) -> Iterator[Batch]:
        check_node(node, self.num_nodes)
        return self._batches(node)

    def _batches(self, node: int) -> Iterator[Batch]:
        rng = node_generator(self.options.seed, node)
        for indices in index_batches(self.shards_NK[node], self.batch_size, rng):
            chosen = torch.from_numpy(indices)
            images = self.images.train.images[chosen]
            if self.options.augment:
                images = crop_and_flip(images, rng)
            yield self.images.normalised(images), self.images.train.labels[chosen]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean cross-entropy."""
        device = device_of(model)
        images, labels = (part.to(device, non_blocking=True) for part in batch)
        return F.cross_entropy(model(images), labels)

    def evaluate(self, model: nn.Module) -> Score:
        return self._score(model, self.images.test)

    def train_score(self, model: nn.Module) -> Score:
        """On 10,000 training images, or all if there are fewer; not augmented."""
        images, labels = self.images.train
        samples = min(_TRAIN_SCORE_SAMPLES, len(labels))
        chosen = torch.from_numpy(fixed().permutation(len(labels))[:samples])
        return self._score(model, Split(images[chosen], labels[chosen]))

    def _score(self, model: nn.Module, split: Split) -> Score:
        device = device_of(model)
        loss, correct = 0.0, 0
        with evaluating(model):
            for images, labels in zip(
                split.images.split(_SCORE_BATCH), split.labels.split(_SCORE_BATCH), strict=True
            ):
                logits = model(self.images.normalised(images).to(device))
                labels = labels.to(device)
                loss += float(F.cross_entropy(logits, labels, reduction="sum"))
                correct += int((logits.argmax(dim=1) == labels).sum())
        samples = len(split.labels)
        return Score(loss=loss / samples, accuracy=correct / samples, samples=samples)
