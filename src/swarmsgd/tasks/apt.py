"""Files of a Debian package, without installing it and without root."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from swarmsgd.errors import DataError
from swarmsgd.tasks.base import Notify

UPDATE_TIMEOUT_S = 60
DOWNLOAD_TIMEOUT_S = 600


def unpack_package(package: str, into: Path, *, own_lists: bool, notify: Notify) -> Path:
    """Download `package` with apt-get and unpack it; returns the root of its files.

    `into` is a folder to work in; everything apt writes is kept inside it. With `own_lists` the
    package lists are fetched there first; otherwise the system's lists must know the package.
    Raises DataError where there is no apt, no such package, or no network.
    """
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise DataError(f"there is no {tool} on this system")
    into = into.resolve()
    settings = _write_settings(into, own_lists)
    if own_lists:
        notify(f"{package}: getting package lists")
        # One broken source makes apt-get fail though all others are there, so only the
        # download decides.
        _run(["apt-get", "-c", str(settings), "update"], into, UPDATE_TIMEOUT_S, must_work=False)
    notify(f"{package}: asking apt for it")
    _run(["apt-get", "-c", str(settings), "download", package], into, DOWNLOAD_TIMEOUT_S)
    archives = list(into.glob(f"{package}_*.deb"))
    if len(archives) != 1:
        raise DataError(f"apt-get download {package} left {len(archives)} archives, wanted 1")
    root = into / "root"
    _run(["dpkg-deb", "-x", str(archives[0]), str(root)], into, UPDATE_TIMEOUT_S)
    return root


def _write_settings(into: Path, own_lists: bool) -> Path:
    """An apt configuration that overrides the system's; read last because it is given by -c."""
    for folder in ("cache/archives/partial", "lists/partial"):
        (into / folder).mkdir(parents=True)
    lines = [
        f'Dir::Cache "{into}/cache";',
        'Dir::Cache::pkgcache "";',
        'Dir::Cache::srcpkgcache "";',
        'Acquire::Languages "none";',
        'Acquire::Retries "0";',
        'Acquire::http::Timeout "10";',
        'Acquire::https::Timeout "10";',
        # The system's hooks refresh caches of the system, which are not ours to touch.
        "#clear APT::Update::Pre-Invoke;",
        "#clear APT::Update::Post-Invoke;",
        "#clear APT::Update::Post-Invoke-Success;",
    ]
    if own_lists:
        lines += [f'Dir::State::Lists "{into}/lists";']
    if os.geteuid() == 0:
        # Else apt becomes user _apt, who cannot enter a folder of root's.
        lines += ['APT::Sandbox::User "root";']
    settings = into / "apt.conf"
    settings.write_text("\n".join(lines) + "\n")
    return settings


def _run(command: list[str], cwd: Path, timeout_s: float, *, must_work: bool = True) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DataError(f"{' '.join(command[:1])} took longer than {timeout_s:g} s") from None
    if must_work and done.returncode != 0:
        complaints = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise DataError(complaints[-1] if complaints else f"{command[0]} failed")
