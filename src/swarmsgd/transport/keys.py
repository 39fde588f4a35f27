"""The key of a swarm: who holds the file is a member, and nobody else.

It is one CURVE key pair, which all nodes use both as server and as client: each end of a link
proves to the other that it holds the secret key, and ZeroMQ encrypts and authenticates all that
follows with keys that are drawn for that connection alone.
"""

from __future__ import annotations

import hashlib
import os
import tomllib
from pathlib import Path
from typing import NamedTuple

import zmq

from swarmsgd.errors import ConfigError


class SwarmKey(NamedTuple):
    """Z85, 40 bytes each."""

    public: bytes
    secret: bytes

    @property
    def fingerprint(self) -> str:
        """Tells keys apart and gives nothing away."""
        return hashlib.blake2b(self.public, digest_size=8).hexdigest()

    def __repr__(self) -> str:
        return f"<SwarmKey {self.fingerprint}>"  # no traceback shows a secret


def make_key(path: Path) -> SwarmKey:
    """Draw a key and write it to a new file that only its owner can read. Raises ConfigError."""
    public, secret = zmq.curve_keypair()
    text = (
        "# The key of a swarm. Who has this file can join the swarm and read all that it sends.\n"
        f'public = "{public.decode()}"\nsecret = "{secret.decode()}"\n'
    )
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(
            f"{path} is there already: a new key would lock out who has the old one. Choose "
            "another name, or remove it"
        ) from None
    except OSError as error:
        path.unlink(missing_ok=True)  # what is begun would pass for a key
        raise ConfigError(f"cannot write the key to {path}: {error.strerror}") from None
    return SwarmKey(public, secret)


def read_key(path: Path) -> SwarmKey:
    """Read what `make_key` has written. Raises ConfigError."""
    try:
        fields = tomllib.loads(path.read_text())
        public, secret = (fields[name].encode() for name in ("public", "secret"))
        if zmq.curve_public(secret) != public:
            raise ValueError
        if os.name == "posix" and path.stat().st_mode & 0o077:
            raise ConfigError(
                f"the key {path} can be read by others than its owner: chmod 600 {path}"
            )
    except OSError as error:
        raise ConfigError(
            f"cannot read the key {path}: {error.strerror}. `swarmsgd keygen {path}` makes one; "
            "copy that to all hosts"
        ) from None
    except (ValueError, KeyError, AttributeError, zmq.ZMQError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"{path} is not the key of a swarm, or is torn: copy it again from where it was made "
            "with `swarmsgd keygen`"
        ) from None
    return SwarmKey(public, secret)
