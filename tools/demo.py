"""Draws the keypoints of photos: `python tools/demo.py photo.jpg --checkpoint FILE`, the same as `posedy demo`."""

import sys

from posedy.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["demo", *sys.argv[1:]]))
