"""The vision task on the digits, and on Fashion-MNIST where it is."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch

from swarmsgd.tasks import VisionOptions, VisionTask, load_images
from swarmsgd.tasks.stream import index_batches
from swarmsgd.tasks.vision.augment import crop_and_flip
from swarmsgd.tasks.vision.fashion import find_fashion_mnist


def digits(nodes: int = 4, **options) -> Any:
    return VisionTask(VisionOptions(dataset="digits", **options), nodes)


def train(task: VisionTask, steps: int, lr: float) -> torch.nn.Module:
    model = task.make_model(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    for batch in islice(task.batches(0), steps):
        optimizer.zero_grad()
        task.loss(model, batch).backward()
        optimizer.step()
    return model


def test_the_digits_are_split_four_to_one():
    images = load_images("digits")
    assert images.train.images.shape == (1437, 1, 8, 8)
    assert images.test.images.shape == (360, 1, 8, 8)
    assert images.train.images.dtype == torch.uint8
    assert images.train.labels.unique().tolist() == list(range(10))


def test_the_split_of_the_digits_is_always_the_same():
    assert torch.equal(load_images("digits").test.images, load_images("digits").test.images)


def test_normalised_images_have_zero_mean_and_unit_variance():
    images = load_images("digits")
    pixels = images.normalised(images.train.images)
    assert pixels.dtype == torch.float32
    assert pixels.mean().abs() < 0.01
    assert pixels.std().item() == pytest.approx(1, abs=0.01)


def test_normalising_is_per_channel_and_leaves_the_bytes_alone():
    images = load_images("digits")
    bytes_before = images.train.images.clone()
    images.normalised(images.train.images)
    assert torch.equal(bytes_before, images.train.images)


def test_a_batch_is_images_and_labels():
    images, labels = next(digits(batch_size=5).batches(0))
    assert images.shape == (5, 1, 8, 8)
    assert images.dtype == torch.uint8
    assert labels.shape == (5,)
    assert labels.dtype == torch.int64


def test_a_node_sees_only_its_shard_and_all_of_it():
    task = digits(nodes=4, batch_size=1)
    size = task.samples_per_epoch // 4
    seen = torch.stack([images[0] for images, _ in islice(task.batches(2), size)])
    own = task.images.train.images[torch.from_numpy(task.shards_NK[2])]
    assert torch.equal(seen.flatten(1).sum(1).sort()[0], own.flatten(1).sum(1).sort()[0])


def test_every_pass_has_each_sample_once_in_a_new_order():
    shard = np.arange(100, 110)
    batches = islice(index_batches(shard, 4, np.random.default_rng(0)), 25)
    passes = np.concatenate(list(batches)).reshape(10, 10)
    assert (np.sort(passes, axis=1) == shard).all()
    assert len({tuple(p) for p in passes}) == 10


def test_a_shard_may_be_smaller_than_a_batch():
    batch = next(index_batches(np.arange(3), 8, np.random.default_rng(0)))
    assert len(batch) == 8
    assert np.bincount(batch).min() >= 2


def test_an_epoch_is_what_all_nodes_see():
    assert digits(nodes=4).samples_per_epoch == 1436


def test_label_skew_reaches_the_batches():
    task = digits(nodes=20, partition="dirichlet:0.01", batch_size=64)
    largest = [next(task.batches(node))[1].bincount().max() for node in range(20)]
    assert sum(largest) / 20 > 0.7 * 64


def test_the_cnn_learns_the_digits():
    task = digits(nodes=1)
    score = task.evaluate(train(task, steps=250, lr=0.05))
    assert score.accuracy is not None
    assert score.accuracy > 0.93
    assert score.samples == 360


def test_a_score_does_not_depend_on_the_size_of_its_batches(monkeypatch: pytest.MonkeyPatch):
    task = digits()
    model = task.make_model(0)
    whole = task.evaluate(model)
    monkeypatch.setattr("swarmsgd.tasks.vision.images.SCORE_BATCH", 7)
    parts = task.evaluate(model)
    assert parts.accuracy == whole.accuracy
    assert parts.loss == pytest.approx(whole.loss, rel=1e-5)


def test_a_crop_is_a_window_of_the_padded_image_perhaps_mirrored():
    images = torch.arange(1, 2 * 3 * 6 * 5 + 1).view(2, 3, 6, 5).repeat(20, 1, 1, 1)
    augmented = crop_and_flip(images, np.random.default_rng(0))
    assert augmented.shape == images.shape
    padded = torch.nn.functional.pad(images, (4, 4, 4, 4))
    kinds = set()
    for image, around in zip(augmented, padded, strict=True):
        found = [
            (top, left, mirrored)
            for top in range(9)
            for left in range(9)
            for mirrored in (False, True)
            for window in [around[:, top : top + 6, left : left + 5]]
            if torch.equal(image, window.flip(2) if mirrored else window)
        ]
        assert found
        kinds.add(found[0])
    assert len(kinds) > 20
    assert {mirrored for *_, mirrored in kinds} == {False, True}


def test_augmented_batches_differ_only_in_the_images():
    plain, augmented = digits(), digits(augment=True)
    (x, labels), (y, same_labels) = next(plain.batches(0)), next(augmented.batches(0))
    assert torch.equal(labels, same_labels)
    assert not torch.equal(x, y)


@pytest.fixture(scope="module")
def fashion() -> Any:
    if find_fashion_mnist(None) is None:
        pytest.skip("Fashion-MNIST is not on this machine; run the demo once to fetch it")
    return VisionTask(VisionOptions(), 4)


def test_fashion_mnist_is_whole(fashion: VisionTask):
    assert fashion.images.train.images.shape == (60_000, 1, 28, 28)
    assert fashion.images.test.images.shape == (10_000, 1, 28, 28)
    assert fashion.images.train.labels.bincount().tolist() == [6000] * 10
    assert fashion.images.test.labels.bincount().tolist() == [1000] * 10


def test_fashion_mnist_is_normalised(fashion: VisionTask):
    pixels = fashion.images.normalised(fashion.images.train.images[:5000])
    assert pixels.mean().abs() < 0.02
    assert pixels.std().item() == pytest.approx(1, abs=0.02)


@pytest.mark.slow
def test_the_cnn_learns_fashion_mnist(fashion: VisionTask):
    score = fashion.evaluate(train(fashion, steps=300, lr=0.05))
    assert score.accuracy is not None
    assert score.accuracy > 0.75
