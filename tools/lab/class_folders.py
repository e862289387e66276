"""Sorts labeled images into folders of classes for `posedy train-classifier`: OUT/train, OUT/dev and OUT/val.

    python -m tools.lab.class_folders DATA/actions/boxes.json DATA/actions/images --classes 20 --out data/actions

The labels are `images[].KEY` of a JSON file in COCO's format, such as Stanford 40 Actions (Yao et al., ICCV 2011).
Within each class, in the order of the ids, every fifth image is for validation; of the others, every eighth is for
choices (dev), 10 % of all, and the rest for training.
"""

import argparse
import json
import shutil
from collections import Counter, defaultdict
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
        ValueError: if an image has no label, names are repeated, there are fewer classes, or `out` is not empty.
    """
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty: choose another --out, since its images would be mixed with the new ones")
    classes = _read_classes(labels, key)
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


def _read_classes(labels: Path, key: str) -> dict[str, list[str]]:
    """Returns the image files of each class, in the order of their ids."""
    contents = json.loads(labels.read_bytes())
    if not isinstance(contents, dict) or not isinstance(contents.get("images"), list):
        raise ValueError(f"{labels}: expected a file in COCO's format, with a list `images`")
    for image in contents["images"]:
        for name in ("id", "file_name"):
            if name not in image:
                raise ValueError(f"{labels}: an image has no {name!r}: {image}")
        if key not in image:
            raise ValueError(f"{labels}: image {image['id']} has no {key!r}: choose another --key")
    classes: dict[str, list[str]] = defaultdict(list)
    for image in sorted(contents["images"], key=lambda image: image["id"]):
        label = str(image[key])
        if not label or label.startswith(".") or Path(label).name != label:
            raise ValueError(f"{labels}: image {image['id']}: {key} {label!r} cannot be the name of a folder")
        classes[label].append(image["file_name"])
    for label, files in classes.items():
        name, count = Counter(Path(file).name for file in files).most_common(1)[0]
        if count > 1:
            raise ValueError(f"{labels}: {count} images of the class {label!r} have the file name {name}")
    return classes


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
