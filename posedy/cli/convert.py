"""`posedy convert`: convert YOLO pose datasets and exports of annotation tools to COCO files, or COCO to YOLO."""

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posedy.cli.options import add_command

if TYPE_CHECKING:
    from posedy.data.conversion import ConvertedFile

CONTENT = """\
what a conversion between COCO and YOLO keeps:
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
                            YOLO trainers read images

what a conversion of an annotation tool's export to COCO keeps:
               cvat             label-studio      labelme           deeplabcut    csv
  source       annotations.xml  JSON, not         folder or .json   CSV, project  image, NAME_x,
               or zip of it     JSON-MIN                            or folder     NAME_y columns
  persons      skeleton,        parentID,         group_id          individuals   a row each
               group_id         relations
  v = 1        occluded         choice occluded   flag occluded     never         NAME_v is 1
  v = 0        outside          not labeled       not labeled       empty cells   empty cells
  boxes        of group_id      rectanglelabels   rectangle         none          none
  names        in their order   no order (*)      no order (*)      in order      in order
  limbs        edges of svg     none              none              lost          none
  image size   kept             kept              kept              image files   image files
  coordinates  upright image    upright image     upright image     as stored     as stored
  lost         tracks, masks,   other regions,    other shapes,     scorer        -
               attributes       predictions       flags, imageData
(*) that of COCO's 17 keypoints if the names are theirs, else of the first appearance; --keypoints sets it.
Keypoints are exact to 1e-6 pixels. A person without a box has the one around the keypoints, with a margin on each side
of 10 % of their larger extent and at least 1 % of the image's longer side; areas are those of the boxes. Keypoints
without a group belong to the only box around them. Flip pairs come from the names. Coordinates of the upright image
are converted to pixels as stored if the image files are given (EXIF orientation)."""
"""The tables in the command's help."""

_EXAMPLE = """
posedy convert my/yolo --to coco --split train --out my/train.json
posedy convert annotations.xml --to coco --images my/images --out my/train.json
posedy convert my/train.json --to yolo --images my/images --out my/yolo
"""
_FORMATS = ("coco", "yolo", "cvat", "label-studio", "labelme", "deeplabcut", "csv")


def register_parser(commands: Any) -> None:
    """Adds the command `posedy convert` to the parser of all commands."""
    parser = add_command(
        commands, "convert", "convert keypoints of YOLO and of annotation tools to COCO, and COCO to YOLO", _EXAMPLE
    )
    parser.epilog = f"{CONTENT}\n\n{parser.epilog}"
    parser.set_defaults(run=run)
    parser.add_argument(
        "source",
        type=Path,
        metavar="SOURCE",
        help="a COCO keypoint file, the folder or data.yaml of a YOLO pose dataset, or an export of an annotation tool",
    )
    parser.add_argument(
        "--from",
        dest="source_format",
        choices=_FORMATS,
        help="the format of SOURCE (default: found by its suffix and content)",
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
        help="the split of the YOLO dataset to read or write (default: train; test can only be read)",
    )
    parser.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="the folder that file names in the COCO file are relative to. To YOLO: its images are linked; without it "
        "only labels are written, and EXIF orientation is ignored. To COCO: the default is the folder that the source "
        "names, or its own",
    )
    parser.add_argument("--copy", action="store_true", help="to YOLO: copy the images instead of linking them")
    parser.add_argument(
        "--class",
        "--label",
        dest="class_name",
        metavar="NAME",
        help="to COCO: the class or label to convert, of several (default: person)",
    )
    parser.add_argument(
        "--keypoints",
        type=_parse_names,
        metavar="A,B,C",
        help="from an annotation tool: all keypoint names in their order",
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs `posedy convert`: converts keypoints of YOLO and of annotation tools to COCO, and COCO to YOLO.

    Raises:
        OSError, ValueError: if the source is invalid, or the output exists or cannot be written.
    """
    parser = arguments.parser
    if arguments.to == "coco":
        if arguments.copy:
            parser.error("--copy is only for --to yolo: a COCO file refers to the images where they are")
        if arguments.out.suffix.lower() != ".json":
            parser.error(f"--out: expected FILE.json for --to coco, got {arguments.out}")
        if arguments.source_format == "coco":
            parser.error("--from coco is only for --to yolo: choose the format of another source")
        _convert_to_coco(arguments)
    else:
        if arguments.source_format not in (None, "coco"):
            parser.error(f"--to yolo is only from coco: convert {arguments.source} to COCO first")
        if arguments.class_name is not None:
            parser.error("--class is only for --to coco: a COCO keypoint file has one category")
        if arguments.keypoints is not None:
            parser.error("--keypoints is only for --to coco: a COCO keypoint file names its keypoints")
        if arguments.split == "test":
            parser.error("--split test is only for --to coco: choose train or val")
        if arguments.copy and arguments.images is None:
            parser.error("--copy needs --images DIR, the folder to copy from")
        _convert_to_yolo(arguments)
    return 0


def _parse_names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names) or len(set(names)) != len(names):
        raise argparse.ArgumentTypeError(f"expected unique names, separated by commas, got {text!r}")
    return names


def _convert_to_coco(arguments: argparse.Namespace) -> None:
    from posedy.data.check import validate
    from posedy.data.coco_file import CocoFile
    from posedy.data.issues import format_reasons
    from posedy.files import check_writable, write_json_atomically

    out = arguments.out
    check_writable(out)
    if out.exists():
        raise FileExistsError(f"{out} exists: choose another file")
    converted = _read(arguments)
    report = validate(CocoFile.from_content(converted.content, str(out)), None).report
    report.raise_errors()
    write_json_atomically(out, converted.content)
    print(report.summary)
    if any(converted.left_out.values()):
        print(f"objects left out: {format_reasons(converted.left_out)}")
    for note in (*converted.notes, *report.warnings):
        print(note)
    folder = converted.image_dir
    is_found = any((folder / image["file_name"]).is_file() for image in converted.content["images"])
    print(f"wrote {out}; its image folder is {folder}" if is_found else f"wrote {out}; DIR is its image folder")
    print(f"next: {shlex.join(['posedy', 'check', str(out), '--images', str(folder) if is_found else 'DIR'])}")


def _read(arguments: argparse.Namespace) -> "ConvertedFile":
    """Reads the source as the content of a COCO file."""
    from posedy.data.imports import detect_format, read_export, to_coco
    from posedy.data.yolo import read_yolo

    source, images, class_name = arguments.source, arguments.images, arguments.class_name
    found = arguments.source_format or detect_format(source)
    if found == "coco":
        raise ValueError(f"{source} is a COCO file: check it with posedy check, or convert it with --to yolo")
    if found == "yolo":
        if arguments.keypoints is not None:
            arguments.parser.error(
                "--keypoints is only for annotation tools: a YOLO dataset has kpt_names in data.yaml"
            )
        return read_yolo(source, arguments.split or "train", images, class_name)
    if arguments.split is not None:
        arguments.parser.error(f"--split is only for YOLO datasets: {source} has the format {found}")
    return to_coco(read_export(source, found, arguments.keypoints), images, class_name, arguments.keypoints)


def _convert_to_yolo(arguments: argparse.Namespace) -> None:
    from posedy.data.issues import format_reasons
    from posedy.data.yolo import write_yolo

    out, images, split = arguments.out, arguments.images, arguments.split or "train"
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
