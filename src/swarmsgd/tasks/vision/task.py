"""Image classification on real data, split over nodes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from swarmsgd.checks import one_of, whole
from swarmsgd.errors import ConfigError
from swarmsgd.seeds import fixed
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
from swarmsgd.tasks.partition import PARTITIONS, parse_partition
from swarmsgd.tasks.vision.datasets import DATASETS, load_images
from swarmsgd.tasks.vision.folder import FolderImages, images_folder
from swarmsgd.tasks.vision.images import Images, Labelled
from swarmsgd.tasks.vision.models import MODELS, check_model, make_model

_TRAIN_SCORE_SAMPLES = 10_000


@dataclass(frozen=True, kw_only=True)
class VisionOptions:
    """Settings of the vision task."""

    dataset: str = field(default="fashion-mnist", metadata={"table": DATASETS})
    """One by name, or folder:PATH for images of your own."""

    model: str = field(default="cnn", metadata={"table": MODELS})
    """cnn, mlp, resnet20, or a classification model of torchvision: resnet18, resnet50, ..."""

    partition: str = field(default="iid", metadata={"table": PARTITIONS})
    """How samples are split over nodes: iid, grouped, or dirichlet:ALPHA for label skew."""

    batch_size: int = 32
    """Samples in one local step."""

    augment: bool = False
    """Shift and mirror the training images at random; those of a folder always are cut at random
    and mirrored.
    """

    image_size: int = 224
    """Pixels a side that the images of a folder are cut to."""

    loaders: int = 0
    """Processes a node that read the images of a folder; 0: it reads them itself."""

    data: Path | None = None
    """Folder to look for data in; default: SWARMSGD_DATA, the system's, the cache, then fetch."""

    seed: int = 0
    """Seed of the split over nodes and of the order of samples."""

    def __post_init__(self) -> None:
        folder = images_folder(self.dataset)
        if folder is None:
            one_of("dataset", self.dataset, DATASETS)
        check_model(self.model)
        parse_partition(self.partition)
        whole("batch_size", self.batch_size, 1)
        whole("seed", self.seed, 0)
        whole("image_size", self.image_size, 1)
        whole("loaders", self.loaders, 0)
        others = ("data",) if folder is not None else ("image_size", "loaders")
        for name in others:
            if (got := getattr(self, name)) != getattr(VisionOptions, name):
                raise ConfigError(
                    f"{name} is {got}, which changes nothing for dataset {self.dataset!r}: "
                    "leave it out"
                )

    @property
    def name(self) -> str:
        """The task's name in titles."""
        return f"{self.dataset}/{self.model}"


def _images(options: VisionOptions, notify: Notify) -> Images:
    folder = images_folder(options.dataset)
    if folder is None:
        return load_images(options.dataset, options.data, notify)
    return FolderImages(folder, options.image_size, options.loaders)


class VisionTask:
    """Image classification; a `Task`. A batch is (images uint8 ``[B, C, H, W]``, labels).

    `shards_NK` holds the training samples of each node, by index.
    """

    def __init__(self, options: VisionOptions, num_nodes: int, notify: Notify = silent) -> None:
        check_nodes(num_nodes)
        self.options = options
        self.num_nodes = num_nodes
        self.images = _images(options, notify)
        self.shards_NK = parse_partition(options.partition).split(
            self.images.labels, num_nodes, options.seed
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
        options = self.options
        return self.images.batches(
            self.shards_NK[node], self.batch_size, options.seed, node, augment=options.augment
        )

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean cross-entropy."""
        device = device_of(model)
        images, labels = (part.to(device, non_blocking=True) for part in batch)
        return F.cross_entropy(model(self.images.normalised(images)).float(), labels)

    def evaluate(self, model: nn.Module) -> Score:
        return self._score(model, self.images.scored())

    def train_score(self, model: nn.Module) -> Score:
        """On 10,000 training images, or all if there are fewer; not augmented."""
        chosen = fixed().permutation(len(self.images.labels))[:_TRAIN_SCORE_SAMPLES]
        return self._score(model, self.images.sample(chosen))

    def _score(self, model: nn.Module, batches: Iterator[Labelled]) -> Score:
        device = device_of(model)
        loss, correct, samples = 0.0, 0, 0
        with evaluating(model):
            for images, labels in batches:
                logits = model(self.images.normalised(images.to(device)))
                labels = labels.to(device)
                loss += float(F.cross_entropy(logits, labels, reduction="sum"))
                correct += int((logits.argmax(dim=1) == labels).sum())
                samples += len(labels)
        return Score(loss=loss / samples, accuracy=correct / samples, samples=samples)
