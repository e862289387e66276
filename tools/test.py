"""Evaluate a network: `python tools/test.py CONFIG --checkpoint FILE --out FOLDER` is the same as `posedy test`."""

import sys

from posedy.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["test", *sys.argv[1:]]))
