"""Which address a node is reached at."""

import socket

import pytest

from swarmsgd.errors import ConfigError
from swarmsgd.transport import addresses
from swarmsgd.transport.addresses import route_address


@pytest.mark.parametrize(
    ("host", "address"),
    [("127.0.0.1", "127.0.0.1"), ("localhost", "127.0.0.1"), ("0.0.0.0", "127.0.0.1")],
)
def test_a_store_on_this_machine_alone_gives_loopback(host, address):
    assert route_address(host, 29500) == address


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
def test_an_ipv6_store_gives_an_ipv6_address():
    assert route_address("::1", 29500) == "::1"


def test_the_address_of_the_interface_that_routes_there_is_taken():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.51.100.7", 9))
        except OSError:
            pytest.skip("no route off this machine")
        assert route_address("198.51.100.7", 29500) == probe.getsockname()[0]


def test_a_name_that_only_this_machine_takes_for_loopback_gives_an_address_others_can_use(
    monkeypatch,
):
    found = [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("127.0.1.1", 29500))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: found)
    routes = {"127.0.1.1": "127.0.1.1", addresses._OFF_THIS_MACHINE: "10.0.0.5"}
    monkeypatch.setattr(addresses, "_source", lambda _family, remote: routes.get(remote[0]))
    assert route_address("node-0", 29500) == "10.0.0.5"
    assert route_address("localhost", 29500) == "127.0.1.1"
    del routes[addresses._OFF_THIS_MACHINE]
    assert route_address("node-0", 29500) == "127.0.1.1"  # a machine without a network
    monkeypatch.setattr(addresses, "_source", lambda *_: None)
    with pytest.raises(ConfigError, match="no interface of this machine routes to node-0:29500"):
        route_address("node-0", 29500)


def test_a_name_that_does_not_resolve_is_the_users_fault():
    with pytest.raises(ConfigError, match=r"cannot resolve 'no-such-host\.invalid'"):
        route_address("no-such-host.invalid", 29500)
