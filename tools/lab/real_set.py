"""The real photos that the shipped networks are trained on: a part held out, boxes made whole, persons packed.

The folder that comes in holds `coco/`, COCO's tree or a part of it, and, if they exist, `lspet/`, Leeds Sports Pose
Extended (Johnson and Everingham, CVPR 2011) as a COCO file with its images in `images/`; `actions/`, Stanford 40
Actions (Yao et al., ICCV 2011) as a COCO file of boxes; and `teacher/`, a network's keypoints for the persons of the
three.
"""

import argparse
import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from posedy.data.coco import read_coco
from posedy.files import write_json_atomically
from tools.lab.entry import run_and_exit
from tools.lab.packing import pack_persons

TEACHER_THRESHOLD = 0.5
"""At scores of 0.5 to 0.6, 70 % of MoveNet Thunder's keypoints lie within 5 % of sqrt(box area) of the labels of dev,
and 59 % at 0.4 to 0.5 (`python -m tools.lab.real_set DATA --agreement`)."""

_DEV_ONE_IN = 5
_QUALITY = 80  # of packed JPEG files
_SHOULDERS, _HIPS = (5, 6), (11, 12)
# from the middle of the hips through that of the shoulders to the top of the head, in lengths of the trunk
_HEAD_TOP = 0.65
_HEAD_WIDTH = 0.25


def prepare_real_set(
    data: Path,
    out: Path,
    *,
    reserved: Collection[int] = (),
    teacher_threshold: float = TEACHER_THRESHOLD,
    progress: bool = False,
) -> None:
    """Writes dev.json with its images in dev/, and the packed sets train/, lspet/ and actions/, as far as they exist.

    Where `data` has teacher/NAME.json, {annotation id: K x [x, y, score]}, keypoints without a label get the teacher's
    where its score is high enough, see `with_teacher_keypoints`; dev keeps its labels alone.

    Args:
        data: see above.
        out: the folder to write.
        reserved: ids of COCO images that no training may use.
        teacher_threshold: the lowest score of a teacher's keypoint that becomes a label.
        progress: whether to show bars.

    Raises:
        OSError, ValueError: if a set cannot be read or a file cannot be written.
    """
    images = data / "coco/train2017"
    content = without_images(_read(data / "coco/annotations/person_keypoints_train2017.json"), reserved)
    dev = dev_part(content, dev=True)
    write_json_atomically(out / "dev.json", dev)
    (out / "dev").mkdir(exist_ok=True)
    for image in dev["images"]:
        shutil.copyfile(images / image["file_name"], out / "dev" / image["file_name"])
    sets = {"train": (dev_part(content, dev=False), images)}
    lspet = data / "lspet/person_keypoints_lspet.json"
    if lspet.is_file():
        sets["lspet"] = with_heads(_read(lspet)), data / "lspet/images"
    actions = data / "actions/boxes.json"
    if actions.is_file() and (data / "teacher/actions.json").is_file():
        sets["actions"] = without_labels(_read(actions), content["categories"]), data / "actions/images"
    for name, (labels, folder) in sets.items():
        teacher = data / f"teacher/{name}.json"
        if teacher.is_file():
            labels = with_teacher_keypoints(labels, _read(teacher), teacher_threshold)
        write_json_atomically(out / f"{name}.json", labels)
        pack_persons(read_coco(out / f"{name}.json", folder), out / name, quality=_QUALITY, progress=progress)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_bytes())


def without_images(content: Mapping[str, Any], ids: Collection[int]) -> dict[str, Any]:
    """A COCO file without some of its images and their annotations."""
    left_out = set(ids)
    images = [image for image in content["images"] if image["id"] not in left_out]
    annotations = [record for record in content["annotations"] if record["image_id"] not in left_out]
    return {**content, "images": images, "annotations": annotations}


def without_labels(content: Mapping[str, Any], categories: list[dict[str, Any]]) -> dict[str, Any]:
    """A COCO file of person boxes as one of keypoints, none of which is labeled."""
    keypoints = [0] * 3 * len(categories[0]["keypoints"])
    annotations = [record | {"keypoints": keypoints, "num_keypoints": 0} for record in content["annotations"]]
    return {**content, "annotations": annotations, "categories": categories}


def with_teacher_keypoints(
    content: Mapping[str, Any], teacher: Mapping[str, list[list[float]]], threshold: float
) -> dict[str, Any]:
    """A COCO file whose unlabeled keypoints are a teacher's, with visibility 1, where it is confident.

    Args:
        content: the file; labels stay as they are, and so do crowds.
        teacher: {annotation id: K x [x, y, score]} in image pixels; annotations without an entry stay as they are.
        threshold: the lowest score of a teacher's keypoint that is taken, if it lies inside the image.
    """
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    annotations = []
    for record in content["annotations"]:
        predicted = teacher.get(str(record["id"]))
        if predicted is None or record.get("iscrowd"):
            annotations.append(record)
            continue
        points = np.array(record["keypoints"], dtype=float).reshape(-1, 3)
        xy, scores = np.array(predicted)[:, :2], np.array(predicted)[:, 2]
        inside = ((xy >= 0) & (xy <= np.array(sizes[record["image_id"]]) - 1)).all(axis=1)
        taken = (points[:, 2] == 0) & (scores >= threshold) & inside
        points[taken] = np.column_stack([xy[taken], np.ones(taken.sum())])
        count = int((points[:, 2] > 0).sum())
        annotations.append(record | {"keypoints": points.ravel().tolist(), "num_keypoints": count})
    return {**content, "annotations": annotations}


def teacher_agreement(
    content: Mapping[str, Any], teacher: Mapping[str, list[list[float]]], bounds: Sequence[float]
) -> list[dict[str, float]]:
    """How far a teacher's keypoints lie from labels, by score.

    Args:
        content: a labeled COCO file.
        teacher: see `with_teacher_keypoints`.
        bounds: of the bins of scores, ascending.

    Returns:
        For each bin its lowest score, the number of labeled keypoints, and the shares of them within 5 and 10 % of
        sqrt(box area) of the label.
    """
    rows = []
    for record in content["annotations"]:
        if str(record["id"]) not in teacher or not record["num_keypoints"]:
            continue
        points, predicted = (
            np.array(record["keypoints"], dtype=float).reshape(-1, 3),
            np.array(teacher[str(record["id"])]),
        )
        distance = np.hypot(*(points[:, :2] - predicted[:, :2]).T) / np.sqrt(np.prod(record["bbox"][2:]))
        rows.append(np.column_stack([predicted[:, 2], distance])[points[:, 2] > 0])
    scores, distances = np.concatenate(rows).T
    bins = np.digitize(scores, bounds) - 1
    return [
        {
            "score": bound,
            "keypoints": int((bins == index).sum()),
            "within_5_percent": float((distances[bins == index] <= 0.05).mean()),
            "within_10_percent": float((distances[bins == index] <= 0.1).mean()),
        }
        for index, bound in enumerate(bounds)
        if (bins == index).any()
    ]


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


RESERVED = Path(__file__).parents[2] / "data/coco_mini/images.json"
"""The ids of images that are for showing and testing: no training and no choice may use them."""


def print_agreement(data: Path) -> None:
    """Prints how far the teacher's keypoints lie from the labels of dev, by score."""
    labels = json.loads((data / "coco/annotations/person_keypoints_train2017.json").read_bytes())
    teacher = json.loads((data / "teacher/train.json").read_bytes())
    print("score from  keypoints  within 5 %  within 10 % of sqrt(box area)")
    for row in teacher_agreement(dev_part(labels, dev=True), teacher, [tenth / 10 for tenth in range(9)]):
        print(
            f"{row['score']:10.1f} {row['keypoints']:10.0f} {row['within_5_percent']:11.2f} "
            f"{row['within_10_percent']:12.2f}"
        )


def main(argv: list[str] | None = None) -> None:
    """Prepares the sets, or prints how far the teacher's keypoints lie from labels."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.lab.real_set", description="Prepares images for configs/real/."
    )
    parser.add_argument("data", type=Path, help="the folder with coco/ (COCO's tree), lspet/, actions/ and teacher/")
    parser.add_argument("--out", type=Path, default=Path("data/real"), help="the folder to write")
    parser.add_argument(
        "--teacher-threshold",
        type=float,
        default=TEACHER_THRESHOLD,
        help="lowest score of a teacher's keypoint that becomes a label (default: %(default)s; over 1 for none)",
    )
    parser.add_argument("--agreement", action="store_true", help="only print how far the teacher is from labels")
    arguments = parser.parse_args(argv)
    if arguments.agreement:
        print_agreement(arguments.data)
        return
    prepare_real_set(
        arguments.data,
        arguments.out,
        reserved=json.loads(RESERVED.read_bytes())["train2017"],
        teacher_threshold=arguments.teacher_threshold,
        progress=True,
    )


if __name__ == "__main__":
    run_and_exit(main, "real_set")
