"""The command `posedy detect`: person boxes of photos, in a file for `posedy test` and `posedy demo`."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from posedy.inference.photo_paths import photo_paths


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("photos", nargs="+", metavar="PHOTO", help="photos, folders of photos, or patterns")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="a list of boxes in COCO's form")
    parser.add_argument(
        "--annotations", type=Path, metavar="FILE", help="a COCO file that gives the photos their ids, for posedy test"
    )
    parser.add_argument("--detector-weights", type=Path, metavar="FILE", help="default: torchvision's, fetched once")
    parser.add_argument(
        "--box-threshold", type=float, default=0.01, metavar="SCORE", help="leave out boxes under it (default: 0.01)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: auto)")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    from posedy.files import write_json_atomically
    from posedy.inference.detectors import TorchvisionDetector

    photos = photo_paths(arguments.photos)
    ids = _ids(arguments.annotations, photos) if arguments.annotations is not None else {}
    detector = TorchvisionDetector(arguments.detector_weights, arguments.device, arguments.box_threshold)
    records = detect_photos(photos, detector, ids)
    write_json_atomically(arguments.out, records)
    print(f"{len(records)} boxes on {len({record['file_name'] for record in records})} of {len(photos)} photos")
    print(f"wrote {arguments.out}")
    return 0


def detect_photos(photos: Sequence[Path], detector: Any, ids: Mapping[Path, int | str]) -> list[dict[str, Any]]:
    """The boxes of photos as records in COCO's form, in stored pixels.

    Photos are read as COCO readers do, without their EXIF orientation, so that boxes fit annotations.

    Args:
        photos: the files.
        detector: see `Detector`.
        ids: of photos that have one.

    Raises:
        OSError: if a photo cannot be read.
    """
    import numpy as np
    from tqdm import tqdm

    from posedy.data.photos import read_photo
    from posedy.geometry import xyxy_to_xywh
    from posedy.inference.images import rgb_to_bgr

    records = []
    for photo in tqdm(photos, desc="detect", unit="photo", disable=None):
        boxes, scores = detector.detect(rgb_to_bgr(read_photo(photo)))
        for box, score in zip(xyxy_to_xywh(boxes).tolist(), np.asarray(scores).tolist(), strict=True):
            identity = {"image_id": ids[photo]} if photo in ids else {}
            records.append({**identity, "file_name": photo.name, "category_id": 1, "bbox": box, "score": score})
    return records


def _ids(annotations: Path, photos: Sequence[Path]) -> dict[Path, int | str]:
    """The ids of photos by their names in an annotation file.

    Raises:
        ValueError: if the file does not know one.
    """
    from posedy.inference.box_files import image_names

    by_name = {PurePosixPath(name).name: image_id for image_id, name in image_names(annotations).items()}
    unknown = [photo for photo in photos if photo.name not in by_name]
    if unknown:
        raise ValueError(
            f"{annotations} has no ids for {len(unknown)} of {len(photos)} photos, the first is {unknown[0]}: leave "
            "them out, or leave out --annotations"
        )
    return {photo: by_name[photo.name] for photo in photos}
