"""`python -m pyserver`: the command line, where no script is installed."""

import sys

from pyserver.cli import main

if __name__ == "__main__":
    sys.exit(main())
