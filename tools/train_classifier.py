"""Train an image classifier: `python tools/train_classifier.py ...` is the same as `posedy train-classifier`."""

import sys

from posedy.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train-classifier", *sys.argv[1:]]))
