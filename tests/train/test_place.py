"""Which node a process is, by whoever started it; and a store that is not what it should be."""

from __future__ import annotations

import doctest
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator

import pytest

from swarmsgd.errors import ConfigError, PeerError
from swarmsgd.train.meet import place as places
from swarmsgd.train.meet.place import PORTS, Place, shall_listen
from swarmsgd.train.meet.rendezvous import Rendezvous

HERE = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
SLURM = {
    "SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_NTASKS": "8", "SLURM_STEP_ID": "0",
    "SLURM_JOB_ID": "4711", "SLURM_STEP_NODELIST": "gpu[07-09,12]",
}  # fmt: skip
MPI = {
    "OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
    "PMIX_NAMESPACE": "prterun-host-7@1",
}  # fmt: skip


def find(environment: dict[str, str], **given: int | str) -> Place:
    found = Place.find(environment, **given)  # pyright: ignore[reportArgumentType]
    assert found is not None
    return found


def test_examples() -> None:
    assert doctest.testmod(places).failed == 0


@pytest.mark.parametrize("port", ["66660", "0", "-1"])
def test_a_port_that_there_is_not_is_refused(port: str) -> None:
    with pytest.raises(ConfigError, match=f"MASTER_PORT is {port}, wanted 1 to 65535"):
        Place.find({**HERE, "MASTER_PORT": port})


@pytest.mark.parametrize("address", ["", "http://node0", "10.0.0.1:29500", "node0:29500", "a b"])
def test_an_address_with_more_or_less_than_an_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match=r"MASTER_ADDR is .*, wanted a name or an address"):
        Place.find({**HERE, "MASTER_ADDR": address})


@pytest.mark.parametrize("address", ["node-0.cluster_a", "10.0.0.1", "::1", "fe80::1%eth0"])
def test_names_and_addresses_of_both_kinds_are_taken(address: str) -> None:
    assert find({**HERE, "MASTER_ADDR": address}).host == address


def test_a_task_of_slurm_meets_the_others_on_the_first_host() -> None:
    found = find(SLURM)
    assert (found.rank, found.num_nodes, found.host) == (5, 8, "gpu07")
    assert found.port in PORTS and not found.hosted
    assert find({**SLURM, "SLURM_PROCID": "0"}).port == found.port
    assert find({**SLURM, "SLURM_JOB_ID": "4712"}).port != found.port


def test_a_batch_script_of_slurm_without_srun_is_one_process() -> None:
    batch = {name: value for name, value in SLURM.items() if "STEP" not in name}
    assert Place.find(batch) is None
    assert Place.find({**SLURM, "SLURM_STEP_NUM_TASKS": "1"}) is None


def test_tasks_of_an_mpirun_on_one_host_meet_there() -> None:
    found = find(MPI)
    assert (found.rank, found.num_nodes, found.host) == (2, 4, "127.0.0.1")
    assert found.port == find({**MPI, "OMPI_COMM_WORLD_RANK": "0"}).port


@pytest.mark.parametrize(
    "task",
    [{**MPI, "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, {"PMI_RANK": "2", "PMI_SIZE": "4"}],
    ids=["several hosts", "MPICH"],
)
def test_one_of_many_that_cannot_know_where_the_others_are_is_refused(task: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"task 2 of 4 of one job, but MASTER_ADDR and"):
        Place.find(task)
    there = {"MASTER_ADDR": "node0", "MASTER_PORT": "29500"}
    assert find({**task, **there}) == Place(2, 4, "node0", 29500, hosted=False, run_name="run")
    assert Place.find(task, rank=0, num_nodes=1, master_addr="a", master_port=1) is not None


def test_what_was_set_on_purpose_wins_over_the_cluster() -> None:
    assert find({**SLURM, **HERE}).rank == 1
    assert find({**SLURM, "MASTER_PORT": "29500"}).port == 29500


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Of a program that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_silent_program_at_the_store_s_port_ends_in_an_error(silent_port: int) -> None:
    with pytest.raises(PeerError, match=r"no store answers there within 1 s\. Is MASTER_PORT"):
        Rendezvous(Place(1, 2, "127.0.0.1", silent_port, hosted=False), 1.0)


def test_node_0_cannot_keep_the_meeting_place_where_nobody_can_dial_it() -> None:
    with pytest.raises(ConfigError, match="node 0 keeps the meeting place of this run, so it has"):
        Rendezvous(Place(0, 2, "127.0.0.1", 9, hosted=False), 1.0, listens=False)


@pytest.mark.parametrize(("given", "text", "listens"), [(None, "0", False), (True, "0", True)])
def test_whether_a_node_listens_is_an_argument_or_a_variable(
    given: bool | None, text: str, listens: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shall_listen(None)
    monkeypatch.setenv("SWARMSGD_LISTEN", text)
    assert shall_listen(given) is listens
    monkeypatch.setenv("SWARMSGD_LISTEN", "maybe")
    with pytest.raises(ConfigError, match="SWARMSGD_LISTEN is 'maybe', wanted 0"):
        shall_listen(None)


def test_ctrl_c_ends_a_wait_for_a_silent_program(silent_port: int) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            Rendezvous(Place(1, 2, "127.0.0.1", silent_port, hosted=False), 600.0)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_store_that_is_not_there_is_said_early_and_named_in_the_end(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swarmsgd.train.meet.finding._SAY_AFTER_S", 0.1)
    with (
        caplog.at_level(logging.WARNING, "swarmsgd"),
        pytest.raises(PeerError, match=r"TORCHELASTIC_USE_AGENT_STORE says that a launcher hosts"),
    ):
        Rendezvous(Place(0, 2, "127.0.0.1", 9, hosted=True), 0.5)
    assert [r.getMessage() for r in caplog.records] == [
        "node 0 waits for the store at 127.0.0.1:9: Connection refused; trying for 0 s"
    ]
