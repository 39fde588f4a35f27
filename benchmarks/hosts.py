"""Four hosts (network namespaces) with links of a wanted rate: step times of the swarm, of DDP,
and detached.

    python benchmarks/hosts.py [--keep]      # needs root

One command a host, the standard variables, no interface variable: the address is the one that
routes to the store.
"""

from __future__ import annotations

import argparse

from bench import HERE, keep, median, run_nodes, table
from namespaces import Hosts, available

HOSTS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parameters", type=int, default=11_700_000)
    parser.add_argument("--rates", nargs="+", default=["none", "1gbit", "100mbit"])
    parser.add_argument("--bits", nargs="+", default=["none"])
    parser.add_argument("--seconds", type=float, default=30.0, help="of each run of the swarm")
    parser.add_argument("--ddp-steps", type=int, default=8)
    parser.add_argument("--keep", action="store_true", help="write the record")
    options = parser.parse_args()
    reason = available()
    if reason:
        raise SystemExit(f"network namespaces cannot be made here: {reason}")
    figures: dict[str, dict[str, dict]] = {}
    rows: list[list[object]] = [
        [
            "link",
            "variant",
            "median step, ms",
            "p99, ms",
            "to detached",
            "exchanges a node",
            "MB sent a node",
        ]
    ]
    for rate in options.rates:
        figures[rate] = {}
        with Hosts(HOSTS, None if rate == "none" else rate) as hosts:
            for variant in ["none", *(f"swarm:{b}" for b in options.bits), "ddp"]:
                algorithm, _, bits = variant.partition(":")
                arguments = [HERE / "loop.py", "--algorithm", algorithm, "--warmup", 3]
                arguments += ["--parameters", options.parameters, "--bits", bits or "none"]
                if algorithm == "ddp":
                    arguments += ["--steps", options.ddp_steps]
                else:
                    arguments += ["--seconds", options.seconds if algorithm == "swarm" else 8]
                said = run_nodes(
                    ["-u", *arguments],
                    HOSTS,
                    prefixes=[hosts.prefix(i) for i in range(HOSTS)],
                    master_addr=hosts.addresses[0],
                    timeout_s=300,
                    **({"GLOO_SOCKET_IFNAME": "eth0"} if algorithm == "ddp" else {}),
                )
                f = {
                    "step_ms": 1e3 * median(s["step_s_median"] for s in said),
                    "p99_ms": 1e3 * median(s["step_s_p99"] for s in said),
                }
                detached = figures[rate].get("none", f)["step_ms"]
                f["ratio_to_detached"] = f["step_ms"] / detached
                exchanges = sent = ""
                if algorithm == "swarm":
                    f["exchanges"] = median(s["swarm"]["completed"] for s in said)
                    f["lost"] = sum(s["swarm"]["lost"] for s in said)
                    f["bytes_sent"] = median(s["swarm"]["bytes_sent"] for s in said)
                    f["steps"] = median(s["steps"] for s in said)
                    exchanges, sent = f"{f['exchanges']:.0f}", f"{f['bytes_sent'] / 1e6:.0f}"
                figures[rate][variant] = f
                rows.append(
                    [rate, variant, f"{f['step_ms']:.0f}", f"{f['p99_ms']:.0f}",
                     f"{f['ratio_to_detached']:.2f}", exchanges, sent]
                )  # fmt: skip
                print(rate, variant, f, flush=True)
    print(table(rows))
    if options.keep:
        print("kept in", keep("hosts", figures))


if __name__ == "__main__":
    main()
