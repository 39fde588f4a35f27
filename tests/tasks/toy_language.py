"""A small made-up language pair: sentences without grammar, translated word by word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

WORDS = {
    "red": "rot", "green": "gruen", "blue": "blau", "dog": "hund", "cat": "katze", "bird": "vogel",
    "runs": "rennt", "sleeps": "schlaeft", "sings": "singt", "fast": "schnell", "late": "spaet",
}  # fmt: skip


def sentences(count: int, seed: int) -> list[tuple[str, str]]:
    """Pairs of 1 to 8 words."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        words = rng.choice(list(WORDS), size=rng.integers(1, 9)).tolist()
        found.append((" ".join(words), " ".join(WORDS[word] for word in words)))
    return found


def write(folder: Path, *, train: int = 200, scored: int = 30) -> dict[str, Any]:
    """Its files, and the options of a translation task on them."""
    files: dict[str, Any] = {}
    for seed, (split, count) in enumerate(
        {"train": train, "valid": scored, "test": scored}.items()
    ):
        for side, texts in zip(
            ("src", "tgt"), zip(*sentences(count, seed), strict=True), strict=True
        ):
            path = folder / f"{split}.{side}"
            path.write_text("".join(f"{text}\n" for text in texts))
            files[f"{split}_{side}"] = path
    return {**files, "model": "mini", "vocabulary": 60, "batch_size": 8}
