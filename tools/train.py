"""Train a network: `python tools/train.py CONFIG key=value ... --out RUN` is the same as `posedy train`."""

import sys

from posedy.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
