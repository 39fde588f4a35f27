"""Gloo groups: one for a collective, or the two ends of a link, on a device that can be deaf."""

from __future__ import annotations

import ctypes
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from torch.distributed import (
    PrefixStore,  # pyright: ignore[reportPrivateImportUsage]
    ProcessGroupGloo,
    Store,  # pyright: ignore[reportPrivateImportUsage]
)

from swarmsgd.errors import ConfigError
from swarmsgd.transport.base import Buffer
from swarmsgd.transport.link import ChannelBroken
from swarmsgd.transport.sockets import hang_up, set_deaf, watch_listener

_FOREVER = timedelta(days=3650)
_AT_ONCE = timedelta(milliseconds=1)
_SWEEP_S = 0.05
_FRAME, _FRAME_END, _BODY, _BODY_END, _ACKNOWLEDGED, _NEVER_SENT = range(6)
"""Tags."""
_NOTHING = np.empty(0, np.uint8)


def open_group(
    name: str,
    store: Store,
    rank: int,
    size: int,
    *,
    address: str,
    timeout: timedelta,
    threads: int = 1,
) -> ProcessGroupGloo:
    """A Gloo group of its own, on its own device at `address`; blocks until all have come.

    `threads` run its collectives. Raises RuntimeError, as torch does.
    """
    port = Port(address)
    with port.listening():
        return make_group(name, store, rank, size, port.device, timeout, threads)


def _device(address: str) -> Any:
    make = ProcessGroupGloo.create_device
    try:
        try:
            return make(hostname=address, lazy_init=False)  # lazy groups would end their device
        except TypeError:  # torch 2.6
            return make(hostname=address)
    except RuntimeError as error:
        raise ConfigError(
            f"cannot listen on {address}: {torch_said(error)}. Pass an address of this machine "
            "that the other nodes reach"
        ) from None


def make_group(
    name: str, store: Store, rank: int, size: int, device: Any, timeout: timedelta, threads: int
) -> ProcessGroupGloo:
    options = ProcessGroupGloo._Options()  # pyright: ignore[reportAttributeAccessIssue]
    options._devices = [device]
    options._timeout = timeout
    options._threads = threads
    return ProcessGroupGloo(PrefixStore(name, store), rank, size, options)


def torch_said(error: RuntimeError) -> str:
    """What torch says, without where in its source and without advice."""
    text = re.sub(r"\[[^\]]*\.(cc|h|cpp):\d+\]\s*", "", str(error).split("\n")[0])
    return text.split(". This is typically", 1)[0]


class GlooChannel:
    """The two-rank group of one edge.

    When a connection breaks, Gloo wakes who waits for a receive that has not begun, but neither a
    send nor a receive that is half done: those wait for ever. So here every wait is for a message
    of no bytes, which cannot be half done. One follows each frame and each body, and by the order
    of the stream says that it is complete; one goes back, and says that the sends are.
    """

    def __init__(self, group: ProcessGroupGloo, other: int) -> None:
        self._group: Any = group  # torch declares neither send nor recv
        self._other = other
        self._acknowledgement: Any = None

    def send(self, frame: Buffer, body: Buffer) -> None:
        posted = [self._post_send(frame, _FRAME), self._post_send(_NOTHING, _FRAME_END)]
        if len(body):
            if not body.flags.writeable:
                body = body.copy()  # torch cannot say that it only reads
            posted += [self._post_send(body, _BODY), self._post_send(_NOTHING, _BODY_END)]
        self._wait(_ACKNOWLEDGED)
        del posted  # complete, because the peer has it

    def receive_frame(self, frame: Buffer) -> None:
        self._receive(frame, _FRAME, _FRAME_END)

    def receive_body(self, body: Buffer) -> None:
        self._receive(body, _BODY, _BODY_END)

    def acknowledge(self) -> None:
        # Kept until the next one: the peer has taken it in before it sends the next frame.
        self._acknowledgement = self._post_send(_NOTHING, _ACKNOWLEDGED)

    def _receive(self, buffer: Buffer, tag: int, end: int) -> None:
        try:
            posted = self._group.recv([torch.from_numpy(buffer)], self._other, tag)
        except RuntimeError as error:
            raise ChannelBroken(torch_said(error)) from None
        self._wait(end)
        del posted  # complete, because what was sent behind it has come

    def _wait(self, tag: int) -> None:
        try:
            self._group.recv([torch.from_numpy(_NOTHING)], self._other, tag).wait(_FOREVER)
        except RuntimeError as error:
            raise ChannelBroken(torch_said(error)) from None

    def _post_send(self, buffer: Buffer, tag: int) -> Any:
        try:
            return self._group.send([torch.from_numpy(buffer)], self._other, tag)
        except RuntimeError as error:
            raise ChannelBroken(torch_said(error)) from None

    def break_off(self) -> None:
        group = self._group
        if group is not None:
            with suppress(RuntimeError):  # the timeout that is wanted, or it was broken before
                group.recv([torch.from_numpy(_NOTHING)], self._other, _NEVER_SENT).wait(_AT_ONCE)

    def release(self) -> None:
        self._group = self._acknowledgement = None

    def leak(self) -> None:
        """In a forked child: make sure that no destructor waits for threads that are not there."""
        for native in (self._group, self._acknowledgement):
            _leak(native)
        self.release()


class Port:
    """The one Gloo device of a transport, and the socket it listens on. Deaf unless `listening`."""

    _making = threading.Lock()

    def __init__(self, address: str) -> None:
        with self._making:
            self.device, self._fd, self.endpoint = watch_listener(lambda: _device(address))
        self._set_deaf(True)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Accept connections meanwhile."""
        self._set_deaf(False)
        try:
            yield
        finally:
            self._set_deaf(True)

    def _set_deaf(self, deaf: bool) -> None:
        if self._fd is not None:
            set_deaf(self._fd, deaf)

    def sweep(self) -> None:
        """Hang up on strangers, when no link is open any more and before the device goes.

        In torch 2.6 one that has said nothing yet keeps the loop of a device alive that is gone,
        and the process aborts when the stranger hangs up.
        """
        give_up = time.monotonic() + _SWEEP_S
        while hang_up(self.endpoint) and time.monotonic() < give_up:
            time.sleep(0.01)

    def leak(self) -> None:
        """As of a channel."""
        _leak(self.device)


def _leak(thing: object) -> None:
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
