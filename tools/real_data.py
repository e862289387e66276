"""Prepares real images for configs/real/: `python tools/real_data.py DATA --out data/real`."""

import argparse
import json
import sys
from pathlib import Path

from posedy.data.real_set import TEACHER_THRESHOLD, dev_part, prepare_real_set, teacher_agreement

RESERVED = Path(__file__).parents[1] / "data/coco_mini/images.json"
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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="the folder with coco/ (COCO's tree), lspet/, actions/ and teacher/")
    parser.add_argument("--out", type=Path, default=Path("data/real"), help="the folder to write")
    parser.add_argument(
        "--teacher-threshold",
        type=float,
        default=TEACHER_THRESHOLD,
        help="lowest score of a teacher's keypoint that becomes a label (default: %(default)s; over 1 for none)",
    )
    parser.add_argument("--agreement", action="store_true", help="only print how far the teacher is from labels")
    arguments = parser.parse_args()
    try:
        if arguments.agreement:
            print_agreement(arguments.data)
        else:
            prepare_real_set(
                arguments.data,
                arguments.out,
                reserved=json.loads(RESERVED.read_bytes())["train2017"],
                teacher_threshold=arguments.teacher_threshold,
                progress=True,
            )
    except (OSError, ValueError) as error:
        sys.exit(f"real_data: {error}")
