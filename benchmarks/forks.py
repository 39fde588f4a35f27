"""Node processes forked from a benchmark's own, which has everything loaded: milliseconds each."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import traceback
from collections.abc import Callable, Sequence
from typing import Any, TextIO

import torch
from bench import free_port


def load() -> None:
    """All that a node needs; to be called once, before the first fork."""
    import swarmsgd.train.node.join  # noqa: F401
    from swarmsgd.codec import kernels

    kernels.prepare()
    model = torch.nn.Linear(1, 1)
    torch.optim.SGD(model.parameters())  # the first optimizer of a process imports a lot
    gc.collect()
    gc.freeze()  # or the first collection in each child copies all pages


class Child:
    """A forked process that runs `body(out, go)`: it says one JSON object a line in `out`, and
    reads a byte from the descriptor `go` when the parent tells it something.
    """

    def __init__(self, body: Callable[[TextIO, int], None], within: Sequence[int] = ()) -> None:
        out, theirs = os.pipe()
        their_go, go = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                for fd in (out, go, *within):
                    os.close(fd)
                torch.set_num_threads(1)
                body(os.fdopen(theirs, "w", buffering=1), their_go)
                code = 0
            except BaseException:
                traceback.print_exc()
            os._exit(code)
        os.close(theirs)
        os.close(their_go)
        self._out = os.fdopen(out)
        self.go = go

    @property
    def fds(self) -> tuple[int, int]:
        """What a sibling forked later must not hold."""
        return self._out.fileno(), self.go

    def hear(self) -> dict[str, Any]:
        """The next thing said. Raises SystemExit if it ends instead."""
        line = self._out.readline()
        if not line:
            raise SystemExit(f"node process {self.pid} ended: {self.end()}")
        return json.loads(line)

    def tell(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(self.go, b"x")

    def end(self) -> int:
        """Wait for its end; the exit code."""
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self._out.close()
        os.close(self.go)
        return code


def start(nodes: int, body: Callable[[int, int, TextIO, int], None], port: int = 0) -> list[Child]:
    """`body(rank, port, out, go)` in so many processes that meet at one port (0: a free one)."""
    port, children = port or free_port(), list[Child]()
    for rank in range(nodes):

        def run(out: TextIO, go: int, rank: int = rank) -> None:
            body(rank, port, out, go)

        children.append(Child(run, [fd for child in children for fd in child.fds]))
    return children


def said(out: TextIO, **fields: Any) -> None:
    print(json.dumps(fields), file=out, flush=True)
