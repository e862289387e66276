"""Writes data/coco_mini: 48 images of COCO with annotations, for tests, examples and documentation.

python -m tools.lab.coco_mini /data/coco

24 images are of the validation set and are never trained on, 24 are of the training set. All have the license CC BY 2.0
(id 4 in COCO's annotation files). `images.json` lists their ids; `CREDITS.md` names the source of each image. Six of
the validation images are copied to posedy/examples, which names them and is in the wheel.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from posedy.examples import example_images
from posedy.files import write_bytes_atomically, write_json_atomically
from tools.lab.entry import run_and_exit

FOLDER = Path(__file__).parents[2] / "data/coco_mini"
_ANNOTATIONS = "annotations/person_keypoints_{}.json"
_DETECTIONS = "annotations/person_detections_{}.json"
_CC_BY = 4
_CREDITS = """# Credits

The images are from [COCO](https://cocodataset.org), recompressed as JPEG at their original size. Each is the work of a
Flickr user, licensed under [CC BY 2.0](https://creativecommons.org/licenses/by/2.0/); the page of an image names its
author. COCO's annotations are licensed under [CC BY 4.0](https://creativecommons.org/licenses/by/4.0/); those of
`train2017` lack crowds and persons without keypoints. `python -m tools.lab.coco_mini` makes this folder; six images of
`val2017` are also the examples in the package, `posedy/examples/`.

| image | page |
|---|---|
"""


def write_coco_mini(source: Path, target: Path) -> None:
    """Writes the images, annotations, detections and credits.

    Args:
        source: a folder in COCO's layout with the images.
        target: `FOLDER`, with `images.json`.

    Raises:
        OSError: if a file cannot be read or written.
        ValueError: if an image is missing in the annotation files or has another license.
    """
    credits = _CREDITS
    for split, ids in json.loads((target / "images.json").read_text()).items():
        content = json.loads((source / _ANNOTATIONS.format(split)).read_text())
        subset = {**content, "images": [image for image in content["images"] if image["id"] in ids]}
        subset["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] in ids]
        if len(subset["images"]) != len(ids):
            raise ValueError(f"{split}: {len(subset['images'])} of {len(ids)} images are in the annotation file")
        for image in subset["images"]:
            credits += f"| `{split}/{image['file_name']}` | {_page(image)} |\n"
            path = target / split / image["file_name"]
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / split / image["file_name"], path)
        _write(target / _ANNOTATIONS.format(split), subset)
        detections = source / _DETECTIONS.format(split)
        if detections.is_file():
            entries = [entry for entry in json.loads(detections.read_text()) if entry["image_id"] in ids]
            _write(target / _DETECTIONS.format(split), entries)
    write_bytes_atomically(target / "CREDITS.md", credits.encode())


def write_examples(source: Path) -> None:
    """Copies the images of posedy.examples from a written coco_mini.

    Raises:
        OSError: if a file cannot be read or written.
    """
    for image in example_images():
        shutil.copyfile(source / f"val2017/{image.coco_id:012d}.jpg", image.path)


def _page(image: dict[str, Any]) -> str:
    """Returns the page of an image on Flickr."""
    if image.get("license") != _CC_BY:
        raise ValueError(f"image {image['id']} has the license {image.get('license')}, expected {_CC_BY} (CC BY 2.0)")
    return f"https://www.flickr.com/photo.gne?id={Path(image['flickr_url']).name.partition('_')[0]}"


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json_atomically(path, value)


def main(argv: list[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.lab.coco_mini", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="a folder in COCO's layout")
    write_coco_mini(parser.parse_args(argv).source, FOLDER)
    write_examples(FOLDER)


if __name__ == "__main__":
    run_and_exit(main, "coco_mini")
