"""The folder that a run writes into."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from swarmsgd.errors import ConfigError

CONFIG = "config.json"
SUMMARY = "summary.json"
MODEL = "model.safetensors"
CURVE = "curve.jsonl"
REPORT = "report.html"
OWN_FILES = (CONFIG, MODEL, f".{MODEL}", SUMMARY, CURVE, REPORT, "node-*.jsonl")
"""What a run writes into its folder, and what --overwrite replaces."""


def check_folder(folder: Path, *, overwrite: bool) -> None:
    """Raise ConfigError if a run cannot be written to `folder`; creates nothing."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise ConfigError(f"--out is {folder}, but {existing} is a file: choose another folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(f"--out is {folder}, but {existing} cannot be written to")
    found = sorted(path.name for path in folder.iterdir()) if existing == folder else []
    if found and not overwrite:
        raise ConfigError(
            f"--out is {folder}, which is not empty ({', '.join(found[:3])}"
            f"{', ...' if len(found) > 3 else ''}): choose another folder, or --overwrite"
        )


def make_folder(folder: Path, config_json: str, own: Iterable[str] = OWN_FILES) -> None:
    """Create the folder, free of what an earlier run left, with the run's config in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for pattern in own:
            for path in folder.glob(pattern):
                path.unlink()
        (folder / CONFIG).write_text(config_json + "\n")
    except OSError as error:
        raise ConfigError(
            f"--out is {folder}, which cannot be written to: {error.strerror or error}"
        ) from None
