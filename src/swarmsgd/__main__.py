"""`python -m swarmsgd` is `swarmsgd`."""

import sys

from swarmsgd.cli import main

if __name__ == "__main__":
    sys.exit(main())
