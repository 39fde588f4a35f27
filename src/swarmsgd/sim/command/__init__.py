"""`swarmsgd simulate`: one run in virtual time.

`config` is what it is asked to do, `makers` makes the algorithm, `run` trains and scores,
`summary` sums up, `command` prints, with the columns of the curve.
"""
