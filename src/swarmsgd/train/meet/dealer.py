"""The socket of a node's line to the meeting place."""

from __future__ import annotations

import zmq

from swarmsgd.train.meet.tracker import MESSAGE_BYTES
from swarmsgd.transport.addresses import is_ipv4
from swarmsgd.transport.keys import SwarmKey
from swarmsgd.transport.port import ENCRYPTING_BYTES, HANDSHAKE_S, KEEP_ALIVE, speaks_ipv6

_AGAIN_MS = 100, 1000
"""Pauses between two tries to connect, from and to."""
WATCHED = (
    zmq.EVENT_CONNECTED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
"""Events that say whether there is a connection, and why not."""


def endpoint_of(address: str, port: int) -> str:
    """As ZeroMQ wants it."""
    return f"tcp://{f'[{address}]' if ':' in address else address}:{port}"


def dealer(
    context: zmq.Context[zmq.Socket[bytes]], address: str, port: int, key: SwarmKey | None
) -> zmq.Socket[bytes]:
    """A socket that dials again for ever, and sends only while there is a connection."""
    made = context.socket(zmq.DEALER)
    for option, value in {
        zmq.LINGER: 0,
        zmq.IMMEDIATE: 1,
        zmq.IPV6: int(not is_ipv4(address) and speaks_ipv6()),
        zmq.MAXMSGSIZE: MESSAGE_BYTES + ENCRYPTING_BYTES,
        zmq.RECONNECT_IVL: _AGAIN_MS[0],
        zmq.RECONNECT_IVL_MAX: _AGAIN_MS[1],
        zmq.HANDSHAKE_IVL: 1000 * HANDSHAKE_S,
        **KEEP_ALIVE,
    }.items():
        made.setsockopt(option, value)
    if key is not None:
        made.setsockopt(zmq.CURVE_PUBLICKEY, key.public)
        made.setsockopt(zmq.CURVE_SECRETKEY, key.secret)
        made.setsockopt(zmq.CURVE_SERVERKEY, key.public)
    return made
