"""Rows of CSV files, and keypoints in their columns."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from posedy.data.imports.structure import ErrorLog, ImportedKeypoint, ImportFileError
from posedy.files import read_bytes

Columns = Mapping[str, Mapping[str, int]]
"""For each keypoint name the columns of x, y and optionally v."""


def read_rows(path: Path) -> list[list[str]]:
    """Returns the cells of a file, in UTF-8 and separated by commas.

    Raises:
        OSError: if the file cannot be read.
        ImportFileError: if it is not such a file.
    """
    try:
        text = read_bytes(path).decode("utf-8-sig")
        rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text, newline=""))]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ImportFileError(f"{path} is not a CSV file ({error}): save it as CSV in UTF-8") from error
    if not rows or len(rows[0]) < 2:
        first = rows[0] if rows else []
        raise ImportFileError(f"{path}: expected columns separated by commas, got {first!r:.80}: save it as CSV again")
    return rows


def read_keypoints(row: list[str], columns: Columns, where: str, errors: ErrorLog) -> dict[str, ImportedKeypoint]:
    """Returns the labeled keypoints of a row: those with x and y, and without 0 as v.

    Args:
        row: the cells.
        columns: the columns of each keypoint.
        where: the row in messages.
        errors: the log of invalid cells.
    """
    found = {}
    for name, column in columns.items():
        item = f"{where}: {name}"
        cells = [row[column[key]] if column[key] < len(row) else "" for key in ("x", "y")]
        visibility = row[column["v"]] if "v" in column and column["v"] < len(row) else ""
        if visibility not in ("", "0", "1", "2", "0.0", "1.0", "2.0"):
            errors.add("invalid visibility", f"{item}: v {visibility!r}")
            continue
        v = int(float(visibility)) if visibility else 2
        if v == 0 or cells == ["", ""]:
            continue
        numbers = errors.numbers(cells, f"{item}: x, y {', '.join(cells)}")
        if numbers is not None:
            found[name] = ImportedKeypoint(item, numbers[0], numbers[1], v)
    return found
