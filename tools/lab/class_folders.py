"""Sorts labeled images into folders of classes for `posedy train-classifier`: OUT/train, OUT/dev and OUT/val.

    python -m tools.lab.class_folders DATA/actions/boxes.json DATA/actions/images --classes 20 --out data/actions

The labels are `images[].KEY` of a JSON file in COCO's format, such as Stanford 40 Actions (Yao et al., ICCV 2011).
Within each class, in the order of the ids, every fifth image is for validation; of the others, every eighth is for
choices (dev), 10 % of all, and the rest for training.
"""

import argparse
import json
import shutil
from collections import defaultdict
from pathlib import Path

from tools.lab.entry import run_and_exit

_VAL_ONE_IN, _DEV_ONE_IN = 5, 8


def sort_into_folders(
    labels: Path, images: Path, out: Path, key: str = "action", num_classes: int | None = None
) -> dict[str, int]:
    """Copies the images to OUT/SPLIT/CLASS/NAME; returns the number of images of each split.

    Args:
        labels: a JSON file with images[].file_name and images[].KEY.
        images: folder of the images.
        out: output folder.
        key: name of the label.
        num_classes: only the first classes in alphabetical order; None is all.

    Raises:
        OSError: if a file cannot be read or written.
        ValueError: if an image has no label, or there are fewer classes.
    """
    classes: dict[str, list[str]] = defaultdict(list)
    for image in sorted(json.loads(labels.read_bytes())["images"], key=lambda image: image["id"]):
        if key not in image:
            raise ValueError(f"{labels}: image {image['id']} has no {key!r}: choose another --key")
        classes[str(image[key])].append(image["file_name"])
    if num_classes is not None and not 1 <= num_classes <= len(classes):
        raise ValueError(f"expected 1 to {len(classes)} classes, the number in {labels}, got {num_classes}")
    counts = dict.fromkeys(("train", "dev", "val"), 0)
    for name, files in sorted(classes.items())[:num_classes]:
        for file, split in zip(files, split_of_class(len(files)), strict=True):
            folder = out / split / name
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(images / file, folder / Path(file).name)
            counts[split] += 1
    return counts


def split_of_class(count: int) -> list[str]:
    """Returns the split of each of the images of a class."""
    splits, others = [], 0
    for index in range(count):
        if index % _VAL_ONE_IN == _VAL_ONE_IN - 1:
            splits.append("val")
            continue
        splits.append("dev" if others % _DEV_ONE_IN == _DEV_ONE_IN - 1 else "train")
        others += 1
    return splits


def main(argv: list[str] | None = None) -> None:
    """Sorts labeled images into folders of classes."""
    parser = argparse.ArgumentParser(prog="python -m tools.lab.class_folders", description=main.__doc__)
    parser.add_argument("labels", type=Path, help="a JSON file with images[].file_name and images[].KEY")
    parser.add_argument("images", type=Path, help="folder of the images")
    parser.add_argument("--key", default="action", help="name of the label (default: action)")
    parser.add_argument("--classes", type=int, help="the number of classes, in alphabetical order (default: all)")
    parser.add_argument("--out", type=Path, required=True, help="output folder")
    arguments = parser.parse_args(argv)
    counts = sort_into_folders(arguments.labels, arguments.images, arguments.out, arguments.key, arguments.classes)
    print(", ".join(f"{split} {count}" for split, count in counts.items()))


if __name__ == "__main__":
    run_and_exit(main, "class_folders")
