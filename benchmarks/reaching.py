"""How long four hosts (network namespaces) take to an accuracy, as links get thinner: the swarm and
DDP, each at its best.

    python benchmarks/reaching.py --rates 1gbit 100mbit [--keep]      # needs root

A run is the node program of `swarmsgd train`, one process a host, with the default recipe for
images. Its rate is held and then taken to 0 over the whole of a run, so how long a run is has to be
said beforehand: each algorithm is first tried without a limit on the links with several lengths,
batches and rates (one seed). Of those that come to the accuracy, the one with the fewest samples
and the one with the fewest steps are run on each link, with other seeds.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from bench import keep, median, outputs, table
from namespaces import Hosts, available

from swarmsgd import read_records
from swarmsgd.observe.folder import CONFIG
from swarmsgd.train.command.config import TrainConfig

HOSTS = 4
NODE = ["-P", "-m", "swarmsgd.train.command.trainee"]
SEEDS = (1, 2, 3)


class Plan(NamedTuple):
    """What a run is asked to do, the links aside."""

    algorithm: str
    batch: int
    epochs: float
    lr: float

    @property
    def steps(self) -> float:
        """In relation to others."""
        return self.epochs / self.batch

    def __str__(self) -> str:
        return f"batch {self.batch}, {self.epochs:g} passes, rate {self.lr:g}"


def plans(algorithm: str) -> Iterator[Plan]:
    """A grid: batches of one node, passes over the data by all nodes together, rates."""
    for batch, lr in itertools.product((16, 32, 64, 128), (0.016, 0.032)):
        for epochs in (0.5, 1.0, 1.5, 2.0):
            yield Plan(algorithm, batch, epochs, lr)


def run(plan: Plan, rate: str | None, seed: int) -> dict[str, Any]:
    """One run on four hosts; its accuracy, seconds in the training loop, and bytes of a node."""
    config = TrainConfig.of(
        task="vision",
        dataset="fashion-mnist",
        algorithm=plan.algorithm,
        nodes=HOSTS,
        batch_size=plan.batch,
        epochs=plan.epochs,
        lr=plan.lr,
        seed=seed,
    )
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        hosts = stack.enter_context(Hosts(HOSTS, rate))
        (folder / CONFIG).write_text(config.to_json())
        outputs(
            [*NODE, folder],
            HOSTS,
            prefixes=[hosts.prefix(i) for i in range(HOSTS)],
            master_addr=hosts.addresses[0],
            **({"GLOO_SOCKET_IFNAME": "eth0"} if plan.algorithm == "allreduce" else {}),
        )
        records = list(read_records(folder))
    results = [record for record in records if record["kind"] == "result"]
    scores = [r["accuracy"] for r in records if r["kind"] == "eval" and r["model"] == "mean"]
    if len(results) != HOSTS or len(scores) != 1:
        raise SystemExit(f"{plan}: {len(results)} of {HOSTS} nodes came to their end, see above")
    return {
        "accuracy": 100 * scores[0],
        "seconds": max(result["wall_s"] for result in results),
        "step_ms": median(result["step_ms_p50"] for result in results),
        "MB_sent": median(result["bytes_sent"] for result in results) / 1e6,
    }


def tried(algorithm: str, wanted: float, seed: int = 0) -> dict[Plan, dict[str, Any]]:
    """The plans with no limit on the links; of a batch and a rate none longer than needed."""
    found: dict[Plan, dict[str, Any]] = {}
    enough: set[tuple[int, float]] = set()
    for plan in plans(algorithm):
        if (plan.batch, plan.lr) in enough:
            continue
        found[plan] = result = run(plan, None, seed)
        print(algorithm, plan, result, flush=True)
        if result["accuracy"] >= wanted:
            enough.add((plan.batch, plan.lr))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accuracy", type=float, default=89.0, help="per cent")
    parser.add_argument("--rates", nargs="+", default=["1gbit", "100mbit"])
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="of each timed run")
    parser.add_argument("--keep", action="store_true", help="write the record")
    options = parser.parse_args()
    if reason := available():
        raise SystemExit(f"network namespaces cannot be made here: {reason}")
    figures: dict[str, Any] = {}
    rows: list[list[object]] = [
        ["link", "algorithm", "plan", "seconds", "accuracy, %", "median step, ms", "MB a node"]
    ]
    for algorithm in ("swarm", "allreduce"):
        trials = tried(algorithm, options.accuracy)
        good = [plan for plan, result in trials.items() if result["accuracy"] >= options.accuracy]
        if not good:
            raise SystemExit(f"{algorithm} comes to {options.accuracy} % with none of its plans")
        ends = dict.fromkeys(
            (
                min(good, key=lambda p: (p.epochs, p.steps, -trials[p]["accuracy"])),
                min(good, key=lambda p: (p.steps, p.epochs, -trials[p]["accuracy"])),
            )
        )
        figures[f"{algorithm}, tried"] = {str(p): result for p, result in trials.items()}
        for rate in options.rates:
            timed = {
                plan: [run(plan, rate, seed) for seed in SEEDS[: options.seeds]] for plan in ends
            }
            for plan, results in timed.items():
                f = {name: median(r[name] for r in results) for name in results[0]}
                f["accuracies"] = [r["accuracy"] for r in results]
                figures[f"{algorithm}, {rate}, {plan}"] = f
                rows.append(
                    [rate, algorithm, plan, f"{f['seconds']:.1f}",
                     " ".join(f"{a:.2f}" for a in f["accuracies"]), f"{f['step_ms']:.1f}",
                     f"{f['MB_sent']:.1f}"]
                )  # fmt: skip
                print(*rows[-1], flush=True)
    print(table(rows))
    if options.keep:
        print("kept in", keep("reaching", figures))


if __name__ == "__main__":
    main()
