"""The formats of annotation tools: their detection, and one function that reads all of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from posedy.data.imports.csv_rows import read_rows
from posedy.data.imports.csv_table import read_csv_table
from posedy.data.imports.cvat import read_cvat
from posedy.data.imports.deeplabcut import find_files, is_deeplabcut, read_deeplabcut
from posedy.data.imports.label_studio import read_label_studio
from posedy.data.imports.labelme import is_labelme, read_labelme
from posedy.data.imports.structure import ImportedFile, ImportFileError
from posedy.data.issues import short_repr
from posedy.data.tables import load_json

IMPORT_FORMATS = ("cvat", "label-studio", "labelme", "deeplabcut", "csv")
"""The formats that `read_export` reads."""


def detect_format(source: Path) -> str:
    """Returns the format of a file or folder: one of `IMPORT_FORMATS`, coco or yolo.

    It is yolo for folders with a YAML file, for YAML files and for everything unknown.

    Raises:
        OSError: if a file cannot be read.
        ImportFileError: if a JSON or CSV file has none of the formats.
    """
    suffix = source.suffix.lower()
    if source.is_dir():
        return _detect_folder(source)
    if suffix in (".xml", ".zip"):
        return "cvat"
    if suffix == ".csv":
        return "deeplabcut" if is_deeplabcut(read_rows(source)) else "csv"
    return _detect_json(source, _load(source)) if suffix == ".json" else "yolo"


def read_export(source: Path, format: str, keypoints: Sequence[str] | None = None) -> ImportedFile:
    """Reads an export of an annotation tool.

    Args:
        source: the file or folder.
        format: one of `IMPORT_FORMATS`.
        keypoints: the names of the points of CVAT's shapes with several points.

    Raises:
        OSError: if a file cannot be read.
        ImportFileError: if it is invalid; the message lists every kind of error with the first items.
    """
    if not source.exists():
        raise FileNotFoundError(f"no folder or file at {source.absolute()}: check its name")
    if format == "cvat":
        return read_cvat(source, keypoints)
    if format == "label-studio":
        return read_label_studio(source, _load(source))
    readers = {"labelme": read_labelme, "deeplabcut": read_deeplabcut, "csv": read_csv_table}
    return readers[format](source)


def _detect_folder(folder: Path) -> str:
    if (folder / "annotations.xml").is_file():
        return "cvat"
    if find_files(folder):  # before YAML files: a project of DeepLabCut has config.yaml
        return "deeplabcut"
    if any(folder.glob("*.yaml")) or any(folder.glob("*.yml")):
        return "yolo"
    return "labelme" if any(folder.rglob("*.json")) else "yolo"


def _detect_json(source: Path, content: Any) -> str:
    if isinstance(content, list):
        return "label-studio"
    if is_labelme(content):
        return "labelme"
    if isinstance(content, Mapping) and isinstance(content.get("data"), Mapping):
        return "label-studio"
    if isinstance(content, Mapping) and "images" in content:
        return "coco"
    raise ImportFileError(
        f"{source}: expected a list of Label Studio's tasks, or an object with 'shapes' (Labelme) or 'images' (COCO), "
        f"got {short_repr(content)}: name the format with --from"
    )


def _load(path: Path) -> Any:
    try:
        return load_json(path)
    except ValueError as error:
        raise ImportFileError(f"{path} is not a JSON file ({error}): export it again") from error
