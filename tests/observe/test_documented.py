"""The documentation of records and summaries is made from their tables."""

from pathlib import Path

import pytest

from swarmsgd.observe.schema import records_table
from swarmsgd.observe.summary import figures_table


@pytest.mark.parametrize("table", [records_table, figures_table])
def test_the_docs_hold_the_table_as_it_is(table):
    text = (Path(__file__).parents[2] / "docs" / "records.md").read_text()
    assert table().strip() in text, (
        f"make that part of docs/records.md again from {table.__module__}.{table.__name__}()"
    )
