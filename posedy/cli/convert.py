"""`posedy convert`: convert between COCO keypoint files and YOLO pose datasets."""

import argparse
from pathlib import Path
from typing import Any

from posedy.cli.options import add_command

CONTENT = """\
what a conversion keeps:
                            --to yolo                         --to coco
  boxes, keypoints          to 1e-6 pixels                    to 1e-6 pixels
  visibility v              0, 1, 2 as they are               0, 1, 2; labels without v: 2, and 0 at x = y = 0
  x, y where v is 0         written as 0                      written as 0
  keypoints outside         moved by up to 1 pixel, or v = 0  kept up to 1 % of the image's size, else an error
  boxes that exceed         clipped if the center or the      kept
    their image             size exceeds it
  images without persons    an empty label file               images; a missing label file is no error
  keypoint names            kpt_names                         kpt_names; COCO's if flip_idx is that of COCO's 17
                                                              keypoints, else keypoint_0, keypoint_1, ...
  flip pairs                flip_idx                          flip_idx
  limbs, sigmas, half body  lost                              only of COCO's 17 keypoints
  classes                   one, number 0                     one: the only one, person or --class; others are left out
  crowds                    left out                          none (iscrowd is 0)
  segmentation              lost                              none
  area                      lost                              area of the box
  ids of images, persons    lost                              numbered from 1 in the order of the files
  EXIF orientation          labels of the upright image, as   pixels as stored, as in COCO
                            YOLO trainers read images"""
"""The table in the command's help."""

_EXAMPLE = """
posedy convert my/yolo --to coco --split train --out my/train.json
posedy convert my/train.json --to yolo --images my/images --out my/yolo
"""


def register_parser(commands: Any) -> None:
    """Adds the command to the main parser."""
    parser = add_command(commands, "convert", "convert keypoints between COCO and YOLO pose files", _EXAMPLE)
    parser.epilog = f"{CONTENT}\n\n{parser.epilog}"
    parser.set_defaults(run=run)
    parser.add_argument(
        "source",
        type=Path,
        metavar="SOURCE",
        help="a COCO keypoint file, or the folder or data.yaml of a YOLO pose dataset",
    )
    parser.add_argument("--to", required=True, choices=("coco", "yolo"), help="the format to write")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="OUT",
        help="the JSON file to write, which must not exist; for YOLO a folder: missing, empty, or with the other split "
        "of the same keypoints",
    )
    parser.add_argument(
        "--split",
        choices=("train", "val", "test"),
        default="train",
        help="the split of the YOLO dataset to read or write (default: train; test can only be read)",
    )
    parser.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="the folder that file names in the COCO file are relative to. To YOLO: its images are linked; without it "
        "only labels are written, and EXIF orientation is ignored. To COCO: the default is the split's image folder",
    )
    parser.add_argument("--copy", action="store_true", help="to YOLO: copy the images instead of linking them")
    parser.add_argument(
        "--class", dest="class_name", metavar="NAME", help="to COCO: the class to convert, of several (default: person)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the command.

    Raises:
        OSError, ValueError: if the source is invalid, or the output exists or cannot be written.
    """
    parser = arguments.parser
    if arguments.to == "coco":
        if arguments.copy:
            parser.error("--copy is only for --to yolo: a COCO file refers to the images where they are")
        if arguments.out.suffix.lower() != ".json":
            parser.error(f"--out: expected FILE.json for --to coco, got {arguments.out}")
        _convert_to_coco(arguments)
    else:
        if arguments.class_name is not None:
            parser.error("--class is only for --to coco: a COCO keypoint file has one category")
        if arguments.split == "test":
            parser.error("--split test is only for --to coco: choose train or val")
        if arguments.copy and arguments.images is None:
            parser.error("--copy needs --images DIR, the folder to copy from")
        _convert_to_yolo(arguments)
    return 0


def _convert_to_coco(arguments: argparse.Namespace) -> None:
    from posedy.data.check import validate
    from posedy.data.coco_file import CocoFile
    from posedy.data.issues import format_reasons
    from posedy.data.yolo import read_yolo
    from posedy.files import check_writable, write_json_atomically

    out = arguments.out
    check_writable(out)
    if out.exists():
        raise FileExistsError(f"{out} exists: choose another file")
    converted = read_yolo(arguments.source, arguments.split, arguments.images, arguments.class_name)
    report = validate(CocoFile.from_content(converted.content, str(out)), None).report
    report.raise_errors()
    write_json_atomically(out, converted.content)
    print(report.summary)
    if any(converted.left_out.values()):
        print(f"objects left out: {format_reasons(converted.left_out)}")
    for note in (*converted.notes, *report.warnings):
        print(note)
    print(f"wrote {out}; its image folder is {converted.image_dir}")


def _convert_to_yolo(arguments: argparse.Namespace) -> None:
    from posedy.data.issues import format_reasons
    from posedy.data.yolo import write_yolo

    out, images, split = arguments.out, arguments.images, arguments.split
    written = write_yolo(arguments.source, out, images, split, arguments.copy)
    print(f"{written.num_images} images, {written.num_persons} persons")
    for heading, counts in (("left out", written.left_out), ("changed", written.changed)):
        if any(counts.values()):
            print(f"{heading}: {format_reasons(counts)}")
    for note in written.notes:
        print(note)
    if images is None:
        print(f"labels only: put the images into {out / 'images' / split} under the names in {arguments.source}")
    print(f"wrote {out / 'data.yaml'} and split {split}")
