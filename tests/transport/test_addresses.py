"""Which address a node is reached at."""

import socket

import pytest

from swarmsgd.errors import ConfigError
from swarmsgd.transport import addresses, interfaces
from swarmsgd.transport.addresses import reached_at, route_address


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
    outer = [("eth1", "10.0.0.6")]
    monkeypatch.setattr(addresses, "outer_addresses", lambda: outer)
    address, why = reached_at("node-0", 29500)
    assert address == "10.0.0.6"
    assert why == "eth1 leads outside: here node-0 is 127.0.1.1, which is nothing to others"
    outer.clear()
    assert route_address("node-0", 29500) == "127.0.1.1"  # a machine without a network
    monkeypatch.setattr(addresses, "_source", lambda *_: None)
    with pytest.raises(ConfigError, match="no interface of this machine routes to node-0:29500"):
        route_address("node-0", 29500)


@pytest.mark.parametrize("given", ["127.0.0.1", "localhost", "lo"])
def test_an_address_a_name_or_an_interface_that_is_given_is_taken(given, monkeypatch):
    monkeypatch.setenv("SWARMSGD_ADDRESS", given)
    assert reached_at("198.51.100.7", 29500) == ("127.0.0.1", "SWARMSGD_ADDRESS says so")


def test_an_address_of_another_machine_is_refused_and_the_own_ones_are_listed(monkeypatch):
    monkeypatch.setenv("SWARMSGD_ADDRESS", "192.0.2.7")
    with pytest.raises(ConfigError, match=r"SWARMSGD_ADDRESS is '192\.0\.2\.7'.*127\.0\.0\.1 \(lo"):
        route_address("127.0.0.1", 29500)


def test_the_loopback_of_a_machine_with_ipv6_alone_is_ipv6(monkeypatch):
    assert addresses.loopback() == "127.0.0.1"
    listening_at = addresses.listener

    def without_ipv4(address, port):
        if "." in address:
            raise OSError("no such address")
        return listening_at(address, port)

    monkeypatch.setattr(addresses, "listener", without_ipv4)
    if socket.has_ipv6:
        assert addresses.loopback() == "::1"


@pytest.mark.parametrize("reached", ["127.0.0.1", "::1"])
def test_who_listens_everywhere_is_reached_by_both_families(reached):
    if ":" in reached and not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6")
    with addresses.listener("", 0) as listening:
        socket.create_connection((reached, listening.getsockname()[1]), timeout=60).close()


def test_link_local_addresses_are_no_addresses_for_others(tmp_path):
    listing = tmp_path / "if_inet6"
    listing.write_text(
        "fe80000000000000000000000000beef 02 40 20 80     eth0\n"
        "fd770000000000000000000000000001 02 40 00 80     eth0\n"
    )
    assert interfaces._ipv6(listing) == [("eth0", "fd77::1")]


def test_a_name_that_does_not_resolve_is_the_users_fault():
    with pytest.raises(ConfigError, match=r"cannot resolve 'no-such-host\.invalid'"):
        route_address("no-such-host.invalid", 29500)
