"""What a run writes when it is over: a file that cannot be written is named, and takes nothing else
along.
"""

from __future__ import annotations

import contextlib
from pathlib import Path


class Ending:
    """The last files of the run in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lost: dict[str, str] = {}
        """Names of files that could not be written -> why."""

    def put(self, name: str, contents: str | bytes) -> None:
        """Write a file, or note that it is lost."""
        data = contents.encode() if isinstance(contents, str) else contents
        try:
            write_whole(self.folder / name, data)
        except OSError as error:
            self.lost[name] = error.strerror or str(error)
        else:
            self.lost.pop(name, None)

    def complaint(self) -> str | None:
        """One line that names what is lost and why; None if nothing is."""
        if not self.lost:
            return None
        names = ", ".join(f"{name} ({why})" for name, why in self.lost.items())
        return f"could not be written to {self.folder}: {names}"


def write_whole(path: Path, contents: bytes) -> None:
    """Write a file, whole or not at all. Raises OSError."""
    unfinished = path.with_name(f".{path.name}")
    try:
        unfinished.write_bytes(contents)
        unfinished.rename(path)
    except OSError:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise
