"""The picture of the simulator's page is drawn from the record that the documentation quotes."""

import json

from bench import RECORDS
from picture import PICTURE, picture


def test_the_picture_is_that_of_the_record():
    figures = json.loads((RECORDS / "sim-steps" / "figures.json").read_text())
    assert PICTURE.read_text() == picture(figures), "python benchmarks/picture.py draws it anew"
