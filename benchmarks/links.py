"""What a link costs: CPU a byte, exchanges a second of a pair, threads and descriptors.

    python benchmarks/links.py [--before CHECKOUT] [--keep]

Two processes on loopback. With `--before` another checkout of the project is measured too, in turn
with this one. The CPU time is that of both processes, all threads, so that it hardly depends on
what else the machine does; the ratios of rounds that follow each other do so least.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from bench import HERE, keep, median, run_nodes, table

from swarmsgd.transport.keys import make_key

DEGREES = (3, 15)
SIZES = (100_000, 11_700_000)
KEYED = "12 MB messages, with a key: CPU ns a byte"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, help="another checkout, to compare with")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, default=150, help="each way, in a round")
    parser.add_argument("--seconds", type=float, default=6.0, help="of exchanging, in a round")
    parser.add_argument("--keep", action="store_true", help="write the record")
    options = parser.parse_args()
    checkouts = {"now": HERE.parent}
    if options.before:
        checkouts = {"before": options.before.resolve(), **checkouts}
    made: dict[str, list[dict[str, float]]] = {name: [] for name in checkouts}
    with tempfile.TemporaryDirectory() as folder:
        key = Path(folder) / "key"
        make_key(key)
        for _ in range(options.rounds):
            for name, checkout in checkouts.items():
                made[name].append(measure(checkout, options.messages, options.seconds, key))
    figures = {
        name: {key: median(one[key] for one in rounds) for key in rounds[0]}
        for name, rounds in made.items()
    }
    if options.before:
        figures["ratio"] = {
            key: median(
                now[key] / before[key]
                for now, before in zip(made["now"], made["before"], strict=True)
            )
            for key in figures["now"]
        }
    columns = list(figures)
    rows = [[key, *(f"{figures[c][key]:.3g}" for c in columns)] for key in figures["now"]]
    print(table([["median of the rounds", *columns], *rows]))
    if options.keep:
        note = f"{options.rounds} rounds; ratio: median of now / before of one round each"
        print("kept in", keep("links", figures, note))


def measure(checkout: Path, messages: int, seconds: float, path: Path) -> dict[str, float]:
    """One round of all figures; the key at `path` is used where a figure is with one."""

    def run(*arguments: object, **variables: str) -> list[dict[str, float]]:
        words = [HERE / "links_node.py", *arguments]
        return run_nodes(words, 2, PYTHONPATH=str(checkout / "src"), **variables)

    found: dict[str, float] = {}
    said = run("messages", messages)
    found["12 MB messages: CPU ns a byte"] = 1e9 * sum(s["cpu_s"] for s in said) / said[0]["bytes"]
    knows_keys = (checkout / "src/swarmsgd/transport/keys.py").exists()  # if not, all is plain
    key = {"SWARMSGD_KEY": str(path)} if knows_keys else {}
    said = run("messages", messages, **key)
    found[KEYED] = 1e9 * sum(s["cpu_s"] for s in said) / said[0]["bytes"]
    for parameters, keyed in (*((size, False) for size in SIZES), (SIZES[-1], True)):
        said = run("exchanges", parameters, seconds, **(key if keyed else {}))
        count = sum(s["completed"] for s in said)
        title = f"{parameters / 1e6:g} M parameters, 8 bits{', with a key' if keyed else ''}"
        found[f"{title}: exchanges a second"] = count / said[0]["seconds"]
        found[f"{title}: CPU ms an exchange"] = 1e3 * sum(s["cpu_s"] for s in said) / count
    for degree in DEGREES:
        said = run("degree", degree)
        found[f"degree {degree}: threads"] = said[0]["tasks"]
        found[f"degree {degree}: descriptors"] = said[0]["descriptors"]
    return found


if __name__ == "__main__":
    main()
