"""The commands that show runs: `swarmsgd report` and `swarmsgd dashboard`."""

from __future__ import annotations

from pathlib import Path

from swarmsgd.flags import Parser
from swarmsgd.observe.folder import REPORT, check_begun, record_files
from swarmsgd.observe.ports import LOOPBACK, PORT


def report(arguments: list[str]) -> int:
    """The command `swarmsgd report`; its exit code."""
    parser = Parser(
        "report",
        arguments,
        description="Make one HTML file of a run, or of several side by side. It needs no network.",
        epilog="exit code: 0; 2 if a folder is no run's, or its files are damaged",
    )
    add = parser.add_argument
    add("folders", metavar="DIR", nargs="+", type=Path, help="folder of a train or simulate run")
    add("--out", type=Path, help=f"file (default: {REPORT} in DIR, or {REPORT} here if several)")
    given = parser.parse()
    for folder in given.folders:
        record_files(folder)  # is told before the plots are loaded, which takes seconds
    from swarmsgd.observe.run_page import report_of

    one = given.folders[0] / REPORT if len(given.folders) == 1 else Path(REPORT)
    print(f"written to {report_of(given.folders, given.out or one)}")
    return 0


def dashboard(arguments: list[str]) -> int:
    """The command `swarmsgd dashboard`; its exit code."""
    parser = Parser(
        "dashboard",
        arguments,
        description="Show a run on a page of this machine while it goes on, or tell a finished one "
        "again. The page changes nothing.",
        epilog="exit code: 0; 2 if DIR is no run's folder, or the port is taken",
    )
    add = parser.add_argument
    add("folder", metavar="DIR", type=Path, help="folder of a train or simulate run")
    add("--port", type=int, default=PORT, help="port (default: %(default)s); 0: a free one")
    add("--host", default=LOOPBACK,
        help="address to listen on (default: %(default)s, which no other machine reaches); on "
        "another one only whoever has the token of the printed address is answered")  # fmt: skip
    given = parser.parse()
    check_begun(given.folder)
    from swarmsgd.observe.server import serve

    serve(given.folder, given.host, given.port)
    return 0
