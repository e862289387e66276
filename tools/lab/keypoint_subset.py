"""Reduces COCO keypoint files to a subset of their keypoints, as an example of a custom skeleton.

python -m tools.lab.keypoint_subset FILE.json ... --keypoints nose left_wrist right_wrist --out FOLDER

Each output file has the name of its input file. The category has keypoint names and limbs, but no sigmas and no flip
pairs, which are derived from the names.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from posedy.files import write_json_atomically
from tools.lab.entry import run_and_exit


def keypoint_subset(content: Mapping[str, Any], keypoints: Sequence[str]) -> dict[str, Any]:
    """Returns a COCO keypoint file with a subset of its keypoints.

    Args:
        content: content of a file with one category that has keypoints.
        keypoints: names of the keypoints to keep, in the order of the new file.

    Raises:
        ValueError: if the file does not have one of the keypoints.
    """
    (category,) = (category for category in content["categories"] if category.get("keypoints"))
    names = category["keypoints"]
    unknown = [name for name in keypoints if name not in names]
    if unknown:
        raise ValueError(f"unknown keypoint {unknown[0]!r}; the file has {', '.join(names)}")
    indices = [names.index(name) for name in keypoints]
    new_index = {old + 1: new + 1 for new, old in enumerate(indices)}  # limb indices start at 1 in COCO
    limbs = [[new_index[a], new_index[b]] for a, b in category.get("skeleton", []) if a in new_index and b in new_index]
    annotations = []
    for record in content["annotations"]:
        triplets = np.array(record["keypoints"]).reshape(-1, 3)[indices]
        annotations.append(
            record | {"keypoints": triplets.ravel().tolist(), "num_keypoints": int((triplets[:, 2] > 0).sum())}
        )
    subset = {"id": category["id"], "name": category["name"], "keypoints": list(keypoints), "skeleton": limbs}
    return {**content, "categories": [subset], "annotations": annotations}


def main(argv: list[str] | None = None) -> None:
    """Writes the subset of each file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", help="COCO keypoint files")
    parser.add_argument("--keypoints", nargs="+", required=True, help="keypoint names, in the order of the new files")
    parser.add_argument("--out", type=Path, required=True, help="output folder")
    arguments = parser.parse_args(argv)
    for path in arguments.files:
        write_json_atomically(
            arguments.out / path.name, keypoint_subset(json.loads(path.read_bytes()), arguments.keypoints)
        )
        print(f"wrote {arguments.out / path.name}")


if __name__ == "__main__":
    run_and_exit(main, "keypoint_subset")
