"""Settings are checked where they are born; the texts say what to do."""

import numpy as np
import pytest

from swarmsgd.config import BITS, Config, LocalSteps
from swarmsgd.core import lattice
from swarmsgd.errors import ConfigError


def test_the_bits_of_the_config_are_those_of_the_code():
    assert (None, *lattice.BITS) == BITS


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"mode": "nonblocking"}, "mode is 'nonblocking'.*did you mean \"non-blocking\""),
        ({"bits": 9}, "bits is 9, wanted one of none, 3, 4"),
        ({"rotation": "on"}, "rotation is 'on', wanted True, False or None"),
        ({"local_steps": 0}, "local_steps is 0, wanted a whole number of at least 1"),
        ({"local_steps": "poisson:4"}, "local_steps is 'poisson:4'"),
        ({"seed": -1}, "seed is -1"),
        ({"join_timeout_s": 0}, "join_timeout_s is 0"),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused(settings, text):
    with pytest.raises(ConfigError, match=text):
        Config(**settings)


def test_local_steps_are_fixed_or_geometric_with_the_mean_asked_for():
    rng = np.random.default_rng(0)
    assert {LocalSteps.parse("4").draw(rng) for _ in range(10)} == {4}
    draws = [LocalSteps.parse("geometric:4").draw(rng) for _ in range(20_000)]
    assert min(draws) == 1 and abs(np.mean(draws) - 4) < 0.1
    assert str(LocalSteps.parse("geometric:4")) == "geometric:4"
