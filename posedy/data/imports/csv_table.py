"""Reading of a plain CSV file: a row for each person, with the columns image, NAME_x, NAME_y for each keypoint.

Optional are the columns person and NAME_v. A row without keypoints is an image without persons.
"""

from collections import defaultdict
from pathlib import Path

from posedy.data.imports.csv_rows import read_keypoints, read_rows
from posedy.data.imports.structure import (
    PERSON,
    ErrorLog,
    ImportedFile,
    ImportedImage,
    ImportedPerson,
    ImportFileError,
)

_KEYS = ("image", "person")


def read_csv_table(path: Path) -> ImportedFile:
    """Reads a CSV file with a row for each person and the columns image, NAME_x and NAME_y.

    Raises:
        OSError: if the file cannot be read.
        ImportFileError: if it is invalid.
    """
    header, *rows = read_rows(path)
    errors = ErrorLog(path)
    columns = _read_header(path, header)
    image_column = header.index("image")
    person_column = header.index("person") if "person" in header else None
    persons: dict[str, list[ImportedPerson]] = {}
    lines: dict[tuple[str, str], int] = {}
    for line, row in enumerate(rows, start=2):
        if not any(row):
            continue
        name = row[image_column].replace("\\", "/") if image_column < len(row) else ""
        if not name or len(row) != len(header):
            errors.add("invalid entry", f"line {line}: image {name!r}, {len(row)} of {len(header)} columns")
            continue
        where = f"line {line} ({name})"
        if person_column is not None:
            key = (name, row[person_column])
            if key in lines:
                errors.add("duplicate keypoint", f"{where}: person {key[1]!r} is also in line {lines[key]}")
            lines[key] = line
        keypoints = read_keypoints(row, columns, where, errors)
        found = persons.setdefault(name, [])
        if keypoints:
            found.append(ImportedPerson(where, PERSON, keypoints))
    errors.raise_errors()
    if not persons:
        raise ImportFileError(f"{path} has no row below its header: write a row for each person")
    images = tuple(ImportedImage(name, (name, Path(name).name), None, tuple(found)) for name, found in persons.items())
    return ImportedFile(path, path.parent, images, {PERSON: tuple(columns)})


def _read_header(path: Path, header: list[str]) -> dict[str, dict[str, int]]:
    """Returns the columns of each keypoint.

    Raises:
        ImportFileError: if there is no column image, a column is unknown or duplicate, or a keypoint has no x or y.
    """
    expected = "expected image, optionally person, and NAME_x, NAME_y, optionally NAME_v for each keypoint"
    columns: dict[str, dict[str, int]] = defaultdict(dict)
    for index, title in enumerate(header):
        if title in _KEYS:
            continue
        name, _, key = title.rpartition("_")
        if not name or key not in ("x", "y", "v"):
            raise ImportFileError(f"{path}: unknown column {title!r}: {expected}")
        columns[name][key] = index
    duplicates = sorted({title for title in header if header.count(title) > 1})
    incomplete = [name for name, found in columns.items() if not {"x", "y"} <= found.keys()]
    if "image" not in header or duplicates or incomplete or not columns:
        wrong = f"no x and y of {', '.join(incomplete)}" if incomplete else f"columns {', '.join(header)}"
        wrong = f"duplicate columns {', '.join(duplicates)}" if duplicates else wrong
        raise ImportFileError(f"{path}: {wrong}: {expected}")
    return dict(columns)
