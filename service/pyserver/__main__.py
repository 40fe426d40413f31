"""`python -m pyserver`: the command line, where no script is installed."""

import gc
import sys

gc.disable()  # what is loaded now stays; pyserver.cli, or the master, turns it on again

from pyserver.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
