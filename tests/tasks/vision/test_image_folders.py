"""Images in folders: what is read, by whom, and what cannot be."""

from __future__ import annotations

import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from shapes import CLASSES, TEST, TRAIN

from swarmsgd.errors import ConfigError, DataError
from swarmsgd.tasks import Batch, VisionOptions, VisionTask, make_task
from swarmsgd.tasks.vision.crops import centre_cut, random_box
from swarmsgd.tasks.vision.listing import list_folder

SIZE = 16


def task(root: Path, nodes: int = 2, **options: Any) -> VisionTask:
    settings = {"image_size": SIZE, "batch_size": 8, "model": "mlp"} | options
    return VisionTask(VisionOptions(dataset=f"folder:{root}", **settings), nodes)


def take(task: VisionTask, node: int, count: int = 5) -> list[Batch]:
    return list(islice(task.batches(node), count))


def same(a: list[Batch], b: list[Batch]) -> bool:
    return all(
        torch.equal(x, y) for p, q in zip(a, b, strict=True) for x, y in zip(p, q, strict=True)
    )


def test_a_batch_is_images_of_one_size_and_labels(shapes: Path):
    images, labels = take(task(shapes), 0)[0]
    assert images.shape == (8, 3, SIZE, SIZE)
    assert images.dtype == torch.uint8
    assert labels.dtype == torch.int64
    assert set(labels.tolist()) <= {0, 1, 2, 3}


def test_classes_are_the_folders_in_order(shapes: Path):
    made = task(shapes)
    assert list_folder(shapes)[0].classes == CLASSES
    assert made.images.num_classes == 4
    assert np.bincount(made.images.labels).tolist() == [TRAIN] * 4
    assert made.samples_per_epoch == 4 * TRAIN


def test_the_name_of_the_folder_is_short_for_the_task_on_it(shapes: Path):
    made = make_task(f"folder:{shapes}", num_nodes=2, image_size=SIZE)
    assert made.name == f"folder:{shapes}/cnn"


@pytest.mark.parametrize("where", ["val", "test"])
def test_the_test_set_lies_in_val_or_in_test(own_shapes: Path, where: str):
    (own_shapes / "val").rename(own_shapes / where)
    made = task(own_shapes)
    assert made.evaluate(made.make_model(0)).samples == 4 * TEST


def test_a_label_is_the_class_of_its_image(tmp_path: Path):
    for split in ("train", "val"):
        for grey in (10, 200):
            folder = tmp_path / split / f"{grey:03d}"
            folder.mkdir(parents=True)
            for i in range(3):
                Image.new("L", (9, 30), grey).save(folder / f"{i}.png")
    for images, labels in take(task(tmp_path, nodes=1), 0):
        greys = torch.tensor([10, 200], dtype=torch.uint8)[labels]
        assert (images == greys.view(-1, 1, 1, 1)).all()


@pytest.mark.slow
def test_batches_are_the_same_with_any_number_of_loaders(shapes: Path):
    alone = take(task(shapes), 1)
    assert same(alone, take(task(shapes, loaders=1), 1))
    assert same(alone, take(task(shapes, loaders=2), 1))


def test_an_image_is_cut_anew_at_every_pass(shapes: Path):
    passes = take(task(shapes, nodes=1, batch_size=4 * TRAIN), 0, 2)
    order = [labels.argsort(stable=True) for _, labels in passes]
    assert not torch.equal(passes[0][0][order[0]], passes[1][0][order[1]])
    assert not torch.equal(passes[0][0].sort(0)[0], passes[1][0].sort(0)[0])


def test_a_node_reads_only_its_own_images(own_shapes: Path):
    made = task(own_shapes, nodes=4)
    listing = list_folder(own_shapes)[0]
    for row in made.shards_NK[1:].flatten():
        listing.path(row).unlink()
    assert len(take(made, 0, 20)) == 20
    with pytest.raises(DataError, match=r"png cannot be used: FileNotFoundError"):
        take(made, 1)


def test_a_test_image_is_the_centre():
    image = Image.new("RGB", (64, 32), (0, 0, 0))
    image.paste((255, 255, 255), (24, 8, 40, 24))
    pixels = np.asarray(centre_cut(image, 28))
    assert pixels.shape == (28, 28, 3)
    assert (pixels == pixels[:, ::-1]).all()
    assert (pixels == pixels[::-1]).all()
    # 7/8 of 32 is 28 pixels: none is scaled, and the square of 16 is in the middle of them.
    assert (pixels[6:22, 6:22] == 255).all()
    assert pixels.sum() == 3 * 255 * 16 * 16


def test_random_boxes_are_inside_and_of_the_areas_and_aspects_said():
    rng = np.random.default_rng(0)
    boxes = np.array([random_box(400, 300, rng) for _ in range(2000)])
    widths, heights = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert boxes.min() >= 0 and boxes[:, 2].max() <= 400 and boxes[:, 3].max() <= 300
    shares, aspects = widths * heights / 120_000, widths / heights
    assert 0.078 < shares.min() < 0.1 and shares.max() > 0.9
    assert 0.74 < aspects.min() < 0.77 and 1.3 < aspects.max() < 1.35


def test_a_box_of_an_image_that_is_a_strip_is_its_middle():
    assert random_box(1000, 10, np.random.default_rng(0)) == pytest.approx(
        (493.3, 0, 506.7, 10), abs=0.1
    )


HOLDER = """
import sys
from swarmsgd.tasks import make_task
if __name__ == "__main__":
    task = make_task(sys.argv[1], num_nodes=1, image_size=16, loaders=2)
    batches = task.batches(0)
    next(batches)
    print("reading", flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
def test_loaders_end_with_a_node_that_is_killed(shapes: Path, tmp_path: Path):
    """They hold its output open: the end of it comes when all of them are gone."""
    script = tmp_path / "holder.py"
    script.write_text(HOLDER)
    command = [sys.executable, str(script), f"folder:{shapes}"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "reading\n"
        holder.kill()
        out, _ = holder.communicate(timeout=120)
    assert out == ""


def spoil(root: Path, how: str) -> Path:
    match how:
        case "no folder":
            shutil.rmtree(root)
        case "no train":
            (root / "train").rename(root / "training")
        case "no val":
            shutil.rmtree(root / "val")
        case "no classes":
            shutil.rmtree(root / "train")
            (root / "train").mkdir()
            (root / "train" / "a.png").touch()
        case "another class":
            (root / "val" / "circle").rename(root / "val" / "circles")
        case "an empty class":
            for path in (root / "train" / "cross").iterdir():
                path.unlink()
        case "a text":
            (root / "train" / "cross" / "notes.txt").touch()
    return root


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("no folder", "own is no folder; name the one that has train and val in it"),
        ("no train", "own has no folder train, but training, val; wanted train and val"),
        ("no val", "own has no folder val or test, but train; wanted"),
        ("no classes", "train has no folders, but 1 files; wanted one folder a class"),
        (
            "another class",
            "val has the class 'circles', which .*train has not; did you mean \"circle\"",
        ),
        ("an empty class", r"train.cross is empty; put the images of the class there"),
        ("a text", r"cross.notes\.txt is no image by its name; take it away"),
    ],
)
def test_a_folder_that_cannot_be_used_is_told_before_anything_starts(
    own_shapes: Path, how: str, text: str
):
    with pytest.raises(DataError, match=text) as caught:
        task(spoil(own_shapes, how))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("loaders", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_file_that_is_no_image_is_named_when_it_is_read(own_shapes: Path, loaders: int):
    (own_shapes / "train" / "square" / "07.png").write_bytes(b"no image")
    made = task(own_shapes, nodes=1, loaders=loaders)
    with pytest.raises(DataError, match=r"square.07\.png cannot be used: Unidenti") as caught:
        take(made, 0, 4 * TRAIN // 8)
    assert "\n" not in str(caught.value)


def test_half_an_image_is_named(own_shapes: Path):
    path = own_shapes / "val" / "cross" / "03.png"
    path.write_bytes(path.read_bytes()[:-40])
    made = task(own_shapes)
    with pytest.raises(DataError, match=r"cross.03\.png cannot be used: OSError: .*truncated"):
        made.evaluate(made.make_model(0))


def test_more_nodes_than_images_are_refused(shapes: Path):
    with pytest.raises(ConfigError, match="160 samples cannot be split over 161 nodes"):
        task(shapes, nodes=161)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"dataset": "folder:"}, "names no folder; write folder:PATH"),
        ({"dataset": "folder"}, "names no folder; write folder:PATH"),
        ({"dataset": "folder:x", "image_size": 0}, "image_size is 0, wanted a whole number"),
        ({"dataset": "folder:x", "loaders": -1}, "loaders is -1, wanted a whole number"),
        ({"dataset": "folder:x", "data": Path("y")}, "data is y, which changes nothing"),
        ({"dataset": "digits", "loaders": 2}, "loaders is 2, which changes nothing"),
        ({"dataset": "digits", "image_size": 32}, "image_size is 32, which changes nothing"),
    ],
)
def test_options_of_a_folder_are_checked_where_they_are_made(options: dict[str, Any], text: str):
    with pytest.raises(ConfigError, match=text):
        VisionOptions(**options)
