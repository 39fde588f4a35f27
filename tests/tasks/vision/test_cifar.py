"""Reading CIFAR-10: pickles without their dangers, and JPEG files."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from swarmsgd.errors import DataError
from swarmsgd.tasks.vision.cifar import CIFAR10, CIFAR100, load_cifar10, load_cifar100, read_batch
from swarmsgd.tasks.vision.datasets import load_images
from swarmsgd.tasks.vision.jpeg import NAMES, decode_jpegs

PIXELS = np.random.default_rng(0).integers(0, 256, size=(4, 3072), dtype=np.uint8)
LABELS = [3, 1, 9, 0]


def batch(**changes: Any) -> dict[bytes, Any]:
    content = {b"batch_label": b"tiny", b"labels": LABELS, b"data": PIXELS, b"filenames": [b"a"]}
    return content | {key.encode(): value for key, value in changes.items()}


def write(path: Path, content: object) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=4))
    return path


@pytest.fixture
def standard_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / CIFAR10.folder
    folder.mkdir(parents=True)
    for name in [*CIFAR10.train_files, CIFAR10.test_file]:
        write(folder / name, batch())
    return folder


def test_a_batch_file_is_read(tmp_path: Path):
    images, labels = read_batch(write(tmp_path / "data_batch_1", batch()))
    assert (images.reshape(4, 3072) == PIXELS).all()
    assert images.shape == (4, 3, 32, 32)
    assert labels.tolist() == LABELS


def test_a_batch_file_of_python_2_is_read(tmp_path: Path):
    """The published files were written so: strings are bytes, arrays refer to numpy.core."""
    packed = pickle.dumps(PIXELS[:, :], protocol=4).replace(
        b"\x8c\x16numpy._core.multiarray", b"\x8c\x15numpy.core.multiarray"
    )
    array = packed[11:-1]  # between the frame and the stop
    body = b"}(U\x04data" + array + b"U\x06labels](K\x03K\x01K\x09K\x00eu."
    (tmp_path / "old").write_bytes(b"\x80\x02" + body)
    images, _ = read_batch(tmp_path / "old")
    assert (images.reshape(4, 3072) == PIXELS).all()


class Malicious:
    """Pickles as a call of os.mkdir, which unpickling would carry out."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_malicious_pickle_is_refused_and_does_nothing(tmp_path: Path):
    trap = tmp_path / "trap"
    path = write(tmp_path / "data_batch_1", batch(labels=Malicious(trap)))
    with pytest.raises(DataError, match=rf"asks for {os.mkdir.__module__}\.mkdir"):
        read_batch(path)
    assert not trap.exists()
    pickle.loads(path.read_bytes())  # the trap is real
    assert trap.exists()


@pytest.mark.parametrize("function", [eval, getattr, np.load, __import__])
def test_no_function_can_be_reached(tmp_path: Path, function: object):
    with pytest.raises(DataError, match="which no data set needs"):
        read_batch(write(tmp_path / "x", function))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([1, 2], "does not hold a dictionary"),
        ({b"data": PIXELS}, "does not hold a dictionary"),
        (batch(data=PIXELS.astype(np.float32)), "its data are float32"),
        (batch(data=PIXELS[:, :100]), r"of shape \(4, 100\)"),
        (batch(labels=[1, 2]), "for 2 labels"),
        (batch(labels=[1, 2, 3, 10]), "integers from 0 to 9"),
        (batch(labels=[1, 2, 3, "4"]), "integers from 0 to 9"),
    ],
)
def test_other_contents_are_refused(tmp_path: Path, content: object, text: str):
    with pytest.raises(DataError, match=text):
        read_batch(write(tmp_path / "x", content))


def test_a_truncated_pickle_is_named(tmp_path: Path):
    path = write(tmp_path / "data_batch_2", batch())
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"data_batch_2 cannot be used: .* truncated"):
        read_batch(path)


@pytest.mark.usefixtures("bare_machine")
@pytest.mark.parametrize("level", [0, 1])
def test_the_standard_folder_or_its_parent_can_be_named(standard_folder: Path, level: int):
    images = load_images("cifar10", [standard_folder, standard_folder.parent][level])
    assert images.train.images.shape == (20, 3, 32, 32)
    assert images.test.labels.tolist() == LABELS
    assert images.shape == (3, 32, 32)


@pytest.mark.usefixtures("bare_machine")
def test_a_missing_batch_is_named(standard_folder: Path, lines: list[str]):
    (standard_folder / "data_batch_3").unlink()
    with pytest.raises(DataError, match="data_batch_3 cannot be used: it cannot be read"):
        load_images("cifar10", standard_folder, lines.append)


def test_without_network_the_error_says_what_to_do(bare_machine: Path, lines: list[str]):
    with pytest.raises(DataError, match=f"unpack .* into {bare_machine}"):
        load_cifar10(None, lines.append, sources=[])


@pytest.fixture
def standard_folder_of_100(tmp_path: Path) -> Path:
    """Of the shape and size of the authors' archive, which has coarse labels as well."""
    folder = tmp_path / "data" / CIFAR100.folder
    folder.mkdir(parents=True)
    for name, count in (("train", 50_000), ("test", 10_000)):
        pixels = np.zeros((count, 3072), np.uint8)
        pixels[:, 0] = np.arange(count) % 100
        fine, coarse = [i % 100 for i in range(count)], [i % 20 for i in range(count)]
        write(folder / name, {b"data": pixels, b"fine_labels": fine, b"coarse_labels": coarse})
    return folder


@pytest.mark.usefixtures("bare_machine")
def test_cifar100_has_the_fine_labels_of_the_standard_folder(standard_folder_of_100: Path):
    images = load_images("cifar100", standard_folder_of_100.parent)
    assert images.train.images.shape == (50_000, 3, 32, 32)
    assert images.test.images.shape == (10_000, 3, 32, 32)
    assert images.num_classes == 100
    assert (images.train.images[:, 0, 0, 0] == images.train.labels).all()


@pytest.mark.usefixtures("bare_machine")
def test_cifar100_is_found_next_to_folders_named_as_its_files(standard_folder_of_100: Path):
    (standard_folder_of_100.parent / "train").mkdir()
    assert load_images("cifar100", standard_folder_of_100.parent).test.labels[9] == 9


@pytest.mark.parametrize(
    ("labels", "text"),
    [({b"labels": [1, 2, 3, 4]}, "b'fine_labels'"), ({b"fine_labels": [0, 1, 2, 100]}, "0 to 99")],
)
def test_other_labels_than_the_hundred_fine_ones_are_refused(
    tmp_path: Path, labels: dict[bytes, Any], text: str
):
    with pytest.raises(DataError, match=rf"{text}.*Get CIFAR-100 anew"):
        read_batch(write(tmp_path / "train", {b"data": PIXELS, **labels}), CIFAR100)


def test_without_network_cifar100_says_what_to_do(bare_machine: Path, lines: list[str]):
    with pytest.raises(DataError, match=r"unpack .*cifar-100-python"):
        load_cifar100(None, lines.append, sources=[])


def jpeg(colour: tuple[int, int, int], size: tuple[int, int] = (32, 32)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, "JPEG", quality=75)
    return out.getvalue()


def write_jpegs(path: Path, files: list[bytes], labels: list[int]) -> Path:
    offsets = np.cumsum([0, *map(len, files)])
    blob = np.frombuffer(b"".join(files), np.uint8)
    np.savez_compressed(path, blob=blob, offsets=offsets, labels=np.array(labels, np.int16))
    return path


@pytest.fixture
def jpeg_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "jpegs"
    folder.mkdir()
    for name in NAMES.values():
        write_jpegs(folder / name, [jpeg((255, 0, 0)), jpeg((0, 0, 255))], [4, 2])
    return folder


def test_jpegs_are_decoded_channels_first(jpeg_folder: Path):
    images = decode_jpegs(jpeg_folder / NAMES["train"])["images"]
    assert images.shape == (2, 3, 32, 32)
    assert images[0, :, 9, 9] == pytest.approx([254, 0, 0], abs=3)
    assert images[1, :, 9, 9] == pytest.approx([0, 0, 254], abs=3)


def test_jpegs_are_decoded_once(jpeg_folder: Path, bare_machine: Path, lines: list[str]):
    first = load_images("cifar10-jpeg75", jpeg_folder, lines.append)
    assert len(lines) == 2
    again = load_images("cifar10-jpeg75", jpeg_folder, lines.append)
    assert len(lines) == 2
    assert (first.train.images == again.train.images).all()
    assert again.train.labels.tolist() == [4, 2]
    assert [p.suffix for p in (bare_machine / "decoded").iterdir()] == [".npz", ".npz"]


def test_a_file_that_changed_is_decoded_anew(jpeg_folder: Path, bare_machine: Path):
    load_images("cifar10-jpeg75", jpeg_folder)
    write_jpegs(jpeg_folder / NAMES["train"], [jpeg((0, 255, 0))], [7])
    assert load_images("cifar10-jpeg75", jpeg_folder).train.labels.tolist() == [7]


def test_the_folder_can_be_named_by_the_environment(
    jpeg_folder: Path, bare_machine: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SWARMSGD_DATA", str(jpeg_folder))
    assert load_images("cifar10-jpeg75").test.labels.tolist() == [4, 2]


@pytest.mark.usefixtures("bare_machine")
def test_missing_jpeg_files_are_named():
    with pytest.raises(DataError, match=r"cifar10_jpeg75_train\.npz.*SWARMSGD_DATA"):
        load_images("cifar10-jpeg75")


@pytest.mark.usefixtures("bare_machine")
def test_one_missing_jpeg_file_is_named(jpeg_folder: Path):
    (jpeg_folder / NAMES["test"]).unlink()
    with pytest.raises(DataError, match=r"test\.npz cannot be read"):
        load_images("cifar10-jpeg75", jpeg_folder)


def test_a_truncated_npz_is_named_with_its_size(jpeg_folder: Path):
    path = jpeg_folder / NAMES["train"]
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match=r"train\.npz \(500 bytes\) cannot be used"):
        decode_jpegs(path)


def test_a_broken_jpeg_is_told_by_its_number(tmp_path: Path):
    path = write_jpegs(tmp_path / "x.npz", [jpeg((1, 2, 3)), b"no image"], [0, 1])
    with pytest.raises(DataError, match="image 1 is not a JPEG"):
        decode_jpegs(path)


def test_a_jpeg_of_another_size_is_told(tmp_path: Path):
    path = write_jpegs(tmp_path / "x.npz", [jpeg((1, 2, 3), (1, 1))], [0])
    with pytest.raises(DataError, match=r"image 0 is \(1, 1, 3\), wanted 32x32"):
        decode_jpegs(path)


def test_offsets_that_do_not_fit_are_told(tmp_path: Path):
    path = write_jpegs(tmp_path / "x.npz", [jpeg((1, 2, 3))], [0, 1])
    with pytest.raises(DataError, match="2 labels, 2 offsets"):
        decode_jpegs(path)
