"""What the help of each command ends with."""

DESCRIPTION = "Train neural networks without a barrier: asynchronous decentralized SGD."
EXAMPLES = """\
examples:
  swarmsgd train vision                        four nodes train a CNN on Fashion-MNIST
  swarmsgd train vision --algorithm allreduce  the same with all-reduce, to compare
  swarmsgd train digits                        the same on another data set: --dataset digits
  swarmsgd launch -n 4 train.py --lr 0.1       your own script, which calls swarmsgd.join()
  swarmsgd simulate vision --nodes 64          the same in virtual time, on any network you like
  swarmsgd compare digits                      several algorithms in one simulated world
  swarmsgd store                               where nodes meet that come and go as they like
  swarmsgd launch -n 2 --swarm HOST:29500 train.py    two more of them
  swarmsgd report runs/a runs/b                one page of what runs did, side by side
  swarmsgd dashboard runs/a                    the same, live

`swarmsgd COMMAND --help` tells more.
"""
LAUNCH_EPILOG = """\
Every node gets RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT, the
same with SWARMSGD_ in front, and, unless it is set, its share of the cores as OMP_NUM_THREADS. A
framework that finds RANK starts a DDP of its own, which averages everything twice:
--no-standard-env leaves only the names with SWARMSGD_, which join() reads. The launcher hosts the
store where the nodes meet. What they print is passed on with the node in front. A node that fails
does not take the others along. Ctrl-C ends all: SIGTERM, then SIGKILL after a few seconds or at
the next Ctrl-C.

exit code:
  0    all nodes of this host ended well
  1    at least one of them failed
  2    wrong usage; nothing was started
  130  Ctrl-C (128 + the signal for others)

examples:
  swarmsgd launch -n 4 train.py --lr 0.1
  swarmsgd launch -n 4 -m mypackage.train --lr 0.1
  swarmsgd launch -n 1 --hosts 4 --host-index 2 --master-addr 10.0.0.1 --master-port 29500 train.py
                             on each of four hosts, each with its own index; the store is open to
                             the network, so keep that network to yourself
  swarmsgd launch -n 4 --restart 3 train.py   a node that fails is started again and joins in
  swarmsgd launch -n 2 --swarm HOST:29500 train.py   two nodes more for the swarm of that store
  swarmsgd launch -n 4 --chaos "kill:3@20 restart:3@45" train.py   see what a failure does
  swarmsgd keygen swarm.key; swarmsgd launch --key swarm.key -n 4 train.py
                             with encrypted links; copy the key to all hosts
"""
DOCTOR_EPILOG = """\
Each line says `fine`, `note` (worth knowing) or `TO DO`, and what to do. Between two machines run
`swarmsgd doctor --listen` on one, and what it prints on the other.

exit code: 0; 1 if there is something to do
"""
TRAIN_EPILOG = """\
The run's folder gets config.json, a node-<i>.jsonl of records for each node, the mean model as
model.safetensors, and summary.json.

exit code:
  0    there is a mean model (of the nodes that lived: a warning names the others)
  1    there is none, or a file of the result could not be written
  2    wrong usage; nothing was started
  130  Ctrl-C; what was recorded is kept

examples:
  swarmsgd train {task}
  swarmsgd train {task} --nodes 8 --graph ring --local-steps geometric:4 --out runs/ring
  swarmsgd train {task} --algorithm allreduce
  swarmsgd train {task} --checkpoint-every 500 --out runs/long
  swarmsgd train --resume runs/long          go on with it where it was interrupted
  swarmsgd train {task} --dashboard           with a live page; its address is told first
"""
SIMULATE_EPILOG = """\
Times are virtual: what the nodes and links of the world would take. The run's folder gets
config.json, the curve of the mean model as curve.jsonl, exchanges and events of each of up to 256
swarm nodes as node-<i>.jsonl, the mean model as model.safetensors, summary.json, and report.html
with plots.

exit code: 0; 1 if training diverged, or a file of the result could not be written; 2 for wrong
usage or data; 130 for Ctrl-C (what was recorded is kept)

examples:
  swarmsgd simulate {task} --nodes 64 --graph ring --bandwidth-mbit-s 100
  swarmsgd simulate {task} --stragglers 3:4@1-2 --events kill:2@1.5 cut:0-1@2-3
  swarmsgd simulate {task} --algorithm allreduce --stragglers 3:4
"""
COMPARE_EPILOG = """\
A recipe is a TOML file: what all runs share, the variants, the seeds, and the learning rates from
which each variant's is chosen on a seed of its own. `swarmsgd compare digits` runs one that comes
with the package. The folder gets a folder for each run, table.md, and report.html with plots.

exit code: 0; 1 if a variant diverged at all rates, or a file of the result could not be written;
2 for wrong usage or data; 130 for Ctrl-C
"""
