"""The wire code next to a plain copy of the vector, by bits: `swarmsgd bench codec`, as a record.

python benchmarks/codec.py [--keep]
"""

from __future__ import annotations

import argparse

from bench import keep, table

from swarmsgd.codec.bench import bench

SIZE = 11_700_000
CODES: dict[str, tuple[int | None, bool | None]] = {
    "8 bits": (8, None),
    "4 bits (rotated)": (4, None),
    "4 bits, rotation off": (4, False),
    "float32": (None, None),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="write the record")
    options = parser.parse_args()
    figures = {
        name: bench(SIZE, bits, rotation=rotation) for name, (bits, rotation) in CODES.items()
    }
    rows: list[list[object]] = [["", "copy, ms", "offer", "answer", "mix", "bytes a parameter"]]
    for name, f in figures.items():
        ratios = [f"{f[part]:.2f}" for part in ("offer", "answer", "mix")]
        rows.append([name, f"{1e3 * f['copy_s']:.1f}", *ratios, f"{f['bytes']:.4f}"])
    print(table(rows))
    if options.keep:
        keep("codec", figures)


if __name__ == "__main__":
    main()
