"""`python -m swarmsgd` is `swarmsgd`."""

import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # the working folder: a token.py there is not Python's own
    from swarmsgd.cli import main

    sys.exit(main())
