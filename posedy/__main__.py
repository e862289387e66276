"""`python -m posedy` is the command `posedy`."""

import sys

from posedy.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
