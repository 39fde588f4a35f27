"""Files from a web server, with checksums."""

from __future__ import annotations

from pathlib import Path

from swarmsgd.errors import DataError
from swarmsgd.tasks.base import Notify

CONNECT_TIMEOUT_S = 3.05
STALL_TIMEOUT_S = 20.0


def download(url: str, target: Path, notify: Notify, *, checksum: str = "") -> Path:
    """Write what `url` serves to `target`; DataError if it cannot be had or is something else.

    `checksum` is written ``sha256:...`` or ``md5:...``.
    """
    import pooch  # late: imports requests

    notify(f"{target.name}: downloading {url}")
    get = pooch.HTTPDownloader(progressbar=False, timeout=(CONNECT_TIMEOUT_S, STALL_TIMEOUT_S))
    try:
        get(url, str(target), None)
    except OSError as error:  # what requests raises is an OSError, too
        raise DataError(f"cannot download {url}: {_reason(error)}") from error
    kind, _, wanted = checksum.partition(":")
    if checksum and (got := pooch.file_hash(str(target), kind)) != wanted:
        raise DataError(
            f"{url} served something else: {target.stat().st_size:,} bytes "
            f"with {kind} {got}, wanted {wanted}"
        )
    return target


def _reason(error: BaseException) -> str:
    """The innermost cause; the outer ones of requests are a screenful that say no more."""
    while error.__context__ is not None:
        error = error.__context__
    return str(error) or type(error).__name__
