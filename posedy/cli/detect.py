"""`posedy detect`: write the person boxes of images to a file for `posedy test` and `posedy predict`."""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

from posedy.cli.options import (
    add_command,
    add_detector,
    add_detector_weights,
    add_device,
    add_import,
    add_json,
    check_detector_weights,
    parse_score,
    write_json,
)

_EXAMPLE = """
posedy detect images/ --out boxes.json
posedy detect val2017/ --annotations person_keypoints_val2017.json --out person_detections_val2017.json --eval
"""


def register_parser(commands: Any) -> None:
    """Adds the command `posedy detect` to the parser of all commands."""
    parser = add_command(commands, "detect", "detect persons in images and write their boxes to a file", _EXAMPLE)
    parser.description = f"{parser.description}\n\nUnder torchrun, each process detects a share of the images."
    parser.set_defaults(run=run)
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image files, folders of images, or glob patterns")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="the file to write: images and annotations in COCO format, in upright pixels, for posedy predict --boxes "
        "FILE; with --annotations a COCO results list, in stored pixels, also for posedy test --boxes FILE",
    )
    parser.add_argument(
        "--annotations",
        type=Path,
        metavar="FILE",
        help="a COCO annotation file with the names and ids of the images; posedy predict requires it with the "
        "results list, which does not list images without persons",
    )
    add_detector(parser)
    add_detector_weights(parser)
    parser.add_argument(
        "--box-threshold",
        type=parse_score,
        metavar="SCORE",
        help="drop boxes with lower scores, from 0 to 1 (default: the detector's threshold for files, 0.05 or less, "
        "since AP counts low scores too)",
    )
    parser.add_argument(
        "--eval",
        action="store_true",
        help="print the AP and recall of the boxes for the persons in --annotations; images that are not given have no "
        "boxes",
    )
    add_device(parser)
    add_import(parser)
    add_json(parser, "the counts")


def run(arguments: argparse.Namespace) -> int:
    """Runs `posedy detect`: writes the boxes of persons in images; returns 1 if an image failed.

    Raises:
        OSError, ValueError: if an argument is invalid or every image failed; nothing is written then.
    """
    check_detector_weights(arguments)
    if arguments.eval and arguments.annotations is None:
        arguments.parser.error("--eval needs --annotations FILE")
    from tqdm import tqdm

    from posedy.data.detections import boxes_to_annotations, boxes_to_results
    from posedy.evaluation.processes import is_main, join_processes
    from posedy.files import check_writable, write_json_atomically
    from posedy.image_paths import image_paths
    from posedy.inference.detect import detect_images, entries_from_annotations, entries_from_paths
    from posedy.inference.detectors import check_detector, create_detector, detector_thresholds
    from posedy.system import local_device

    check_detector(arguments.detector)

    check_writable(arguments.out)
    paths = image_paths(arguments.images)
    for path in (*paths, arguments.annotations, arguments.detector_weights):
        if path is not None and path.resolve() == arguments.out.resolve():
            raise ValueError(f"--out {arguments.out} would overwrite {path}: choose another file")
    if arguments.annotations is not None:
        entries, category = entries_from_annotations(paths, arguments.annotations)
    else:
        entries = entries_from_paths(paths)
    threshold = arguments.box_threshold
    if threshold is None:
        threshold = detector_thresholds(arguments.detector).files
    detector = create_detector(
        arguments.detector, local_device(arguments.device), arguments.detector_weights, threshold
    )
    accelerator = join_processes()
    # tqdm.write keeps the progress bar intact
    warn = partial(tqdm.write, file=sys.stderr)
    detected = detect_images(entries, detector, warn, threshold, accelerator)
    if not is_main(accelerator):
        return 0  # the main process has all boxes
    failed = len(entries) - len(detected)
    if not detected:
        raise ValueError(f"all {failed} images FAILED, nothing was written: see the messages above")
    if arguments.annotations is not None:
        results = boxes_to_results(detected, category)
        write_json_atomically(arguments.out, results)
    else:
        write_json_atomically(arguments.out, boxes_to_annotations(detected))
    numbers: dict[str, float] = {
        "boxes": sum(len(image.boxes) for image in detected),
        "images_with_boxes": sum(len(image.boxes) > 0 for image in detected),
        "images": len(detected),
        "failed": failed,
    }
    print(f"{numbers['boxes']} boxes on {numbers['images_with_boxes']} of {numbers['images']} images")
    print(f"wrote {arguments.out}")
    if arguments.eval:
        from posedy.evaluation.box_eval import FALSE_BOXES, evaluate_boxes

        evaluation = evaluate_boxes(arguments.annotations, results)
        metrics = evaluation.metrics | {f"recall_{count}": evaluation.recall_at(count) for count in FALSE_BOXES}
        print(
            f"persons, {evaluation.num_images} images, boxes with scores from {threshold:g}, pycocotools: "
            + ", ".join(f"{name} {metrics[name]:.3f}" for name in ("AP", "AP50", "AP75"))
        )
        recalls = ", ".join(f"{metrics[f'recall_{count}']:.3f} at {count}" for count in FALSE_BOXES)
        print(f"recall of {evaluation.num_labeled} persons with keypoints (IoU 0.5): {recalls} false boxes per image")
        numbers |= metrics
    write_json(arguments.json, numbers)
    if failed:
        print(f"posedy detect: FAILED: {failed} of {len(entries)} images, see the messages above", file=sys.stderr)
    return int(failed > 0)
