"""Reading of DeepLabCut's labels, CollectedData_SCORER.csv.

The header has the rows scorer, individuals (of projects with several), bodyparts and coords. A row begins with the path
of its image, labeled-data/VIDEO/IMAGE, in one column or in three. Empty cells are keypoints that are not labeled.
https://deeplabcut.github.io/DeepLabCut/docs/convert_maDLC.html
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

_HEADER = ("scorer", "individuals", "bodyparts", "coords")
_BACKUPS = ("singleanimal", "multianimal")
"""Ends of the names of the files that DeepLabCut keeps when it converts a project to several individuals, or back."""
UNIQUE = "single"
"""The individual with the bodyparts that no other individual has."""

Header = dict[str, dict[str, dict[str, int]]]
"""The columns of x and y by individual and bodypart."""


def read_deeplabcut(path: Path) -> ImportedFile:
    """Reads a label file of DeepLabCut, or all label files of a project.

    Args:
        path: CollectedData_SCORER.csv, the folder with it, or the folder of the project.

    Raises:
        OSError: if a file cannot be read.
        ImportFileError: if a file is invalid, or the folder has none.
    """
    files = find_files(path) if path.is_dir() else [path]
    if not files:
        raise ImportFileError(f"{path} has no CollectedData_*.csv, also not in labeled-data/*")
    errors = ErrorLog(path)
    images: list[ImportedImage] = []
    names: dict[str, tuple[str, ...]] = {}
    for file in files:
        rows = read_rows(file)
        num_index, num_rows, header = _read_header(file, rows)
        found = _names_by_label(file, header)
        if names and found != names:
            raise ImportFileError(f"{file} has other bodyparts than {files[0]}: convert them one by one")
        names = found
        for line, row in enumerate(rows[num_rows:], start=num_rows + 1):
            if any(row):
                images.append(_read_image(row, num_index, header, f"{file}:{line}", errors))
    errors.raise_errors()
    if not images:
        raise ImportFileError(f"{path} has no row below its header: label frames and save them")
    return ImportedFile(path, _find_image_dir(files[0], images[0]), tuple(images), names)


def find_files(folder: Path) -> list[Path]:
    """Returns the label files of a folder, or of all videos of a project, without backups of converted files."""
    files = sorted(folder.glob("CollectedData_*.csv")) or sorted(folder.glob("labeled-data/*/CollectedData_*.csv"))
    backups = {file.with_name(f"{file.stem}{end}.csv") for file in files for end in _BACKUPS}
    return [file for file in files if file not in backups]


def is_deeplabcut(rows: list[list[str]]) -> bool:
    """Returns whether the rows of a CSV file begin with DeepLabCut's header."""
    return rows[0][0].lower() == _HEADER[0]


def _read_header(path: Path, rows: list[list[str]]) -> tuple[int, int, Header]:
    """Returns the number of columns before the keypoints, the number of rows of the header, and its columns."""
    header = {row[0].lower(): row for row in rows[: len(_HEADER)] if row and row[0].lower() in _HEADER}
    if not {"scorer", "bodyparts", "coords"} <= header.keys():
        raise ImportFileError(
            f"{path}: expected header rows scorer, (individuals,) bodyparts, coords, got "
            f"{', '.join(row[0] for row in rows[:4] if row)!r:.80}: give CollectedData_*.csv of DeepLabCut"
        )
    coords = header["coords"]
    if "likelihood" in coords:
        raise ImportFileError(
            f"{path} has predictions of a video (likelihood), not labels: give CollectedData_*.csv in labeled-data"
        )
    num_index = next((index for index, cell in enumerate(coords[1:], start=1) if cell), len(coords))
    columns: Header = defaultdict(lambda: defaultdict(dict))
    for index in range(num_index, len(coords)):
        cells = [row[index] if index < len(row) else "" for row in header.values()]
        individual = cells[list(header).index("individuals")] if "individuals" in header else PERSON
        bodypart, coord = cells[list(header).index("bodyparts")], coords[index]
        if coord not in ("x", "y") or not bodypart or coord in columns[individual][bodypart]:
            raise ImportFileError(
                f"{path}: column {index + 1}: expected x and y of each bodypart once, got {bodypart!r} {coord!r}"
            )
        columns[individual][bodypart][coord] = index
    for individual, parts in columns.items():
        for bodypart, found in parts.items():
            if len(found) != 2:
                raise ImportFileError(f"{path}: {individual}, {bodypart}: expected columns x and y, got {list(found)}")
    return num_index, len(header), columns


def _names_by_label(path: Path, header: Header) -> dict[str, tuple[str, ...]]:
    """Returns the bodyparts of the individuals, and those of the unique ones under their own label."""
    names: dict[str, tuple[str, ...]] = {}
    for individual, parts in header.items():
        label = UNIQUE if individual == UNIQUE and len(header) > 1 else PERSON
        if names.setdefault(label, tuple(parts)) != tuple(parts):
            raise ImportFileError(
                f"{path}: {individual} has the bodyparts {', '.join(parts)}, others {', '.join(names[label])}: "
                "individuals need the same bodyparts"
            )
    return names


def _read_image(row: list[str], num_index: int, header: Header, where: str, errors: ErrorLog) -> ImportedImage:
    pieces = "/".join(row[:num_index]).replace("\\", "/").split("/")
    where = f"{where} ({pieces[-1]})"
    if not pieces[-1] or pieces[-1].isdigit():
        errors.add("invalid entry", f"{where}: expected the path of an image, got {'/'.join(pieces)!r}")
    persons = []
    for individual, columns in header.items():
        item = where if len(header) == 1 else f"{where}, {individual}"
        keypoints = read_keypoints(row, columns, item, errors)
        if keypoints:
            label = UNIQUE if individual == UNIQUE and len(header) > 1 else PERSON
            persons.append(ImportedPerson(item, label, keypoints))
    names = tuple("/".join(pieces[index:]) for index in range(len(pieces)))
    return ImportedImage(where, names, None, tuple(persons))


def _find_image_dir(file: Path, image: ImportedImage) -> Path:
    """Returns the folder of the project, or that of the file if only this one has the image."""
    folder = file.absolute().parent
    candidates = [folder.parent.parent, folder] if len(folder.parts) > 2 else [folder]
    found = (root for root in candidates for name in image.names if (root / name).is_file())
    return next(found, candidates[0])
