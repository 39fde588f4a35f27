"""What stands beside the nodes of a launcher: the store for their frameworks, and a guard."""

from __future__ import annotations

import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from swarmsgd.train.launch import hosts as other_hosts

if TYPE_CHECKING:
    from torch.distributed import TCPStore

ALL_ADDRESSES = "*"
"""At all addresses of this machine."""


def start_guard() -> subprocess.Popen[bytes]:
    """The process that ends the nodes if their launcher is killed."""
    script = Path(__file__).with_name("guard.py")
    return subprocess.Popen(
        [sys.executable, "-I", "-S", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


def host_store(listener: socket.socket, master_addr: str) -> TCPStore:
    """The store at MASTER_ADDR and MASTER_PORT, which takes the listener over."""
    from torch.distributed import TCPStore

    def host(**backend: bool) -> TCPStore:
        return TCPStore(
            master_addr,
            listener.getsockname()[1],
            is_master=True,
            timeout=timedelta(seconds=other_hosts.STORE_CALL_S),
            wait_for_workers=False,
            master_listen_fd=listener.fileno(),
            **backend,
        )

    try:
        store = host()
    except NotImplementedError:  # torch 2.6: its libuv backend cannot take over a descriptor
        store = host(use_libuv=False)
    listener.detach()  # the store owns the descriptor now
    return store
