"""How Ctrl-C ends what a comparison computes."""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time

import pytest

from swarmsgd.sim.comparison.pool import Pool


@pytest.fixture(autouse=True)
def python_handles_it():
    """Whoever started the tests may have told this process to ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
def test_ctrl_c_is_heeded_at_the_next_wait_and_ends_the_runs_that_go_on():
    after = False
    with pytest.raises(KeyboardInterrupt), Pool(2) as pool:
        for _, run in pool.each(time.sleep, [0, 10**6, 10**6, 10**6]):
            assert run.result() is None
            signal.raise_signal(signal.SIGINT)  # here a lock of the executor might be held
            after = True
    assert after
    assert not multiprocessing.active_children()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.slow
def test_ctrl_c_in_the_middle_of_a_wait_ends_it():
    with pytest.raises(KeyboardInterrupt), Pool(1) as pool:
        for _, run in pool.each(time.sleep, [0, 10**6]):
            assert run.result() is None
            main = threading.main_thread().ident
            assert main is not None
            threading.Timer(0.5, signal.pthread_kill, (main, signal.SIGINT)).start()


@pytest.mark.slow
def test_who_ignores_ctrl_c_goes_on_ignoring_it():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Pool(1) as pool:
        for job, run in pool.each(abs, [-1, -2]):
            signal.raise_signal(signal.SIGINT)
            assert run.result() == -job
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
