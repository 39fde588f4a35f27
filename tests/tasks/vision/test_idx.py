"""Reading idx files: a whole one, and every way in which one can be broken."""

from __future__ import annotations

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from swarmsgd.errors import DataError
from swarmsgd.tasks.vision.idx import IdxFile, read_idx

PIXELS = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
RAW = struct.pack(">HBB3I", 0, 8, 3, 3, 4, 5) + PIXELS.tobytes()
FILE = IdxFile("tiny-idx3-ubyte.gz", (3, 4, 5), hashlib.sha256(RAW).hexdigest())


def write(folder: Path, packed: bytes) -> Path:
    (folder / FILE.name).write_bytes(packed)
    return folder


def test_a_whole_file_is_read(tmp_path: Path):
    assert (read_idx(write(tmp_path, gzip.compress(RAW)), FILE) == PIXELS).all()


def test_how_it_was_packed_does_not_matter(tmp_path: Path):
    for level in (0, 1, 9):
        read_idx(write(tmp_path, gzip.compress(RAW, level, mtime=level)), FILE)


def test_the_array_can_be_shared_with_torch(tmp_path: Path):
    """torch warns of arrays that cannot be written, and a warning fails this test."""
    torch.from_numpy(read_idx(write(tmp_path, gzip.compress(RAW)), FILE))


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.95])
def test_a_truncated_file_is_named(tmp_path: Path, keep: float):
    packed = gzip.compress(RAW)
    with pytest.raises(DataError, match=r"tiny-idx3-ubyte\.gz cannot be used: .*ended.*Delete it"):
        read_idx(write(tmp_path, packed[: int(keep * len(packed))]), FILE)


@pytest.mark.parametrize(
    "other",
    [b"\0\0\x0d" + RAW[3:], RAW[:4] + RAW[8:12] * 3 + RAW[16:], RAW[:-1]],
    ids=["type", "shape", "size"],
)
def test_another_type_shape_or_size_is_refused(tmp_path: Path, other: bytes):
    with pytest.raises(DataError, match=rf"unpacks to {len(other)} bytes .*wanted 76 with"):
        read_idx(write(tmp_path, gzip.compress(other)), FILE)


def test_a_changed_pixel_is_told_by_its_sha256(tmp_path: Path):
    changed = RAW[:-1] + b"!"
    with pytest.raises(DataError) as caught:
        read_idx(write(tmp_path, gzip.compress(changed)), FILE)
    assert hashlib.sha256(changed).hexdigest() in str(caught.value)
    assert FILE.sha256 in str(caught.value)


def test_damaged_compression_is_told(tmp_path: Path):
    packed = bytearray(gzip.compress(RAW))
    packed[12] ^= 0xFF
    with pytest.raises(DataError, match=r"tiny-idx3-ubyte\.gz cannot be used"):
        read_idx(write(tmp_path, bytes(packed)), FILE)


def test_a_file_that_is_no_gzip_is_told(tmp_path: Path):
    with pytest.raises(DataError, match=r"cannot be unpacked .Not a gzipped file"):
        read_idx(write(tmp_path, b"<html>not found</html>"), FILE)


def test_a_file_that_unpacks_without_end_is_given_up_early(tmp_path: Path):
    bomb = gzip.compress(RAW + bytes(50_000_000))
    with pytest.raises(DataError, match=r"unpacks to at least 77 bytes with sha256 .*, wanted 76"):
        read_idx(write(tmp_path, bomb), FILE)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"tiny-idx3-ubyte\.gz cannot be used: .*No such file"):
        read_idx(tmp_path, FILE)
