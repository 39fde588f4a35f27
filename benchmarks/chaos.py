"""Random schedules of deaths, arrivals, cuts and stragglers in virtual time: does any go wrong?

    python benchmarks/chaos.py [--schedules 1000] [--first 0] [--limit-s 600] [--keep]

Each is a function of its number (`chaos_runs.schedule`): 4 to 12 nodes, any mode, graph and width.
A schedule fails if it raises, does not end, breaks the protocol, or if the sum of models is not
what the account of steps, deaths, joins and lost exchanges says (`chaos_runs.Account`).
"""

from __future__ import annotations

import argparse
import time
import traceback
from collections import Counter

import torch
from bench import keep, table
from chaos_runs import run, schedule


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schedules", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--limit-s", type=float, default=600.0, help="start no more after that")
    parser.add_argument("--keep", action="store_true", help="write the record")
    options = parser.parse_args()
    torch.set_num_threads(1)
    seen, failed, worst = Counter[str](), list[str](), 0.0
    begin = time.perf_counter()
    for number in range(options.first, options.first + options.schedules):
        if time.perf_counter() - begin > options.limit_s:
            break
        config = schedule(number)
        seen["schedules"] += 1
        seen[f"mode {config.swarm.mode}"] += 1
        try:
            account = run(config)
        except Exception as error:  # counted: the others shall run too
            failed.append(f"{number}: {error!r}")
            traceback.print_exc()
            continue
        worst = max(worst, account.off)
        for name in ("deaths", "joins", "answers", "events"):
            seen[name] += getattr(account, name)
        seen["lost exchanges"] += len(account.moved)
    figures = {**seen, "failed": failed, "worst_off": worst, "s": time.perf_counter() - begin}
    print(table([["figure", "value"], *figures.items()]))
    if options.keep:
        keep("chaos", figures)
    if failed:
        raise SystemExit(f"{len(failed)} schedules failed")


if __name__ == "__main__":
    main()
