"""Fashion-MNIST: Xiao, Rasul and Vollgraf 2017 (arXiv 1708.07747), MIT licence.

60,000 training and 10,000 test images of clothes, 28x28 grey, 10 classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from swarmsgd.tasks.apt import unpack_package
from swarmsgd.tasks.base import Notify
from swarmsgd.tasks.http import download
from swarmsgd.tasks.lookup import (
    DATA_VARIABLE,
    Arrays,
    Source,
    cache_folder,
    fetch_into,
    first_with,
    given_folder,
)
from swarmsgd.tasks.vision.idx import IdxFile, read_idx

PACKAGE = "dataset-fashion-mnist"
SYSTEM_FOLDER = Path("/usr/share/datasets/fashion-mnist")
AUTHORS = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"

# Taken from the unpacked files of Debian's dataset-fashion-mnist 0.0~git20200523.55506a9-1. Its
# .gz files are the authors' without name and time in the gzip header: putting these back gives
# the four md5 sums in the authors' readme.
FILES = {
    "train_images": IdxFile(
        "train-images-idx3-ubyte.gz",
        (60_000, 28, 28),
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ),
    "train_labels": IdxFile(
        "train-labels-idx1-ubyte.gz",
        (60_000,),
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    ),
    "test_images": IdxFile(
        "t10k-images-idx3-ubyte.gz",
        (10_000, 28, 28),
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ),
    "test_labels": IdxFile(
        "t10k-labels-idx1-ubyte.gz",
        (10_000,),
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
}
_NAMES = [file.name for file in FILES.values()]


def load_fashion_mnist(
    data: Path | None, notify: Notify, sources: Sequence[Source] | None = None
) -> Arrays:
    """The four arrays by their names in FILES, fetched if need be (see `lookup`)."""
    cached = cache_folder() / "fashion-mnist"
    moves = [
        f"on Debian or Ubuntu: apt install {PACKAGE}",
        f"put its four .gz files (from {AUTHORS}) into {cached}",
        f"name the folder they are in by --data or {DATA_VARIABLE}",
        "use the data set 'digits', which needs no download",
    ]
    folder = find_fashion_mnist(data) or fetch_into(
        cached, _SOURCES if sources is None else sources, _read, notify,
        what="Fashion-MNIST", moves=moves,
    )  # fmt: skip
    return _read(folder)


def find_fashion_mnist(data: Path | None) -> Path | None:
    """Where Fashion-MNIST lies on this machine, or None; fetches nothing."""
    given = given_folder(data)
    below = ("", "fashion-mnist", "FashionMNIST/raw")  # the last is torchvision's
    places = [] if given is None else [given / name for name in below]
    return first_with(_NAMES, [*places, SYSTEM_FOLDER, cache_folder() / "fashion-mnist"])


def _read(folder: Path) -> Arrays:
    return {key: read_idx(folder, file) for key, file in FILES.items()}


def _from_apt(folder: Path, notify: Notify, *, own_lists: bool) -> None:
    work = folder.with_name("apt")
    work.mkdir()
    root = unpack_package(PACKAGE, work, own_lists=own_lists, notify=notify)
    (root / SYSTEM_FOLDER.relative_to("/")).rename(folder)


def _from_authors(folder: Path, notify: Notify) -> None:
    folder.mkdir()
    for name in sorted(_NAMES, reverse=True):  # begins and ends with a small one
        download(AUTHORS + name, folder / name, notify)


_SOURCES = [
    Source("apt with the system's lists", partial(_from_apt, own_lists=False)),
    Source("its authors", _from_authors),
    Source("apt with lists of our own", partial(_from_apt, own_lists=True)),
]
"""In the order in which they are tried: the cheapest to ask first."""
