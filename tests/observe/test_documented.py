"""The documentation of records and summaries is made from their tables."""

from pathlib import Path

import pytest

from swarmsgd.observe import schema, summary


@pytest.mark.parametrize("module", [schema, summary])
def test_the_docs_hold_the_table_as_it_is(module):
    text = (Path(__file__).parents[2] / "docs" / "records.md").read_text()
    assert module.table().strip() in text, (
        f"make that part of docs/records.md again from {module.__name__}.table()"
    )
