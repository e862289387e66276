"""Prepares the training data of the pretrained networks: dev split, boxes extended to the head, packed persons.

The input folder contains `coco/`, COCO's folders or a subset of them, and optionally `lspet/`, Leeds Sports Pose
Extended (Johnson and Everingham, CVPR 2011) as a COCO file with its images in `images/`; `actions/`, Stanford 40
Actions (Yao et al., ICCV 2011) as a COCO file of boxes; and `teacher/`, keypoints predicted by a teacher network for
the persons of these sets.
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
"""Minimum score of keypoints predicted by the teacher.

On dev, 70 % of MoveNet Thunder's keypoints with scores of 0.5 to 0.6 lie within 5 % of sqrt(box area) of the labels,
and 59 % of those with 0.4 to 0.5 (`python -m tools.lab.real_set DATA --agreement`).
"""

_DEV_ONE_IN = 5
_QUALITY = 80  # JPEG quality of packed images
_SHOULDERS, _HIPS = (5, 6), (11, 12)
# distance from the center of the shoulders to the top of the head, along the trunk, in trunk lengths
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
    """Writes dev.json with its images in dev/, and the packed sets train/, lspet/ and actions/ if their data exist.

    If `data` has teacher/NAME.json, {annotation id: K x [x, y, score]}, unlabeled keypoints of the set NAME are filled
    with the teacher's, see `add_teacher_keypoints`; dev keeps the original labels only.

    Args:
        data: the input folder, see the module's docstring.
        out: output folder.
        reserved: ids of COCO images that must not be used for training.
        teacher_threshold: minimum score of a teacher's keypoint used as a label.
        progress: whether to show progress bars.

    Raises:
        OSError, ValueError: if a set cannot be read or a file cannot be written.
    """
    images = data / "coco/train2017"
    content = remove_images(_read(data / "coco/annotations/person_keypoints_train2017.json"), reserved)
    dev = select_dev(content, dev=True)
    write_json_atomically(out / "dev.json", dev)
    (out / "dev").mkdir(exist_ok=True)
    for image in dev["images"]:
        shutil.copyfile(images / image["file_name"], out / "dev" / image["file_name"])
    sets = {"train": (select_dev(content, dev=False), images)}
    lspet = data / "lspet/person_keypoints_lspet.json"
    if lspet.is_file():
        sets["lspet"] = extend_boxes_to_head(_read(lspet)), data / "lspet/images"
    actions = data / "actions/boxes.json"
    if actions.is_file() and (data / "teacher/actions.json").is_file():
        sets["actions"] = clear_keypoints(_read(actions), content["categories"]), data / "actions/images"
    for name, (labels, folder) in sets.items():
        teacher = data / f"teacher/{name}.json"
        if teacher.is_file():
            labels = add_teacher_keypoints(labels, _read(teacher), teacher_threshold)
        if not any(any(person["keypoints"][2::3]) for person in labels["annotations"]):
            print(f"left out: no person of {name} has a keypoint; files of an earlier call stay")
            continue
        write_json_atomically(out / f"{name}.json", labels)
        pack_persons(read_coco(out / f"{name}.json", folder), out / name, quality=_QUALITY, progress=progress)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_bytes())


def remove_images(content: Mapping[str, Any], ids: Collection[int]) -> dict[str, Any]:
    """Returns a COCO file without the given images and their annotations."""
    removed = set(ids)
    images = [image for image in content["images"] if image["id"] not in removed]
    annotations = [record for record in content["annotations"] if record["image_id"] not in removed]
    return {**content, "images": images, "annotations": annotations}


def clear_keypoints(content: Mapping[str, Any], categories: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns a COCO file of person boxes as a keypoint file without labeled keypoints."""
    keypoints = [0] * 3 * len(categories[0]["keypoints"])
    annotations = [record | {"keypoints": keypoints, "num_keypoints": 0} for record in content["annotations"]]
    return {**content, "annotations": annotations, "categories": categories}


def add_teacher_keypoints(
    content: Mapping[str, Any], teacher: Mapping[str, list[list[float]]], threshold: float
) -> dict[str, Any]:
    """Fills unlabeled keypoints of a COCO file with confident keypoints of a teacher, with visibility 1.

    Args:
        content: content of the file; existing labels and crowds are unchanged.
        teacher: {annotation id: K x [x, y, score]} in image pixels; annotations without an entry are unchanged.
        threshold: minimum score; keypoints outside the image are ignored.
    """
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    annotations = []
    for record in content["annotations"]:
        predicted = teacher.get(str(record["id"]))
        if predicted is None or record.get("iscrowd"):
            annotations.append(record)
            continue
        triplets = np.array(record["keypoints"], dtype=float).reshape(-1, 3)
        xy, scores = np.array(predicted)[:, :2], np.array(predicted)[:, 2]
        inside = ((xy >= 0) & (xy <= np.array(sizes[record["image_id"]]) - 1)).all(axis=1)
        filled = (triplets[:, 2] == 0) & (scores >= threshold) & inside
        triplets[filled] = np.column_stack([xy[filled], np.ones(filled.sum())])
        count = int((triplets[:, 2] > 0).sum())
        annotations.append(record | {"keypoints": triplets.ravel().tolist(), "num_keypoints": count})
    return {**content, "annotations": annotations}


def teacher_agreement(
    content: Mapping[str, Any], teacher: Mapping[str, list[list[float]]], bounds: Sequence[float]
) -> list[dict[str, float]]:
    """Returns the agreement of a teacher's keypoints with the labels, in bins of the score.

    Args:
        content: content of a labeled COCO file.
        teacher: see `add_teacher_keypoints`.
        bounds: lower bounds of the score bins, ascending.

    Returns:
        For each bin its lower bound, the number of labeled keypoints, and the fractions of them within 5 and 10 % of
        sqrt(box area) of the label.
    """
    rows = []
    for record in content["annotations"]:
        if str(record["id"]) not in teacher or not record["num_keypoints"]:
            continue
        triplets = np.array(record["keypoints"], dtype=float).reshape(-1, 3)
        predicted = np.array(teacher[str(record["id"])])
        distance = np.hypot(*(triplets[:, :2] - predicted[:, :2]).T) / np.sqrt(np.prod(record["bbox"][2:]))
        rows.append(np.column_stack([predicted[:, 2], distance])[triplets[:, 2] > 0])
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


def select_dev(content: Mapping[str, Any], dev: bool) -> dict[str, Any]:
    """Returns the dev split of a COCO file (`dev=True`) or the remaining images, with their annotations.

    Dev images are those of COCO's val2017 whose id is divisible by 5; they are held out of training.
    """
    images = [image for image in content["images"] if _is_dev(image) == dev]
    ids = {image["id"] for image in images}
    annotations = [record for record in content["annotations"] if record["image_id"] in ids]
    return {**content, "images": images, "annotations": annotations}


def _is_dev(image: Mapping[str, Any]) -> bool:
    return image.get("from") == "val2017" and image["id"] % _DEV_ONE_IN == 0


def extend_boxes_to_head(content: Mapping[str, Any]) -> dict[str, Any]:
    """Extends boxes computed from keypoints without a face, which end at the neck, to include the head."""
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    annotations = []
    for record in content["annotations"]:
        triplets = np.array(record["keypoints"], dtype=float).reshape(-1, 3)
        left, top, width, height = record["bbox"]
        low, high = np.array([left, top]), np.array([left + width, top + height])
        if (triplets[[*_SHOULDERS, *_HIPS], 2] > 0).all():
            neck, hips = triplets[list(_SHOULDERS), :2].mean(axis=0), triplets[list(_HIPS), :2].mean(axis=0)
            head, radius = neck + _HEAD_TOP * (neck - hips), _HEAD_WIDTH * np.hypot(*(neck - hips)) / 2
            low, high = np.minimum(low, head - radius), np.maximum(high, head + radius)
        low, high = np.maximum(low, 0), np.minimum(high, sizes[record["image_id"]])
        annotations.append(record | {"bbox": np.round([*low, *(high - low)], 2).tolist()})
    return {**content, "annotations": annotations}


RESERVED = Path(__file__).parents[2] / "data/coco_mini/images.json"
"""Ids of the images of examples and tests, excluded from training and model selection."""


def print_agreement(data: Path) -> None:
    """Prints the agreement of the teacher's keypoints with the labels of dev, in bins of the score."""
    labels = json.loads((data / "coco/annotations/person_keypoints_train2017.json").read_bytes())
    teacher = json.loads((data / "teacher/train.json").read_bytes())
    print("min. score  keypoints  within 5 %  within 10 % of sqrt(box area)")
    for row in teacher_agreement(select_dev(labels, dev=True), teacher, [tenth / 10 for tenth in range(9)]):
        print(
            f"{row['score']:10.1f} {row['keypoints']:10.0f} {row['within_5_percent']:11.2f} "
            f"{row['within_10_percent']:12.2f}"
        )


def main(argv: list[str] | None = None) -> None:
    """Prepares the datasets, or prints the agreement of the teacher's keypoints with the labels."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.lab.real_set", description="Prepare the datasets of configs/real/."
    )
    parser.add_argument("data", type=Path, help="folder with coco/ (COCO's folders), lspet/, actions/ and teacher/")
    parser.add_argument("--out", type=Path, default=Path("data/real"), help="output folder (default: %(default)s)")
    parser.add_argument(
        "--teacher-threshold",
        type=float,
        default=TEACHER_THRESHOLD,
        help="minimum score of a teacher's keypoint used as a label (default: %(default)s; above 1 for none)",
    )
    parser.add_argument(
        "--agreement", action="store_true", help="only print the agreement of the teacher with the labels"
    )
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
