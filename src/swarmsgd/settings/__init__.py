"""What a run is asked to do, as frozen values that are checked when made.

`swarm` and `optimizer` have the settings of these, `run` those of a whole run, `algorithms` the
table of algorithms. To add an option: a field with a docstring, which is its help, in one of them
(or in the options of a task, or in `sim.engine.world`); `options` makes all else of it.
"""
