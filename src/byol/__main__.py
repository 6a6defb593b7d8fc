"""`python -m byol` is `byol`."""

import sys

from byol.cli import main

if __name__ == "__main__":
    sys.exit(main())
