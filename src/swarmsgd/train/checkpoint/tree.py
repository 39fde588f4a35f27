"""A state dict as JSON and named tensors. Nothing is pickled; all else is refused by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from swarmsgd.errors import ConfigError

Tensors = dict[str, torch.Tensor]

# In JSON an object always has one key, which says what it stands for.
_TENSOR, _ARRAY, _TUPLE, _MAP, _PAIRS, _COUNTER = (
    "tensor", "array", "tuple", "map", "pairs", "counter",
)  # fmt: skip


def pack(value: Any, name: str, tensors: Tensors) -> Any:
    """`value` for `json.dumps`; its tensors and arrays go to `tensors`, each under a name that
    begins with `name`.

    Raises ConfigError for a part that is neither a tensor or array, nor what JSON has, nor a
    tuple, dict or Counter of these.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.Tensor):
        return {_TENSOR: _named(value, name, tensors)}
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        return {_ARRAY: _named(torch.from_numpy(np.ascontiguousarray(value)), name, tensors)}
    if isinstance(value, list | tuple):
        items = [pack(item, f"{name}/{at}", tensors) for at, item in enumerate(value)]
        return items if isinstance(value, list) else {_TUPLE: items}
    if isinstance(value, dict):
        return _pack_dict(value, name, tensors)
    raise ConfigError(
        f"{name} is {_shortened(value)} ({type(value).__name__}), which a checkpoint cannot hold: "
        "wanted tensors, arrays, numbers, texts, and lists, tuples or dicts of them. Leave it out "
        "of that state_dict(). Nothing was written"
    )


def unpack(tree: Any, tensor: Callable[[str], torch.Tensor]) -> Any:
    """What `pack` was given; `tensor` finds one by its name."""
    if isinstance(tree, list):
        return [unpack(item, tensor) for item in tree]
    if not isinstance(tree, dict):
        return tree
    ((kind, inside),) = tree.items()
    if kind == _TENSOR:
        return tensor(inside)
    if kind == _ARRAY:
        return tensor(inside).numpy()
    if kind == _MAP:
        return {key: unpack(item, tensor) for key, item in inside.items()}
    items = [unpack(item, tensor) for item in inside]
    if kind == _TUPLE:
        return tuple(items)
    return Counter(dict(items)) if kind == _COUNTER else dict(items)


def _pack_dict(value: Mapping[Any, Any], name: str, tensors: Tensors) -> Any:
    if not isinstance(value, Counter) and all(type(key) is str for key in value):
        return {_MAP: {key: pack(item, f"{name}/{key}", tensors) for key, item in value.items()}}
    pairs = [
        [pack(key, f"a key of {name}", tensors), pack(item, f"{name}/{key}", tensors)]
        for key, item in value.items()
    ]
    return {_COUNTER if isinstance(value, Counter) else _PAIRS: pairs}


def _named(tensor: torch.Tensor, name: str, tensors: Tensors) -> str:
    if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
        raise ConfigError(
            f"{name} is a tensor of layout {tensor.layout} on {tensor.device}, which a checkpoint "
            "cannot hold: wanted a dense one. Nothing was written"
        )
    while name in tensors:  # as of {"a/b": ...} beside {"a": {"b": ...}}
        name += "+"
    tensors[name] = tensor.detach()
    return name


def _shortened(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:57] + "..."
