"""The documentation of records, summaries and the API is made from their tables."""

from pathlib import Path

import api_table
import pytest

from swarmsgd.observe.schema import records_table
from swarmsgd.observe.summary import figures_table


@pytest.mark.parametrize("table", [records_table, figures_table])
def test_the_docs_hold_the_table_as_it_is(table):
    text = (Path(__file__).parents[2] / "docs" / "records.md").read_text()
    assert table().strip() in text, (
        f"make that part of docs/records.md again from {table.__module__}.{table.__name__}()"
    )


def test_the_api_page_has_every_name_with_its_sentence():
    table = api_table.table()
    assert table in api_table.PAGE.read_text(), "scripts/document writes it anew"
    rows = [line.split(" | ") for line in table.splitlines()[2:]]
    assert all(len(row) == 2 and len(row[1]) > 10 for row in rows)
    assert {"| `join`", "| `Swarm.mean_model`", "| `errors.PeerError`"} <= {row[0] for row in rows}
