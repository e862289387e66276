"""Draw the keypoints of images: `python tools/demo.py image.jpg --checkpoint FILE` is the same as `posedy predict`."""

import sys

from posedy.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["demo", *sys.argv[1:]]))
