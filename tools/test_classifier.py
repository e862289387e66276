"""Test an image classifier: `python tools/test_classifier.py ...` is the same as `posedy test-classifier`."""

import sys

from posedy.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["test-classifier", *sys.argv[1:]]))
