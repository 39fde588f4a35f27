"""Where a node runs, for whoever reads its records later."""

from __future__ import annotations

import os
import platform
import socket
from typing import Any


def environment() -> dict[str, Any]:
    """The fields of a "start" line that say so."""
    import torch

    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "threads": torch.get_num_threads(),
        "software": software(),
    }


def software() -> str:
    """Versions of this package, torch, Python, and the system; cores."""
    import torch

    import swarmsgd

    python = platform.python_version()
    return (
        f"swarmsgd {swarmsgd.__version__}, torch {torch.__version__}, Python {python}, "
        f"{platform.platform()}, {os.cpu_count()} cores"
    )
