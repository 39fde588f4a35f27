"""A page of this machine that shows a run while it goes on, or tells a finished one again.

Read-only: it answers GET alone, and nothing that it answers changes a run. It listens on the
loopback address; on another one only whoever has its token is answered.
"""

from __future__ import annotations

import contextlib
import hmac
import ipaddress
import json
import secrets
import threading
import time
from collections.abc import Iterator
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from swarmsgd.checks import number
from swarmsgd.errors import SwarmError
from swarmsgd.observe.feed import READ_S, Feed
from swarmsgd.observe.page import document
from swarmsgd.observe.ports import LOOPBACK, PORT, cannot_listen
from swarmsgd.observe.run_curve import safe_label
from swarmsgd.observe.sources import Following, Replaying

MOST_VIEWERS = 16
"""Open pages; more are told to wait."""
_SPEEDS = (1, 10, 60, 600)
_LAST_S = 3
"""Looks at a replay after its end, before it is said to be over."""
_TICK_S = 0.2
_FAREWELL_S = 2.0
"""At its end it waits so long for pages to be told how the run ended."""


class Dashboard:
    """Serves the page of the run in `folder`. Raises DataError if it is no run's, ConfigError if
    the port cannot be had.

    `close` ends it; a context manager does so at its end.
    """

    def __init__(self, folder: Path, *, host: str = LOOPBACK, port: int = PORT) -> None:
        self.folder = folder
        self.feed = Feed(Following(folder))
        self.token = "" if _is_loopback(host) else secrets.token_urlsafe(24)
        self.viewers = threading.BoundedSemaphore(MOST_VIEWERS)
        self.closing = threading.Event()
        try:
            self._server = _Server((host, port), _Handler)
        except (OSError, OverflowError) as error:
            raise cannot_listen(host, port, error) from None
        self._server.dashboard = self
        self.port: int = self._server.server_address[1]
        shown = f"[{host}]" if ":" in host else host
        self.address = f"http://{shown}:{self.port}/" + f"?token={self.token}" * bool(self.token)
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="swarmsgd-dashboard", daemon=True
        )
        self._thread.start()

    def wait(self) -> None:
        """Until it is closed, or Ctrl-C."""
        while not self.closing.wait(_TICK_S):  # a signal as a wait begins is heeded after it
            pass

    def close(self) -> None:
        """End it; pages that are open are told how it ended."""
        self.closing.set()
        give_up = time.monotonic() + _FAREWELL_S
        for _ in range(MOST_VIEWERS):
            self.viewers.acquire(timeout=max(0.0, give_up - time.monotonic()))
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Dashboard:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @cached_property
    def page(self) -> bytes:
        """The page itself; what it shows comes by `events`."""
        return document(
            f"Run {safe_label(self.folder.absolute().name)}", _BODY, ["page.js", "live.js"],
            "; connect-src 'self'",
        ).encode()  # fmt: skip

    def events(self, speed: float | None, begin_s: float) -> Iterator[dict[str, Any]]:
        """What changed, again and again, until this is closed or a replay is over."""
        replay = None if speed is None else Replaying(self.folder, speed, begin_s=begin_s)
        feed, sent = self.feed if replay is None else Feed(replay), {}
        after = 0
        over = False
        while not over:
            closing = self.closing.is_set()  # what is looked at from here on is the end
            pieces = feed.pieces(last=closing)
            news = [piece for piece in pieces if sent.get(piece.key) != piece.text]
            sent.update((piece.key, piece.text) for piece in news)
            after += replay is not None and replay.over
            over = after > _LAST_S or closing
            yield {
                "t": feed.t,
                "figures_t": feed.figures_t,
                "order": [piece.key for piece in pieces],
                "pieces": [piece._asdict() for piece in news],
                "over": over,
            }
            if not over:
                self.closing.wait(READ_S)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    dashboard: Dashboard

    def handle_error(self, request: object, client_address: object) -> None:
        """A viewer that goes away in the middle of an answer is no error."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "swarmsgd", ""
    timeout = 30

    @property
    def _dashboard(self) -> Dashboard:
        assert isinstance(self.server, _Server)
        return self.server.dashboard

    def do_GET(self) -> None:
        dashboard = self._dashboard
        parts = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        if not self._may(query):
            self._answer(403, b"not allowed: use the address that was printed, with its token\n")
            return
        try:
            match parts.path:
                case "/":
                    self._answer(200, dashboard.page, "text/html; charset=utf-8")
                case "/events":
                    self._events(dashboard, query)
                case "/node":
                    html = dashboard.feed.node(int(query.get("id", "")))
                    self._answer(200, html.encode(), "text/html; charset=utf-8")
                case _:
                    self._answer(404, b"there is no such page\n")
        except (ValueError, SwarmError) as error:
            self._answer(400, f"{error}\n".encode())

    def _may(self, query: dict[str, str]) -> bool:
        """Whether whoever asks may look. A page of another site that had its name resolve to
        this machine would send that name.
        """
        token = self._dashboard.token
        if token:
            return hmac.compare_digest(query.get("token", "").encode(), token.encode())
        name = urlsplit(f"//{self.headers.get('Host', '')}").hostname or ""
        return name == "localhost" or _is_loopback(name)

    def _events(self, dashboard: Dashboard, query: dict[str, str]) -> None:
        speed = float(query["speed"]) if "speed" in query else None
        begin_s = float(query.get("from", "0"))
        number("speed", 1.0 if speed is None else speed, least=0.01, most=1e6)
        number("from", begin_s, least=0.0, most=1e9)
        if not dashboard.viewers.acquire(blocking=False):
            self._answer(503, b"too many pages are open: close one\n")
            return
        try:
            states = dashboard.events(speed, begin_s)
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Cache-Control", "no-store")
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            for state in states:
                self.wfile.write(f"data: {json.dumps(state)}\n\n".encode())
                self.wfile.flush()
        except (OSError, SwarmError):
            pass  # the viewer is gone, or the folder
        finally:
            dashboard.viewers.release()

    def _answer(self, code: int, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
        with contextlib.suppress(OSError):
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("Referrer-Policy", "no-referrer")
            self.send_header("X-Frame-Options", "DENY")
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing on the console of the run."""


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def serve(folder: Path, host: str, port: int) -> None:
    """Show the run in `folder` until Ctrl-C."""
    with Dashboard(folder, host=host, port=port) as dashboard:
        print(f"{folder} is shown at {dashboard.address} (Ctrl-C ends it)", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            dashboard.wait()


_OPTIONS = "".join(f'<option value="{speed}">replay × {speed}</option>' for speed in _SPEEDS)
_BODY = f"""\
<nav class="legend live" aria-label="What is shown">
<span id="state" role="status">connecting</span>
<button id="pause" aria-pressed="false">pause</button>
<label>show <select id="speed"><option value="">live</option>{_OPTIONS}</select></label>
<span class="hint">click a node for its details</span>
</nav>
<div id="headline"></div>
<div id="figures" class="row"></div>
<div id="tables"></div>
<dialog id="detail"><button id="close" aria-label="close">×</button><div></div></dialog>
"""
