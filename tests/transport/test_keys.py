"""The key of a swarm: who has it not learns nothing and changes nothing."""

import socket
from pathlib import Path

import pytest
from test_zmq import LOOPBACK, exchange, linked, until

from swarmsgd.errors import ConfigError, PeerError
from swarmsgd.transport.keys import SwarmKey, make_key, read_key
from swarmsgd.transport.port import EVERYWHERE, SOMEBODY, Port, port_of
from swarmsgd.transport.zmq import ZmqTransport


@pytest.fixture
def key(tmp_path: Path) -> SwarmKey:
    return make_key(tmp_path / "swarm.key")


def test_a_key_comes_back_from_its_file_which_only_its_owner_can_read(tmp_path: Path):
    made = make_key(tmp_path / "one")
    assert read_key(tmp_path / "one") == made != make_key(tmp_path / "other")
    assert (tmp_path / "one").stat().st_mode & 0o777 == 0o600
    assert len(made.fingerprint) == 16 and made.fingerprint.encode() not in made.public
    assert repr(made) == f"{made}" == f"<SwarmKey {made.fingerprint}>"


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda path: path.unlink(), "cannot read the key .*keygen"),
        (lambda path: path.chmod(0o640), "can be read by others than its owner: chmod 600"),
        (lambda path: (path.write_text("x"), path.chmod(0o644)), "not the key of a swarm"),
        (
            lambda path: path.write_text(path.read_text()[:-10]),
            "not the key of a swarm, or is torn",
        ),
        (lambda path: path.write_text(""), "not the key of a swarm, or is torn"),
        (lambda path: path.write_text("public = 1\nsecret = 2"), "not the key of a swarm"),
        (lambda path: path.write_bytes(b"\xff" * 100), "not the key of a swarm"),
    ],
)
def test_a_bad_key_file_is_one_clear_error(spoil, why, tmp_path: Path):
    path = tmp_path / "swarm.key"
    make_key(path)
    spoil(path)
    with pytest.raises(ConfigError, match=why):
        read_key(path)


def test_a_key_is_never_overwritten(tmp_path: Path):
    made = make_key(tmp_path / "one")
    with pytest.raises(ConfigError, match="is there already"):
        make_key(tmp_path / "one")
    assert read_key(tmp_path / "one") == made
    with pytest.raises(ConfigError, match="cannot write the key"):
        make_key(tmp_path / "no" / "folder")


def test_links_with_a_key_carry_messages_both_ways(key: SwarmKey):
    with linked([(0, 1), (1, 2)], key=key) as nodes:
        exchange(nodes, 0, 1)
        exchange(nodes, 1, 2)


def test_who_has_no_key_or_another_one_has_no_link(key: SwarmKey, tmp_path: Path):
    other = make_key(tmp_path / "other")
    half = SwarmKey(key.public, other.secret)  # somebody who has learned the public half alone
    refused: list[tuple[str, str]] = []
    with linked([(0, 1)], key=key) as nodes:
        nodes[1].on_stranger = lambda who, why: refused.append((who, why))
        for theirs in (None, other):
            stranger = ZmqTransport(0, address=LOOPBACK, key=theirs)
            stranger.run = "run"
            stranger.dial(1, nodes[1].endpoint)
            assert not until(lambda s=stranger: s.refusal(1), stranger, nodes[1])
            assert "could not be reached" in str(stranger.refusal(1))
            assert not until(lambda: refused, stranger, nodes[1])
            ((who, why),) = set(
                refused
            )  # if it has gone before we looked, its address is not known
            assert who in (SOMEBODY, f"{SOMEBODY} at {LOOPBACK}")
            assert why == "it has no key or another one"
            refused.clear()
            nodes[0].dial(7, stranger.endpoint)  # nor do we talk to it
            assert not until(lambda: nodes[0].refusal(7), stranger, nodes[0])
            stranger.close()
        exchange(nodes, 0, 1)
    with pytest.raises(PeerError):
        ZmqTransport(0, address=LOOPBACK, key=half).open("run", {1: nodes[1].endpoint}, 1.0)


@pytest.mark.parametrize("address", [LOOPBACK, EVERYWHERE])
def test_somebody_without_a_key_is_named_by_the_address_it_came_from(address: str, key: SwarmKey):
    port = Port(address, message_bytes=100, queued_messages=10, key=key)
    greeting = b"\xff" + bytes(8) + b"\x7f\3\0" + b"NULL".ljust(20, b"\0") + bytes(32)  # of ZMTP
    try:
        with socket.create_connection((LOOPBACK, port_of(port.endpoint))) as stranger:
            while not port._accepted:
                port.wait(600.0)
                assert port.ended() == []
            stranger.sendall(greeting)
            found: set[str | None] = set()
            while not found - {None}:
                port.wait(600.0)
                found |= {ended.stranger for ended in port.ended()}
        assert found - {None} == {f"{SOMEBODY} at {LOOPBACK}"}
        assert port._accepted == {} == port._failed
    finally:
        port.close()
