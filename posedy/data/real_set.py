"""The real photos that the shipped networks are trained on: a part held out, boxes made whole, persons packed.

The folder that comes in holds `coco/`, COCO's tree or a part of it, and, if there is one, `lspet/`, Leeds Sports Pose
Extended (Johnson and Everingham, CVPR 2011) as a COCO file with its photos in `images/`.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from posedy.data.coco import read_coco
from posedy.data.packing import pack_persons
from posedy.files import write_json_atomically

_DEV_ONE_IN = 5
_QUALITY = 80  # of packed JPEG files
_SHOULDERS, _HIPS = (5, 6), (11, 12)
# from the middle of the hips through that of the shoulders to the top of the head, in lengths of the trunk
_HEAD_TOP = 0.65
_HEAD_WIDTH = 0.25


def prepare_real_set(data: Path, out: Path, progress: bool = False) -> None:
    """Writes dev.json with its photos in dev/, and the packed sets train/ and, if there is one, lspet/.

    Args:
        data: see above.
        out: the folder to write.
        progress: whether to show bars.

    Raises:
        OSError, ValueError: if a set cannot be read or a file cannot be written.
    """
    photos = data / "coco/train2017"
    content = json.loads((data / "coco/annotations/person_keypoints_train2017.json").read_bytes())
    for name, dev in (("train", False), ("dev", True)):
        write_json_atomically(out / f"{name}.json", dev_part(content, dev))
    (out / "dev").mkdir(exist_ok=True)
    for image in dev_part(content, dev=True)["images"]:
        shutil.copyfile(photos / image["file_name"], out / "dev" / image["file_name"])
    pack_persons(read_coco(out / "train.json", photos), out / "train", quality=_QUALITY, progress=progress)
    lspet = data / "lspet/person_keypoints_lspet.json"
    if lspet.is_file():
        write_json_atomically(out / "lspet.json", with_heads(json.loads(lspet.read_bytes())))
        persons = read_coco(out / "lspet.json", data / "lspet/images")
        pack_persons(persons, out / "lspet", quality=_QUALITY, progress=progress)


def dev_part(content: Mapping[str, Any], dev: bool) -> dict[str, Any]:
    """The photos of a COCO file that are held out of training, or all others, with their annotations.

    Held out is every fifth of those that come from COCO's own val2017.
    """
    images = [image for image in content["images"] if _is_dev(image) == dev]
    ids = {image["id"] for image in images}
    annotations = [record for record in content["annotations"] if record["image_id"] in ids]
    return {**content, "images": images, "annotations": annotations}


def _is_dev(image: Mapping[str, Any]) -> bool:
    return image.get("from") == "val2017" and image["id"] % _DEV_ONE_IN == 0


def with_heads(content: Mapping[str, Any]) -> dict[str, Any]:
    """Enlarges boxes made from keypoints without a face, which end at the neck, to hold the head wherever it is."""
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    annotations = []
    for record in content["annotations"]:
        points = np.array(record["keypoints"], dtype=float).reshape(-1, 3)
        left, top, width, height = record["bbox"]
        low, high = np.array([left, top]), np.array([left + width, top + height])
        if (points[[*_SHOULDERS, *_HIPS], 2] > 0).all():
            neck, hips = points[list(_SHOULDERS), :2].mean(axis=0), points[list(_HIPS), :2].mean(axis=0)
            head, radius = neck + _HEAD_TOP * (neck - hips), _HEAD_WIDTH * np.hypot(*(neck - hips)) / 2
            low, high = np.minimum(low, head - radius), np.maximum(high, head + radius)
        low, high = np.maximum(low, 0), np.minimum(high, sizes[record["image_id"]])
        annotations.append(record | {"bbox": np.round([*low, *(high - low)], 2).tolist()})
    return {**content, "annotations": annotations}
