"""Algorithms can be told apart, whoever looks."""

from itertools import combinations

import numpy as np
import pytest

from swarmsgd.observe.colours import ALGORITHM_COLOURS, DASHES, linear, looks, pale, readable

SIGHTS = {
    "full": np.eye(3),
    "no red cones": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "no green cones": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "no blue cones": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
"""What reaches the eye, on linear RGB (Machado, Oliveira, Fernandes 2009, severity 1)."""


def light(colour: str) -> np.ndarray:
    return np.array(linear([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]))


def oklab(rgb: np.ndarray) -> np.ndarray:
    """Ottosson 2020: differences of about 0.02 can just be seen."""
    cones = [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
    axes = [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
    return np.array(axes) @ np.cbrt(np.array(cones) @ np.clip(rgb, 0, 1))


def contrast_on_white(colour: str) -> float:
    return 1.05 / (float(np.array([0.2126, 0.7152, 0.0722]) @ light(colour)) + 0.05)


@pytest.mark.parametrize("sight", SIGHTS)
def test_any_two_algorithms_differ_to_every_kind_of_sight(sight: str):
    seen = {n: oklab(np.array(SIGHTS[sight]) @ light(c)) for n, c in ALGORITHM_COLOURS.items()}
    apart = {(a, b): float(np.linalg.norm(seen[a] - seen[b])) for a, b in combinations(seen, 2)}
    closest = min(apart, key=lambda pair: apart[pair])
    assert apart[closest] > 0.08, f"{closest} are {apart[closest]:.3f} apart"


@pytest.mark.parametrize("colour", [*ALGORITHM_COLOURS.values(), "#FFFFFF"])
def test_text_in_a_colour_can_be_read_on_white(colour: str):
    assert contrast_on_white(readable(colour)) >= 4.4


def test_variants_of_an_algorithm_share_its_colour_and_differ_in_dash():
    (first, solid), (second, dash), (other, _) = looks(["swarm", "swarm", "sgd"])
    assert first == second == ALGORITHM_COLOURS["swarm"] != other
    assert solid == "solid" and dash == DASHES[1]


def test_words_that_are_no_algorithms_get_colours_of_their_own():
    colours = [colour for colour, _ in looks(["ring", "torus", "complete", "ring"])]
    assert len(set(colours[:3])) == 3 and colours[3] == colours[0]


def test_pale_is_the_same_colour_with_opacity():
    assert pale("#D55E00", 0.25) == "rgba(213,94,0,0.25)"
