"""Reading of YOLO pose datasets as COCO content."""

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posedy.data.conversion import ConvertedFile, create_annotation, create_category, read_image_headers
from posedy.data.issues import IssueLog
from posedy.data.orientation import ImageHeader
from posedy.data.yolo.layout import DataYaml, YoloFileError, YoloImages, label_path, raise_errors
from posedy.skeleton import COCO17, numbered_skeleton

# YOLO trainers accept coordinates that exceed 0...1 by this: boxes and keypoints of persons at the border.
_TOLERANCE = 0.01

_ADVICE = {
    "wrong number of columns": "A line is: class, center x, center y, width and height of the box, keypoints.",
    "invalid number": "Write numbers, separated by spaces.",
    "unknown class": "Classes are counted from 0, as in names.",
    "coordinate outside 0...1": "Divide x and width by the image's width, y and height by its height.",
    "box without area": "Width and height of a box must be above 0.",
    "invalid visibility": "v is 0 for not labeled, 1 for labeled but occluded, 2 for visible.",
}


def read_yolo(
    source: Path | str, split: str = "train", images: Path | str | None = None, class_name: str | None = None
) -> ConvertedFile:
    """Reads a split of a YOLO pose dataset as the content of a COCO keypoint file.

    Images and annotations are numbered from 1. A person's area is that of the box. Keypoints without visibility are
    visible, except those at 0, 0, which are not labeled.

    Args:
        source: the folder of the dataset or its YAML file.
        split: a key of the YAML file: train, val or test.
        images: the folder that file names are relative to; None is the folder of the split's images.
        class_name: the class to convert; None is the only one, or person.

    Raises:
        OSError: if the YAML file or a list of images cannot be read.
        YoloFileError: if the dataset is invalid; the message lists every kind of error with the first files and lines.
    """
    data = DataYaml.read(Path(source))
    class_index = data.find_class(class_name)
    category, notes = _create_category(data, class_index)
    log = IssueLog()
    found = data.find_images(split, log)
    image_dir = found.image_dir if images is None else Path(images)
    names = _relative_names(found, image_dir, log)
    headers = read_image_headers(found.images, log)
    raise_errors(log, data.path)
    labels = _LabelReader(data)
    num_rotated = num_others = 0
    records: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, (path, name) in enumerate(zip(found.images, names, strict=True), start=1):
        header = headers[path]
        num_rotated += header.orientation != 1
        records.append({"id": image_id, "file_name": name, "width": header.width, "height": header.height})
        rows = labels.read(label_path(path))
        persons = rows[rows[:, 0] == class_index]
        num_others += len(rows) - len(persons)
        for annotation in _to_annotations(persons[:, 1:5], _read_keypoints(persons, data), header):
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, **annotation})
    labels.log_errors(log)
    raise_errors(log, data.path)
    if labels.num_missing == len(records):
        raise YoloFileError(
            f"{data.path}: no label file for any of the {len(records)} images of split {split!r}, such as "
            f"{label_path(found.images[0])}: check the layout (images/ and labels/ with the same subfolders)"
        )
    if labels.num_missing:
        notes.append(f"{labels.num_missing} of {len(records)} images have no label file: they are without persons")
    if num_rotated:
        notes.append(f"{num_rotated} images have an EXIF orientation: their labels were converted to pixels as stored")
    return ConvertedFile(
        content={"images": records, "annotations": annotations, "categories": [category]},
        image_dir=image_dir,
        left_out={"of other classes": num_others},
        notes=tuple(notes),
    )


def _create_category(data: DataYaml, class_index: int) -> tuple[dict[str, Any], list[str]]:
    """Creates the record of the category, and the notes about its keypoints."""
    names, flip, notes = data.keypoint_names(class_index), data.flip_permutation, []
    if names is None and flip == COCO17.flip_permutation:
        names = COCO17.keypoints
        notes.append(
            f"{data.path.name} has no kpt_names: flip_idx is that of COCO's 17 keypoints, whose names are used"
        )
    elif names is None:
        names = numbered_skeleton(data.num_keypoints).keypoints
        notes.append(f"{data.path.name} has no kpt_names: the keypoints are called {names[0]} to {names[-1]}")
    return create_category(data.class_names[class_index], names, flip), notes


def _relative_names(found: YoloImages, image_dir: Path, log: IssueLog) -> list[str]:
    root = os.path.abspath(image_dir)  # noqa: PTH100  (resolve() would follow links)
    outside = [path for path in found.images if not path.is_relative_to(root)]
    log.add(
        "error",
        "image outside the image folder",
        outside,
        lambda path: f"{path} is not in {root}",
        "Give a folder with all images of the split.",
    )
    return [path.relative_to(root).as_posix() for path in found.images] if not outside else []


class _LabelReader:
    """Reads label files and collects their errors, each with its file and line."""

    def __init__(self, data: DataYaml) -> None:
        self.data = data
        self.num_missing = 0
        self._errors: dict[str, list[str]] = defaultdict(list)

    def read(self, path: Path) -> NDArray[np.float64]:
        """Returns the objects (N, columns) of a file; a missing file has none."""
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            self.num_missing += 1
            text = ""
        except OSError as error:
            raise type(error)(f"{path} cannot be read ({error.strerror}): check its permissions") from error
        rows = []
        for number, line in enumerate(text.splitlines(), start=1):
            words = line.split()
            if words and (row := self._parse(words, f"{path}:{number}")) is not None:
                rows.append(row)
        return np.array(rows, dtype=np.float64).reshape(len(rows), self.data.num_columns)

    def log_errors(self, log: IssueLog) -> None:
        """Adds the errors to a log."""
        for kind, advice in _ADVICE.items():
            log.add("error", kind, self._errors[kind], str, advice)

    def _parse(self, columns: list[str], where: str) -> list[float] | None:
        """Returns the numbers of a line, or None after collecting an error."""
        data = self.data
        if len(columns) != data.num_columns:
            self._errors["wrong number of columns"].append(f"{where}: {_describe_columns(len(columns), data)}")
            return None
        try:
            row = [float(column) for column in columns]
        except ValueError as error:
            self._errors["invalid number"].append(f"{where}: {error}")
            return None
        kind, value = self._find_error(row) or ("", "")
        if kind:
            self._errors[kind].append(f"{where}: {value}")
            return None
        return row

    def _find_error(self, row: list[float]) -> tuple[str, str] | None:
        """Returns the kind and a description of a line's first error."""
        if row[0] not in self.data.class_names:
            return "unknown class", f"{row[0]:g}, expected one of {', '.join(map(str, self.data.class_names))}"
        for name, value in zip(("x", "y", "width", "height"), row[1:5], strict=True):
            if not _is_coordinate(value):
                return "coordinate outside 0...1", f"{name} {value:g} of the box"
        if row[3] <= 0 or row[4] <= 0:
            return "box without area", f"width {row[3]:g}, height {row[4]:g}"
        for index in range(self.data.num_keypoints):
            x, y, *rest = row[5 + index * self.data.keypoint_columns :][: self.data.keypoint_columns]
            if rest and rest[0] not in (0, 1, 2):
                return "invalid visibility", f"v {rest[0]:g} of keypoint {index}"
            if rest != [0] and not (_is_coordinate(x) and _is_coordinate(y)):
                return "coordinate outside 0...1", f"x {x:g}, y {y:g} of keypoint {index}"
        return None


def _is_coordinate(value: float) -> bool:
    return -_TOLERANCE <= value <= 1 + _TOLERANCE  # false for NaN


def _describe_columns(count: int, data: DataYaml) -> str:
    expected = f"expected {data.num_columns} for kpt_shape [{data.num_keypoints}, {data.keypoint_columns}], got {count}"
    fitting = [
        f"[{(count - 5) // columns}, {columns}]" for columns in (2, 3) if count > 5 and (count - 5) % columns == 0
    ]
    if count == 5:
        return f"{expected}: a box without keypoints"
    return expected + (f", which fits kpt_shape {' or '.join(fitting)}" if fitting else "")


def _read_keypoints(rows: NDArray[np.float64], data: DataYaml) -> NDArray[np.float64]:
    """Returns the keypoints (N, K, 3) of label rows: normalized x and y, and v; 0, 0, 0 if not labeled."""
    keypoints = rows[:, 5:].reshape(len(rows), data.num_keypoints, data.keypoint_columns)
    if data.keypoint_columns == 2:
        visibility = np.where((keypoints == 0).all(axis=-1, keepdims=True), 0.0, 2.0)
        keypoints = np.concatenate([keypoints, visibility], axis=-1)
    return np.where(keypoints[..., 2:] > 0, keypoints, 0.0)


def _to_annotations(
    boxes: NDArray[np.float64], keypoints: NDArray[np.float64], header: ImageHeader
) -> Iterator[dict[str, Any]]:
    """Converts the persons of an image to COCO's annotations without ids.

    Args:
        boxes: (N, 4) normalized center x and y, width and height.
        keypoints: (N, K, 3) normalized x and y, and v.
        header: the image.
    """
    size = np.array(header.upright_size, dtype=np.float64)
    centers, extents = boxes[:, :2], boxes[:, 2:]
    corners = np.stack([centers - extents / 2, centers + extents / 2], axis=1) * size
    for box, person in zip(corners.reshape(-1, 4), keypoints, strict=True):
        points = np.concatenate([person[:, :2] * size, person[:, 2:]], axis=1)
        yield create_annotation(box, points, header)
