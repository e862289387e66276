"""COCO keypoint files with some of their keypoints only, as files with keypoints of one's own look.

python -m tools.lab.keypoint_subset FILE.json ... --keypoints nose left_wrist right_wrist --out FOLDER

writes a file of the same name into FOLDER for each. The category has names and limbs, but neither sigmas nor left and
right pairs, which the names tell.
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
    """A COCO keypoint file with some of its keypoints.

    Args:
        content: with one category that has keypoints.
        keypoints: their names, in the order of the new file.

    Raises:
        ValueError: if the file has no keypoint of a name.
    """
    (category,) = (category for category in content["categories"] if category.get("keypoints"))
    names = category["keypoints"]
    unknown = [name for name in keypoints if name not in names]
    if unknown:
        raise ValueError(f"the file has no keypoint {unknown[0]!r}; it has {', '.join(names)}")
    indices = [names.index(name) for name in keypoints]
    place = {index + 1: new + 1 for new, index in enumerate(indices)}  # COCO's limbs count from 1
    limbs = [[place[a], place[b]] for a, b in category.get("skeleton", []) if a in place and b in place]
    annotations = []
    for record in content["annotations"]:
        points = np.array(record["keypoints"]).reshape(-1, 3)[indices]
        annotations.append(
            record | {"keypoints": points.ravel().tolist(), "num_keypoints": int((points[:, 2] > 0).sum())}
        )
    subset = {"id": category["id"], "name": category["name"], "keypoints": list(keypoints), "skeleton": limbs}
    return {**content, "categories": [subset], "annotations": annotations}


def main(argv: list[str] | None = None) -> None:
    """Reads, selects, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", help="COCO keypoint files")
    parser.add_argument("--keypoints", nargs="+", required=True, help="names, in the order of the new file")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    arguments = parser.parse_args(argv)
    for path in arguments.files:
        write_json_atomically(
            arguments.out / path.name, keypoint_subset(json.loads(path.read_bytes()), arguments.keypoints)
        )
        print(f"wrote {arguments.out / path.name}")


if __name__ == "__main__":
    run_and_exit(main, "keypoint_subset")
