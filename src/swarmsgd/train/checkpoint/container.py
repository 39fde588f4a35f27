"""One checkpoint as one file: the safetensors format, with JSON in its header.

The file is written as a stream, so that no second copy of the model is made in memory. Every tensor
has a CRC-32 in the JSON, for damage that leaves the file's length as it was.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open

from swarmsgd.errors import ConfigError, DataError

FORMAT_VERSION = 1
"""Of what is in the JSON. A reader refuses any other."""

_KEY = "swarmsgd"
_DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint64: "U64", torch.uint32: "U32", torch.uint16: "U16", torch.uint8: "U8",
    torch.bool: "BOOL", torch.complex64: "C64",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
}  # fmt: skip
"""Names of the format."""


class Parcel:
    """What is to be written: `about`, and tensors by name. All of it is looked at here: raises
    ConfigError for a tensor that the format has no name for, before anything is written.
    """

    def __init__(self, about: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
        for name, tensor in tensors.items():
            if tensor.dtype not in _DTYPES:
                raise ConfigError(
                    f"{name} is {tensor.dtype}, for which safetensors has no name: "
                    "keep it in another dtype. Nothing was written"
                )
        # The widest first, so that each begins at a multiple of its own width.
        order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
        self._bytes = [_bytes(tensors[name]) for name in order]
        checks = {n: zlib.crc32(b) for n, b in zip(order, self._bytes, strict=True)}
        text = json.dumps({"version": FORMAT_VERSION, "crc32": checks, **about})
        header: dict[str, Any] = {"__metadata__": {"format": "pt", _KEY: text}}
        end = 0
        for name, part in zip(order, self._bytes, strict=True):
            begin, end = end, end + len(part)
            header[name] = {
                "dtype": _DTYPES[tensors[name].dtype],
                "shape": list(tensors[name].shape),
                "data_offsets": [begin, end],
            }
        head = json.dumps(header).encode()
        self._head = head + b" " * (-len(head) % 8)

    def write(self, file: BinaryIO) -> None:
        """All of it, in order. Raises what the file raises."""
        file.write(len(self._head).to_bytes(8, "little"))
        file.write(self._head)
        for part in self._bytes:
            file.write(part)


class Checkpoint:
    """A checkpoint that is there; `where` names it in errors.

    Raises DataError for a file that is torn, is no checkpoint, or is one of another version.
    """

    def __init__(self, path: Path, where: str) -> None:
        self.where = where
        try:
            self._file = safe_open(path, framework="pt")
            text = (self._file.metadata() or {}).get(_KEY)
            self._names = set(self._file.keys())
        except (SafetensorError, OSError) as error:
            raise self._unusable(f"cannot be read ({error})") from None
        if text is None:
            raise self._unusable("was not written by swarm.save()")
        try:
            self.about: dict[str, Any] = json.loads(text)
            version = self.about["version"]
            self._checks: dict[str, int] = self.about["crc32"]
        except (ValueError, KeyError, TypeError):
            raise self._unusable("has a description that cannot be read") from None
        if version != FORMAT_VERSION:
            raise DataError(
                f"{where} is a checkpoint of version {version}, this swarmsgd reads version "
                f"{FORMAT_VERSION}: load it with the swarmsgd that wrote it"
            )

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def tensor(self, name: str) -> torch.Tensor:
        """One tensor, on the CPU. Raises DataError if it is damaged or missing."""
        if name not in self._names:
            raise self._unusable(f"lacks {name}")
        found = self._file.get_tensor(name)
        if zlib.crc32(_bytes(found)) != self._checks.get(name):
            raise self._unusable(f"is damaged in {name}: its checksum does not fit")
        return found

    def _unusable(self, what: str) -> DataError:
        return DataError(
            f"{self.where} {what}; wanted a whole checkpoint of swarm.save(). Move it away to go "
            "on from the one before it, or, without one, as a node that has none"
        )


def _bytes(tensor: torch.Tensor) -> memoryview:
    flat = tensor.detach().to("cpu").contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy().data)
