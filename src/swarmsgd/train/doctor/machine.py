"""What the doctor looks at on one machine: versions, cores, memory, limits, disks, kernels."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from swarmsgd import limits
from swarmsgd.codec.kernels import compiled
from swarmsgd.core import messages
from swarmsgd.cores import usable_cores
from swarmsgd.observe.console import bytes_text
from swarmsgd.train.doctor.finding import Finding
from swarmsgd.transport.port import SPARE, SPARE_THREADS

PACKAGES = ("torch", "numpy", "numba", "pyzmq")
SWARM_BYTES = 3 * 4
"""Bytes a parameter of the three vectors that a swarm adds."""
TRAINING_BYTES = 4 * 4
"""Bytes a parameter of model, gradient and AdamW's two states."""
SHM = Path("/dev/shm")
SMALL_SHM = 256 << 20
ROOM = 1 << 30


def versions() -> Finding:
    """Of what all nodes should have alike."""
    found = [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES]
    return Finding("versions", f"{own_version()}, {', '.join(found)}")


def own_version() -> str:
    """Of Python and of this package, which two hosts must have alike."""
    try:
        package = importlib.metadata.version("swarmsgd")
    except importlib.metadata.PackageNotFoundError:  # a source tree that was not installed
        package = "from source"
    return f"swarmsgd {package} (messages {messages.VERSION}), Python {platform.python_version()}"


def cores(nodes: int) -> Finding:
    """How many there are for `nodes` nodes."""
    usable, there = usable_cores(), os.cpu_count() or 1
    found = f"{usable} usable" + (
        f" of {there}: a quota, or the process is bound to some" if usable < there else ""
    )
    if torch.cuda.is_available():
        found += f"; {torch.cuda.device_count()} GPUs"
    threads = os.environ.get("OMP_NUM_THREADS")
    if threads:
        found += f"; OMP_NUM_THREADS={threads} is set, for every node"
    moves = []
    if nodes > usable:
        moves.append(f"{nodes} nodes share them: expect slower steps, or --nodes less")
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if busy > there / 2:
        found += f"; {busy:.1f} of {there} were busy in the last minute"
        moves.append("something else runs here: see what (top); nodes get what it leaves")
    return Finding("cores", found, "; ".join(moves))


def memory(parameters: int, nodes: int) -> Finding:
    """Whether the vectors of `nodes` nodes have room."""
    free = _free_memory()
    a_node = (SWARM_BYTES + TRAINING_BYTES) * parameters
    swarm = bytes_text(SWARM_BYTES * parameters)
    found = (
        f"a model of {parameters:,} parameters (--parameters) takes {bytes_text(a_node)} a node, "
        f"{swarm} of it for the swarm; activations come on top"
    )
    if free is None:
        return Finding("memory", found)
    found = f"{bytes_text(free)} free; {found}"
    if nodes * a_node > free:
        return Finding(
            "memory",
            found,
            "no room here: fewer --nodes, or more memory",
            bad=True,
        )
    return Finding("memory", found)


def _free_memory(root: Path = Path("/")) -> int | None:
    """Bytes, as the system or the control group has them; None where that cannot be known."""
    found: list[int] = []
    try:
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found.append(1024 * int(line.split()[1]))
        for most, now in limits.group_figures("memory", root):
            found.append(max(0, most - now))
    except (OSError, ValueError, IndexError):
        pass
    return min(found, default=None)


def bounds(nodes: int) -> Iterator[Finding]:
    """Descriptors, processes and threads."""
    limits.raise_soft()
    descriptors, tasks = limits.soft_limit("RLIMIT_NOFILE"), limits.soft_limit("RLIMIT_NPROC")
    what = "a node" if nodes == 1 else f"a node of a complete graph of {nodes}"
    limits.need_descriptors(2 * SPARE + nodes, what)
    limits.need_threads(SPARE_THREADS, "a port")
    limits.need_nodes(nodes)
    found = f"{_or_any(descriptors)} descriptors a process, {_or_any(tasks)} processes and threads"
    yield Finding("limits", found)


def _or_any(count: int | None) -> str:
    return "any number of" if count is None else f"{count:,}"


def disks(folder: Path) -> Iterator[Finding]:
    """Room for records and checkpoints, and what data loaders share."""
    free = shutil.disk_usage(folder).free
    found = f"{bytes_text(free)} free in {folder}"
    if not os.access(folder, os.W_OK | os.X_OK):
        yield Finding("disk", f"{folder} cannot be written to", "run elsewhere, or give --out")
    elif free < ROOM:
        yield Finding("disk", found, "little for records and checkpoints: make room, or give --out")
    else:
        yield Finding("disk", found)
    if SHM.exists() and (size := shutil.disk_usage(SHM).total) < SMALL_SHM:
        yield Finding(
            "shared memory",
            f"{SHM} has {bytes_text(size)}",
            "data loaders with workers need more: docker run --shm-size 1g",
        )


def kernels() -> Finding:
    """Load the compiled kernels, or compile them now, so that no run has to."""
    place = compiled.cache_place()
    begin = time.perf_counter()
    compiled.prepare()
    seconds = time.perf_counter() - begin
    cached = all(kernel.was_cached for kernel in compiled.KERNELS)
    found = f"{'loaded' if cached else 'compiled'} in {seconds:.1f} s, kept in {place.folder}"
    if place.instead_of:
        found += f", since {place.instead_of}"
        return Finding(
            "kernels", found, "NUMBA_CACHE_DIR names a place that lasts, if this one does not"
        )
    return Finding("kernels", found)
