"""Splits the persons.jpg of `posedy test` into its three rows, for docs/gallery.md.

posedy test configs/real/fine_tune.yaml data.root=data/coco_mini --checkpoint balanced --boxes gt --out runs/mini
python -m tools.docs.gallery runs/mini/persons.jpg docs/images     # best.jpg, median.jpg, worst.jpg
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from posedy.files import write_bytes_atomically
from posedy.images import read_image
from tools.lab.entry import run_and_exit
from tools.lab.example_grid import encode_jpeg

ROWS = ("best", "median", "worst")
_MAX_BYTES = 250_000


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the rows.

    Raises:
        OSError, ValueError: if the image cannot be read, or does not have three rows of equal height.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tools.docs.gallery", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("persons", type=Path, help="persons.jpg of posedy test")
    parser.add_argument("folder", type=Path, help="the folder to write best.jpg, median.jpg and worst.jpg to")
    parsed = parser.parse_args(arguments)
    image = read_image(parsed.persons)
    if len(image) % len(ROWS):
        raise ValueError(f"{parsed.persons}: expected {len(ROWS)} rows of equal height, got {len(image)} pixels")
    for name, row in zip(ROWS, image.reshape(len(ROWS), -1, *image.shape[1:]), strict=True):
        jpeg = encode_jpeg(row, _MAX_BYTES)
        write_bytes_atomically(parsed.folder / f"{name}.jpg", jpeg)
        print(f"wrote {parsed.folder / name}.jpg: {len(jpeg) / 1000:.0f} kB")


if __name__ == "__main__":
    run_and_exit(main, "gallery")
