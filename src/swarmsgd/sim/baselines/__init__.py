"""What SwarmSGD is compared with, each as its paper has it; one file an algorithm.

Lock-step algorithms are a `lockstep.Rule` that `lockstep.LockStep` drives; their time is a
recurrence over rounds whose formulas are in `costs` (that of an all-reduce: `allreduce_end`).
Asynchronous ones are a `pairwise.Mixing` that `pairwise.Pairwise` drives on an agenda, with the
same network as SwarmSGD. All send float32 models, 4 D bytes, train with the run's optimizer and
learning rate schedule, and keep its state and batch-norm buffers on their node. Where a choice was
open it was made in favour of the baseline.

To add one: a file here, a line in `swarmsgd.settings.algorithms`, and one in
`swarmsgd.sim.command.makers`, which makes it.
"""
