"""Prepares real photos for configs/real/: `python tools/real_data.py DATA --out data/real`."""

import argparse
import sys
from pathlib import Path

from posedy.data.real_set import prepare_real_set

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="the folder with coco/ (COCO's tree) and, if there is one, lspet/")
    parser.add_argument("--out", type=Path, default=Path("data/real"), help="the folder to write")
    arguments = parser.parse_args()
    try:
        prepare_real_set(arguments.data, arguments.out, progress=True)
    except (OSError, ValueError) as error:
        sys.exit(f"real_data: {error}")
