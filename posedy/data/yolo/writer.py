"""Writing of COCO keypoint files as YOLO pose datasets."""

import contextlib
import os
import secrets
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import yaml
from PIL import Image

from posedy.data.check import validate
from posedy.data.coco_annotations import AnnotationTable
from posedy.data.coco_file import AnnotationSource, CocoFile
from posedy.data.file_names import find_image, normalize_file_name
from posedy.data.issues import IssueLog
from posedy.data.orientation import ImageHeader, read_header
from posedy.data.tables import BoolArray
from posedy.data.yolo.layout import YoloFileError, label_path
from posedy.files import read_bytes, write_bytes_atomically
from posedy.geometry import FloatArray, xywh_to_xyxy
from posedy.skeleton import Skeleton

# Rounding errors of normalized coordinates.
_EPSILON = 1e-12
# A labeled keypoint outside the image by up to this many pixels is moved to the border.
_BORDER = 1.0
_SPLITS = ("train", "val")
# those that ultralytics reads, which are not all that posedy reads
_YOLO_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".mpo", ".avif", ".jp2")


@dataclass(frozen=True)
class WrittenSplit:
    """A split of a YOLO dataset that was written.

    Attributes:
        num_images: number of label files.
        num_persons: number of objects in them.
        left_out: number of images, annotations and keypoints that were left out, by reason.
        changed: number of boxes and keypoints that were changed, by change.
        notes: sentences about assumptions of the conversion.
    """

    num_images: int
    num_persons: int
    left_out: dict[str, int]
    changed: dict[str, int]
    notes: tuple[str, ...]


def write_yolo(
    annotations: AnnotationSource | CocoFile,
    out: Path | str,
    images: Path | str | None = None,
    split: str = "train",
    copy: bool = False,
) -> WrittenSplit:
    """Writes a COCO keypoint file as a split of a YOLO pose dataset.

    Args:
        annotations: the file or its content.
        out: the folder of the dataset. It must be missing or empty, or have the other split with the same data.yaml.
        images: the folder that file names are relative to. Its images are linked in `out`/images/`split`, and their
            EXIF orientation is applied to the labels. None writes labels only.
        split: train or val.
        copy: whether to copy the images instead of linking them.

    Raises:
        OSError: if the file cannot be read or the folder cannot be written.
        FileExistsError: if the folder has other files.
        CocoFileError: if the file is invalid, or has images that YOLO cannot use.
        YoloFileError: if the folder's data.yaml defines other classes or keypoints.
    """
    if split not in _SPLITS:
        raise ValueError(f"expected split train or val, got {split!r}")
    out, images = Path(out), None if images is None else Path(images)
    file = annotations if isinstance(annotations, CocoFile) else CocoFile.read(annotations)
    validated = validate(file, images)
    validated.report.raise_errors()
    table, skeleton = validated.table, validated.skeleton
    assert table is not None
    assert skeleton is not None
    description = _describe(table.category, skeleton)
    _check_out(out, split, description)
    names = _image_names(table, split, file.source)
    headers = _read_headers(table, images)
    persons: dict[int, list[int]] = defaultdict(list)
    for annotation in np.flatnonzero(~table.crowd).tolist():
        persons[int(table.image_index[annotation])].append(annotation)
    rows = _LabelWriter(table)
    num_images = num_persons = 0
    with _staging_folder(out, split) as staging:
        for index, (name, header) in enumerate(zip(names, headers, strict=True)):
            if header is None:
                continue
            lines = rows.format(persons[index], header)
            num_images, num_persons = num_images + 1, num_persons + len(lines)
            _write_label(staging / label_path(Path(name)), lines)
            if images is not None:
                _add_image(find_image(images, table.images.names[index]), staging / name, copy)
        _publish(staging, out, split, description)
    rotated = sum(header is not None and header.orientation != 1 for header in headers)
    left_out = {
        "crowd": int(table.crowd.sum()),
        "annotations of other categories": table.num_other_category,
        "images without labeled persons whose file is missing or does not fit": headers.count(None),
        **rows.left_out,
    }
    note = (
        f"{rotated} images have an EXIF orientation: their labels refer to the upright images, which YOLO trainers read"
    )
    return WrittenSplit(num_images, num_persons, left_out, dict(rows.changed), (note,) if rotated else ())


def _describe(category: dict[str, Any], skeleton: Skeleton) -> dict[str, Any]:
    """Returns the content of data.yaml."""
    name = category.get("name")
    record: dict[str, Any] = {split: f"images/{split}" for split in _SPLITS}
    record["kpt_shape"] = [skeleton.num_keypoints, 3]
    if skeleton.flip_pairs or "flip_pairs" in category:  # without flip_idx, YOLO trainers do not flip
        record["flip_idx"] = list(skeleton.flip_permutation)
    record["names"] = {0: name if isinstance(name, str) and name else "person"}
    record["kpt_names"] = {0: list(skeleton.keypoints)}
    return record


def _check_out(out: Path, split: str, description: dict[str, Any]) -> None:
    """Raises an error unless the folder is missing or empty, or has only other splits of the same classes."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    path = out / "data.yaml"
    if not path.is_file():
        raise FileExistsError(f"{out} is not empty and has no data.yaml: choose a new folder")
    for folder in (out / "images" / split, out / "labels" / split):
        if folder.exists():
            raise FileExistsError(f"{folder} exists: choose another split or a new folder")
    try:
        existing = yaml.safe_load(read_bytes(path))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise YoloFileError(f"{path} is not a YAML file ({error}): choose a new folder") from error
    if existing != description:
        existing = existing if isinstance(existing, dict) else {}
        keys = [key for key in {**existing, **description} if existing.get(key) != description.get(key)]
        raise YoloFileError(
            f"{path} differs from the annotation file in {', '.join(map(str, keys))}: choose a new folder"
        )


def _image_names(table: AnnotationTable, split: str, source: str) -> list[str]:
    """Returns the paths of the images in the dataset.

    Raises:
        CocoFileError: if a file name leads out of the folder, has an unknown suffix, or differs from another in its
            suffix only.
    """
    names = [PurePosixPath(normalize_file_name(name)) for name in table.images.names]
    log, ids = IssueLog(), table.images.ids

    def describe(index: int) -> str:
        return f"image {ids[index]}: {names[index]}"

    unsafe = [index for index, name in enumerate(names) if name.is_absolute() or ".." in name.parts]
    unknown = [index for index, name in enumerate(names) if name.suffix.lower() not in _YOLO_SUFFIXES]
    by_label: dict[PurePosixPath, list[int]] = defaultdict(list)
    for index, name in enumerate(names):
        by_label[name.parent / name.stem].append(index)
    shared = [indices for indices in by_label.values() if len(indices) > 1]
    log.add(
        "error", "file name outside the image folder", unsafe, describe, "Write a path relative to the image folder."
    )
    log.add("error", "unknown suffix of an image", unknown, describe, f"YOLO needs one of {', '.join(_YOLO_SUFFIXES)}.")
    log.add(
        "error",
        "several images with the same label file",
        shared,
        lambda indices: " and ".join(describe(index) for index in indices),
        "Rename one of the images: a label file has the name of the image with the suffix .txt.",
    )
    log.raise_errors(source)
    return [f"images/{split}/{name}" for name in names]


def _read_headers(table: AnnotationTable, images: Path | None) -> list[ImageHeader | None]:
    """Returns the size and orientation of each image; without a folder, images are taken as upright.

    It is None for images that the validation tolerates since they have no labeled persons: missing or unreadable ones
    and those of another size.
    """
    recorded = [ImageHeader(width, height) for width, height in table.images.sizes.tolist()]
    if images is None:
        return list(recorded)

    def read(name: str) -> ImageHeader | None:
        try:
            return read_header(find_image(images, name))
        except OSError:
            return None

    Image.preinit()  # Pillow loads its plugins at the first open, which is not thread-safe
    with ThreadPoolExecutor() as pool:
        headers = list(pool.map(read, table.images.names))
    return [
        header if header is not None and (header.width, header.height) == (record.width, record.height) else None
        for header, record in zip(headers, recorded, strict=True)
    ]


class _LabelWriter:
    """Formats annotations as lines of label files, and counts what cannot be expressed.

    Attributes:
        left_out: number of persons and keypoints that were left out, by reason.
        changed: number of boxes and keypoints that were changed, by change.
    """

    def __init__(self, table: AnnotationTable) -> None:
        self.table = table
        self.left_out: Counter[str] = Counter()
        self.changed: Counter[str] = Counter()

    def format(self, annotations: list[int], header: ImageHeader) -> list[str]:
        """Returns the lines of an image's persons, given the indices of their annotations."""
        boxes, keypoints = self.table.boxes[annotations], self.table.keypoints[annotations]
        columns, is_valid = self._normalize_boxes(boxes, header)
        columns = np.concatenate([columns, self._normalize_keypoints(keypoints[is_valid], header)], axis=1)
        # 12 digits restore pixel coordinates to 1e-8 in images of 10,000 pixels
        return [" ".join(["0", *(f"{value:.12g}" for value in row)]) for row in columns.tolist()]

    def _normalize_boxes(self, boxes: FloatArray, header: ImageHeader) -> tuple[FloatArray, BoolArray]:
        """Returns center, width and height (M, 4) of the boxes that overlap the image, and their mask (N,)."""
        size = np.array(header.upright_size, dtype=np.float64)
        corners = header.to_upright(xywh_to_xyxy(boxes).reshape(-1, 2, 2), pixel_centers=False)
        corners = np.sort(corners, axis=1)
        clipped = np.clip(corners, 0.0, size)
        is_empty = np.logical_or(boxes[:, 2:] <= 0, clipped[:, 1] <= clipped[:, 0])
        is_valid = np.logical_not(is_empty.any(axis=1))
        columns, clipped_columns = (_to_columns(values[is_valid], size) for values in (corners, clipped))
        exceeds = np.abs(columns - 0.5).max(axis=1, keepdims=True) > 0.5 + _EPSILON  # (M, 1)
        self.left_out["persons whose box is empty or outside the image"] += int((~is_valid).sum())
        self.changed["boxes clipped to the image"] += int(exceeds.sum())
        return np.clip(np.where(exceeds, clipped_columns, columns), 0.0, 1.0), is_valid

    def _normalize_keypoints(self, keypoints: FloatArray, header: ImageHeader) -> FloatArray:
        """Returns x, y, v (N, 3K) of the keypoints (N, K, 3); 0, 0, 0 if not labeled."""
        size = np.array(header.upright_size, dtype=np.float64)
        points = header.to_upright(keypoints[..., :2], pixel_centers=True)
        labeled = keypoints[..., 2] > 0
        distance = np.maximum(-points, points - size).max(axis=-1)
        far = labeled & (distance > _BORDER + _EPSILON * size.max())
        moved = labeled & ~far & (distance > _EPSILON * size.max())
        self.left_out["keypoints outside their image"] += int(far.sum())
        self.changed["keypoints moved to the image border"] += int(moved.sum())
        triplets = np.concatenate([np.clip(points / size, 0.0, 1.0), keypoints[..., 2:]], axis=-1)
        return np.where((labeled & ~far)[..., None], triplets, 0.0).reshape(-1, 3 * keypoints.shape[1])


def _to_columns(corners: FloatArray, size: FloatArray) -> FloatArray:
    """Converts corners (N, 2, 2) to normalized center, width and height (N, 4)."""
    first, last = corners[:, 0], corners[:, 1]
    return np.concatenate([(first + last) / 2 / size, (last - first) / size], axis=1)


@contextmanager
def _staging_folder(out: Path, split: str) -> Iterator[Path]:
    """Yields a temporary folder in `out`, which is created for it; an error removes both, unless `out` has files."""
    is_new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    staging = out / f".convert-{secrets.token_hex(4)}"
    try:
        for folder in ("images", "labels"):
            (staging / folder / split).mkdir(parents=True)
        yield staging
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        if is_new:
            with contextlib.suppress(OSError):
                out.rmdir()
        raise
    shutil.rmtree(staging)


def _write_label(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _add_image(image: Path, path: Path, copy: bool) -> None:
    """Copies an image or links it by its absolute path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if copy:
        shutil.copyfile(image, path)
        return
    try:
        path.symlink_to(os.path.abspath(image))  # noqa: PTH100  (resolve() would follow links)
    except OSError as error:
        raise OSError(f"{image} cannot be linked ({error.strerror}): copy the images (--copy)") from error


def _publish(staging: Path, out: Path, split: str, description: dict[str, Any]) -> None:
    """Moves the complete split to its place and writes data.yaml unless it exists."""
    for folder in ("labels", "images"):
        (out / folder).mkdir(exist_ok=True)
        (staging / folder / split).rename(out / folder / split)
    if not (out / "data.yaml").exists():
        text = yaml.safe_dump(description, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
        write_bytes_atomically(out / "data.yaml", text.encode())
