"""Nodes that come and go as chance has it: no error, an end, and every change of the sum told."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from chaos_runs import Account, run, schedule

SCHEDULES = 30


@pytest.mark.slow
@pytest.mark.parametrize("number", range(SCHEDULES))
def test_random_schedules_end_and_the_sum_is_what_steps_deaths_joins_and_losses_make_it(
    number: int,
):
    account = run(schedule(number))
    assert account.swarm.live()


@pytest.mark.slow
def test_the_schedules_are_not_idle():
    accounts = [run(schedule(number)) for number in (4, 7, 9, 16)]
    assert sum(a.joins for a in accounts) > 10 and sum(a.deaths for a in accounts) > 10
    assert sum(a.answers for a in accounts) > 500
    assert sum(len(a.moved) for a in accounts) > 5


def test_the_account_notices_a_model_that_is_moved_behind_its_back(monkeypatch: pytest.MonkeyPatch):
    look = Account.look

    def meddle(account: Account) -> None:
        look(account)
        if account.events == 500:
            account.fleet.x_ND[account.swarm.live()[0]] += np.float32(0.01)

    monkeypatch.setattr(Account, "look", meddle)
    with pytest.raises(AssertionError, match="moved for no reason"):
        run(schedule(4))
