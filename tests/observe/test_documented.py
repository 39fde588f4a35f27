"""The documentation of the records is the schema's own."""

from pathlib import Path

from swarmsgd.observe.schema import table


def test_the_docs_hold_the_schema_as_it_is():
    text = (Path(__file__).parents[2] / "docs" / "records.md").read_text()
    assert table().strip() in text, (
        "make docs/records.md again from swarmsgd.observe.schema.table()"
    )
