"""The layout of YOLO pose datasets, as ultralytics documents it: data.yaml, image files and label files.

data.yaml has the keys `train`, `val` and `test` (a folder of images, a text file with a list of images, or a list of
both; relative to `path`, by default the folder of the file), `names` (or `nc`), `kpt_shape` ([K, 2] or [K, 3]) and
optionally `flip_idx` and `kpt_names`. The label file of an image has its path with the last folder `images` replaced by
`labels`, and the suffix .txt.
"""

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from posedy.data.issues import IssueLog, format_issues
from posedy.files import read_bytes
from posedy.image_paths import IMAGE_SUFFIXES
from posedy.registration import nearest_name

_SUFFIXES = ", ".join(IMAGE_SUFFIXES)
# Annotation tools write the class names next to the labels.
_NO_LABELS = ("classes.txt",)


class YoloFileError(ValueError):
    """An invalid YOLO dataset; the message names the files and lines."""


def raise_errors(log: IssueLog, source: Path) -> None:
    """Raises the errors of a log, if there are any.

    Raises:
        YoloFileError: with all kinds of errors in its message.
    """
    if log.errors:
        raise YoloFileError(format_issues(source, log.errors))


def label_path(image: Path) -> Path:
    """Returns the path of the label file of an image."""
    return labels_folder(image.parent) / f"{image.stem}.txt"


def labels_folder(images: Path) -> Path:
    """Returns the folder of the label files of a folder of images, which is the same without a folder `images`."""
    parts = list(images.parts)
    if "images" in parts:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return Path(*parts)


@dataclass(frozen=True)
class YoloImages:
    """The image files of a split.

    Attributes:
        image_dir: the folder with all images.
        images: their absolute paths.
    """

    image_dir: Path
    images: tuple[Path, ...]


@dataclass(frozen=True)
class DataYaml:
    """The classes and keypoints that data.yaml of a YOLO dataset defines.

    Attributes:
        path: the file.
        record: all its keys.
        class_names: the class names by class index.
        num_keypoints: the number K of keypoints.
        keypoint_columns: 3 if labels have x, y, v for each keypoint, 2 if they have x, y.
        flip_permutation: K indices; keypoint i of a flipped image is keypoint flip_permutation[i] of the image. None if
            the file does not define it.
    """

    path: Path
    record: Mapping[str, Any]
    class_names: Mapping[int, str]
    num_keypoints: int
    keypoint_columns: int
    flip_permutation: tuple[int, ...] | None

    @classmethod
    def read(cls, source: Path) -> "DataYaml":
        """Reads the file, or the one YAML file of a folder.

        Raises:
            OSError: if there is no such file.
            YoloFileError: if it does not describe a pose dataset.
        """
        path = _find_yaml(source)
        try:
            record = yaml.safe_load(read_bytes(path))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise YoloFileError(f"{path} is not a YAML file: {error}") from error
        if not isinstance(record, dict):
            raise YoloFileError(f"{path}: expected a mapping with kpt_shape, names, train and val, got {record!r:.60}")
        num_keypoints, columns = _read_shape(path, record.get("kpt_shape"))
        return cls(
            path=path,
            record=record,
            class_names=_read_class_names(path, record),
            num_keypoints=num_keypoints,
            keypoint_columns=columns,
            flip_permutation=_read_flip(path, record.get("flip_idx"), num_keypoints),
        )

    @property
    def num_columns(self) -> int:
        """The number of columns of a label file."""
        return 5 + self.num_keypoints * self.keypoint_columns

    def find_class(self, name: str | None) -> int:
        """Returns the index of a class; by default of the only class, or of the one named person.

        Raises:
            YoloFileError: if there is no such class.
        """
        names = list(self.class_names.values())
        if name is None:
            if len(names) > 1 and "person" not in names:
                raise YoloFileError(
                    f"{self.path} has {len(names)} classes, {_list(names)}: choose one with class_name (--class)"
                )
            name = "person" if "person" in names else names[0]
        elif name not in names:
            nearest = nearest_name(name, names)
            raise YoloFileError(f"{self.path} has no class {name!r}; the nearest name is {nearest!r}")
        return next(index for index, value in self.class_names.items() if value == name)

    def keypoint_names(self, class_index: int) -> tuple[str, ...] | None:
        """Returns the keypoint names of a class, None if the file does not have them.

        Raises:
            YoloFileError: if they are not K unique names.
        """
        names = self.record.get("kpt_names")
        if isinstance(names, dict):
            names = names.get(class_index)
        elif isinstance(names, list) and names and isinstance(names[0], list):
            names = names[class_index] if class_index < len(names) else None
        if names is None:
            return None
        is_valid = isinstance(names, list) and all(isinstance(name, str) and name for name in names)
        if not is_valid or len(names) != self.num_keypoints or len(set(names)) != self.num_keypoints:
            raise YoloFileError(
                f"{self.path}: kpt_names: expected {self.num_keypoints} unique names for class {class_index}, got "
                f"{names!r:.100}"
            )
        return tuple(names)

    def find_images(self, split: str, log: IssueLog) -> YoloImages:
        """Finds the images of a split, sorted by their paths within a folder.

        Errors about single images and labels are logged: listed images that are missing or no image files, several
        images with the same label file, and labels without an image.

        Raises:
            OSError: if a list of images cannot be read.
            YoloFileError: if there is no such split, or no image in it.
        """
        entries = self.record.get(split)
        if not entries:
            keys = [key for key in ("train", "val", "test") if self.record.get(key)]
            raise YoloFileError(f"{self.path} has no images for split {split!r}: it has {_list(keys)}")
        folders: list[Path] = []
        images: list[Path] = []
        for entry in entries if isinstance(entries, list) else [entries]:
            path = self._resolve(split, entry)
            if path.is_dir():
                found = sorted(file for file in _visible_files(path) if file.suffix.lower() in IMAGE_SUFFIXES)
                _log_labels_without_image(path, found, log)
                folders.append(path)
            else:
                found = _read_list(path, log)
                folders += [image.parent for image in found]
            images += found
        if not images and not log.errors:
            raise YoloFileError(f"{self.path}: split {split!r} has no image in {_list(folders)} (expected {_SUFFIXES})")
        images = list(dict.fromkeys(images))
        _log_shared_labels(images, log)
        return YoloImages(Path(os.path.commonpath(folders)) if folders else self.path.parent, tuple(images))

    def _resolve(self, split: str, entry: Any) -> Path:
        """Returns the absolute path of a split's folder or list.

        Like YOLO trainers, it ignores a leading "../" that leads nowhere; a `path` that does not exist, as after moving
        the dataset to another machine, is replaced by the folder of the file.
        """
        if not isinstance(entry, str):
            raise YoloFileError(f"{self.path}: {split}: expected a path, got {entry!r:.60}")
        here, root = self.path.parent, self.record.get("path")
        bases = [here / str(root), Path(str(root)), here] if root else [here]
        candidates = [base / name for base in bases for name in (entry, entry.removeprefix("../"))]
        for candidate in candidates:
            if candidate.exists():
                return Path(os.path.abspath(candidate))  # noqa: PTH100  (resolve() would follow links)
        raise YoloFileError(f"{self.path}: {split}: {entry}: no folder or list of images at {candidates[0]}")


def _find_yaml(source: Path) -> Path:
    if source.suffix.lower() in (".yaml", ".yml"):
        return source
    if not source.is_dir():
        if not source.exists():
            raise FileNotFoundError(f"no folder or file at {source.absolute()}: check its name")
        raise YoloFileError(f"expected a folder with a data.yaml, or a YAML file, got {source}")
    files = sorted([*source.glob("*.yaml"), *source.glob("*.yml")])
    named = [file for file in files if file.stem == "data"]
    if len(named or files) != 1:
        names = _list([file.name for file in files])
        raise YoloFileError(f"expected one data.yaml in {source}, got {names}: give the YAML file of the dataset")
    return (named or files)[0]


def _read_shape(path: Path, shape: Any) -> tuple[int, int]:
    is_pair = isinstance(shape, list) and len(shape) == 2 and all(type(value) is int for value in shape)
    if not is_pair or shape[0] < 1 or shape[1] not in (2, 3):
        raise YoloFileError(
            f"{path}: kpt_shape: expected [number of keypoints, 2 or 3], got {shape!r:.60}"
            + (": it is no pose dataset" if shape is None else "")
        )
    return shape[0], shape[1]


def _read_class_names(path: Path, record: Mapping[str, Any]) -> dict[int, str]:
    names, count = record.get("names"), record.get("nc")
    if names is None and type(count) is int:
        names = [f"class_{index}" for index in range(count)]
    pairs = (
        list(names.items()) if isinstance(names, dict) else list(enumerate(names if isinstance(names, list) else ()))
    )
    try:
        class_names = {int(index): str(name) for index, name in pairs}
    except (TypeError, ValueError):
        class_names = {}
    if not class_names or len(class_names) != len(pairs):
        raise YoloFileError(f"{path}: names: expected class names, as a list or by class index, got {names!r:.60}")
    return class_names


def _read_flip(path: Path, flip: Any, num_keypoints: int) -> tuple[int, ...] | None:
    if flip is None or flip == []:
        return None
    indices = range(num_keypoints)
    is_permutation = isinstance(flip, list) and all(type(index) is int for index in flip) and sorted(flip) == [*indices]
    if not is_permutation or any(flip[flip[index]] != index for index in indices):
        raise YoloFileError(
            f"{path}: flip_idx: expected the {num_keypoints} indices of kpt_shape, with left and right exchanged, got "
            f"{flip!r:.100}"
        )
    return tuple(flip)


def _visible_files(folder: Path) -> Iterator[Path]:
    """Yields the files of a folder and its subfolders without hidden ones, such as macOS's ._NAME.jpg."""
    return (path for path in folder.rglob("*") if not path.name.startswith("."))


def _read_list(path: Path, log: IssueLog) -> list[Path]:
    """Reads a text file with one image per line, relative to the folder of the file."""
    missing, unsupported, images = [], [], []
    for number, line in enumerate(read_bytes(path).decode(errors="replace").splitlines(), start=1):
        name = line.strip()
        if not name:
            continue
        image = Path(os.path.abspath(path.parent / name))  # noqa: PTH100  (resolve() would follow links)
        if image.suffix.lower() not in IMAGE_SUFFIXES:
            unsupported.append(f"{path}:{number}: {name}")
        elif not image.is_file():
            missing.append(f"{path}:{number}: {image}")
        else:
            images.append(image)
    log.add("error", "unknown suffix of an image", unsupported, str, f"Expected {_SUFFIXES}.")
    log.add("error", "missing image", missing, str, "Download the image, or remove its line.")
    return images


def _log_labels_without_image(folder: Path, images: list[Path], log: IssueLog) -> None:
    labels = labels_folder(folder)
    if labels == folder:  # other text files may be there
        return
    expected = {label_path(image) for image in images}
    present = (path for path in _visible_files(labels) if path.suffix == ".txt" and path.name not in _NO_LABELS)
    orphans = sorted(path for path in present if path not in expected)

    def describe(path: Path) -> str:
        image = folder / path.relative_to(labels).with_suffix("")
        siblings = image.parent.iterdir() if image.parent.is_dir() else ()
        others = sorted(other.name for other in siblings if other.stem == image.name)
        return f"{path} needs {image}.*, found {_list(others)}"

    advice = f"Add the image ({_SUFFIXES}) or remove the label file."
    log.add("error", "label file without an image", orphans, describe, advice)


def _log_shared_labels(images: list[Path], log: IssueLog) -> None:
    by_label: dict[Path, list[Path]] = defaultdict(list)
    for image in images:
        by_label[label_path(image)].append(image)
    log.add(
        "error",
        "several images with the same label file",
        [item for item in by_label.items() if len(item[1]) > 1],
        lambda item: f"{item[0]} is of {_list([image.name for image in item[1]])}",
        "Rename one of the images and its label file: only the suffixes differ.",
    )


def _list(values: list[Any]) -> str:
    return ", ".join(map(str, values[:8])) + (" ..." if len(values) > 8 else "") or "none"
