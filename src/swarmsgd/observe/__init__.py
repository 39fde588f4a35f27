"""What runs write down, and how a person sees it.

Written: `records` of a node (fields: `schema`), `summary` of a run, its `folder`; `output` keeps
printing from delaying a run. Shown: `console` (a column: a line in its `COLUMNS`) with `view` and
`words`; pages: `run_page` says which plots a run has and `run_tables` which tables,
`comparison_page` those of several; `story` and `curves` read the runs, `lines`, `bars`, `axes`,
`colours`, `finals` draw, `page` puts it in one file.
"""
