"""One link over a scripted channel: what it makes of frames that no link would send."""

import queue
import threading

import numpy as np
import pytest

from swarmsgd.errors import LinkClosed
from swarmsgd.transport.base import Buffer, LinkBackedUp
from swarmsgd.transport.link import LINK_VERSION, ChannelBroken, Limits, Link
from swarmsgd.transport.pool import BufferPool


class Script:
    """A channel whose other end says what the test wants."""

    def __init__(self, *said: bytes) -> None:
        self.said: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        for part in said:
            self.said.put(part)
        self.sent: list[bytes] = []
        self.acknowledged = 0
        self.broken = threading.Event()
        self.released = threading.Event()
        self.can_send = threading.Event()
        self.can_send.set()

    def send(self, frame: Buffer, body: Buffer) -> None:
        while not self.can_send.wait(0.001):
            if self.broken.is_set():
                raise ChannelBroken("broken off")
        self.sent.append(frame.tobytes() + body.tobytes())

    def receive_frame(self, frame: Buffer) -> None:
        part = self.said.get()
        if part is None:
            raise ChannelBroken("broken off")
        frame[:] = np.frombuffer(part, np.uint8)

    def receive_body(self, body: Buffer) -> None:
        self.receive_frame(body)

    def acknowledge(self) -> None:
        self.acknowledged += 1

    def break_off(self) -> None:
        self.broken.set()
        self.said.put(None)

    def release(self) -> None:
        self.released.set()


def frame(length: int, *, magic: bytes = b"SWRM", version: int = LINK_VERSION, kind: int = 0):
    return magic + version.to_bytes(2, "little") + bytes([kind, 0]) + length.to_bytes(8, "little")


def run(script: Script, limits: Limits | None = None) -> tuple[list[bytes], list[str]]:
    """Start a link on the script and wait until it is lost."""
    got: list[bytes] = []
    lost: list[str] = []
    link = Link(7, script, BufferPool(), limits or Limits())
    link.start(lambda _, message: got.append(message.tobytes()), lambda _, why: lost.append(why))
    assert link.join(10)
    assert script.broken.is_set() and script.released.is_set()
    with pytest.raises(LinkClosed, match="node 7 is closed"):
        link.send(np.zeros(1, np.uint8))
    return got, lost


def test_messages_are_delivered_until_a_goodbye():
    script = Script(frame(2), b"ab", frame(0), frame(1), b"c", frame(0, kind=1))
    assert run(script) == ([b"ab", b"", b"c"], ["closed by the peer"])
    assert script.acknowledged == 4


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (frame(2, magic=b"HTTP"), "sent 48545450"),
        (frame(2, version=9), "another program, or corruption"),
        (frame(2, kind=2), "wanted the frame of a message"),
        (frame(101), "announced a message of 101 bytes, the limit is 100"),
        (frame(2**64 - 1), "announced a message of 18446744073709551615 bytes"),
    ],
)
def test_a_wrong_frame_costs_the_link(wrong, why):
    script = Script(frame(2), b"ab", wrong)
    got, lost = run(script, Limits(message_bytes=100))
    assert got == [b"ab"] and len(lost) == 1 and why in lost[0]
    assert script.acknowledged == 1


def test_what_waits_is_bounded_in_number_and_bytes_but_one_may_always_wait():
    for limits, sizes in (
        (Limits(queued_messages=3), [1] * 4),
        (Limits(queued_bytes=9999), [20_000, 5000]),
    ):
        script = Script()
        script.can_send.clear()
        link = Link(7, script, BufferPool(), limits)
        *accepted, refused = sizes
        for size in accepted:
            link.send(np.zeros(size, np.uint8))
        with pytest.raises(LinkBackedUp, match=r"node 7 takes nothing in: \d messages of"):
            link.send(np.zeros(refused, np.uint8))
        assert link.is_open
        link.close()
        assert script.released.is_set()


def test_short_messages_wait_behind_however_many_bytes():
    script = Script()
    script.can_send.clear()
    link = Link(7, script, BufferPool(), Limits(queued_bytes=9999, queued_messages=4))
    for size in 20_000, 64, 4096, 1:
        link.send(np.zeros(size, np.uint8))
    with pytest.raises(LinkBackedUp, match="4 messages of"):
        link.send(np.zeros(1, np.uint8))
    link.close()


def test_a_drain_that_takes_too_long_can_be_cut_short():
    script = Script()
    script.can_send.clear()
    link = Link(7, script, BufferPool(), Limits())
    lost: list[str] = []
    link.start(lambda _, message: None, lambda _, why: lost.append(why))
    link.send(np.zeros(5, np.uint8))
    link.finish()
    assert not link.is_open
    link.wait_closed(0.01)
    link.close()
    assert link.join(10) and not lost and not script.sent


def test_sent_buffers_go_back_to_the_pool():
    script, pool = Script(), BufferPool()
    link = Link(7, script, pool, Limits())
    link.start(lambda _, message: None, lambda _, why: None)
    for _ in range(3):
        link.send(pool.take(5000))
    link.finish()
    while not script.sent or script.sent[-1] != frame(0, kind=1):
        pass
    assert script.sent[0] == frame(5000) + script.sent[0][16:]
    assert pool.free_bytes in (8192, 16384, 24576)
    link.close()
    assert link.join(10)
