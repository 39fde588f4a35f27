"""What runs write down, and how a person sees it.

Written: `records` of a node (fields: `schema`), `summary` of a run, its `folder`; `output` keeps
printing from delaying a run. Shown: `console` (a column: a name in `Console._rows`, a value in
`_cells`) with `view` and `words`; pages: `report` says which plots and tables there are, `curves`
reads the runs, `figures`, `bars`, `axes`, `colours`, `finals` draw and write, `page` puts it in one
file.
"""
