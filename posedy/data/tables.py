"""Lists of JSON values as numpy arrays, with a mark on each value that is not of the expected type, and packed names.

Files of hundreds of thousands of records are converted column by column in C; only a column with a bad value is gone
through value by value.
"""

import json
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posedy.files import read_bytes

BoolArray = NDArray[np.bool_]
# Larger coordinates belong to no photo; below, float32 and sums of coordinates stay finite.
LARGEST_COORDINATE = 1e7
_LISTS = (list, tuple, np.ndarray)


def load_json(path: Path) -> Any:
    """The value of a JSON file; `segmentation` is dropped on the way, since it is most of a COCO file's memory.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is not JSON.
    """
    try:
        return json.loads(read_bytes(path), object_hook=_without_segmentation)
    except RecursionError:
        raise ValueError("lists or objects are nested too deeply") from None


def _without_segmentation(record: dict[str, Any]) -> dict[str, Any]:
    record.pop("segmentation", None)
    return record


def invalid_ids(values: Sequence[Any], expects_text: bool = False) -> BoolArray:
    """Which values (N,) are not ids: integers of 64 bits, or text where that is expected."""
    if expects_text:
        return np.array([not isinstance(value, str) for value in values], dtype=bool)
    return np.array([not _is_integer(value) for value in values], dtype=bool)


def number_column(values: Sequence[Any]) -> tuple[NDArray[np.float64], BoolArray]:
    """JSON values as float64 (N,), and which of them are not numbers (NaN in the array).

    NaN itself is a number, a boolean is not.
    """
    packed = None if bool in set(map(type, values)) else _packed(values)
    if packed is not None:
        return np.array(packed, dtype=np.float64), np.zeros(len(values), dtype=bool)
    column, bad = np.full(len(values), np.nan), np.zeros(len(values), dtype=bool)
    for index, value in enumerate(values):
        single = None if isinstance(value, bool) else _packed((value,))
        if single is None:
            bad[index] = True
        else:
            column[index] = single[0]
    return column, bad


def number_rows(values: Sequence[Any], length: int) -> tuple[NDArray[np.float64], BoolArray]:
    """Lists as float64 (N, length), and which of them are not lists of so many numbers (NaN in the array).

    Tuples and arrays, which content in memory may have, are lists too.
    """
    bad = np.array([not isinstance(value, _LISTS) or len(value) != length for value in values], dtype=bool)
    if not bad.any():
        flat = _packed(chain.from_iterable(values))
        if flat is not None:
            return np.array(flat, dtype=np.float64).reshape(len(values), length), bad
    rows = np.full((len(values), length), np.nan)
    for index in np.flatnonzero(~bad).tolist():
        row = _packed(values[index])
        if row is None:
            bad[index] = True
        else:
            rows[index] = row
    return rows, bad


def plausible(coordinates: NDArray[np.floating]) -> BoolArray:
    """Which coordinates are finite and no larger than a photo could be."""
    return np.abs(coordinates) < LARGEST_COORDINATE


def repeated(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """The indices (R,) of values that stood in the array before."""
    first = np.unique(values, return_index=True)[1]
    again = np.ones(len(values), dtype=bool)
    again[first] = False
    return np.flatnonzero(again)


@dataclass(frozen=True, eq=False)
class PackedNames:
    """Many strings in one buffer: a list of str would be copied by every worker process as it is read.

    Attributes:
        buffer: the UTF-8 bytes of all strings joined.
        offsets: (N + 1,) int64, where each string starts in it.
    """

    buffer: bytes
    offsets: NDArray[np.int64]

    @classmethod
    def pack(cls, names: list[str]) -> "PackedNames":
        """Joins strings."""
        encoded = [name.encode() for name in names]
        offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        return cls(b"".join(encoded), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < len(self):
            raise IndexError(f"name {index} of {len(self)}")
        return self.buffer[self.offsets[index] : self.offsets[index + 1]].decode()


def _is_integer(value: Any) -> bool:
    is_integer = type(value) is int or (isinstance(value, Integral) and not isinstance(value, bool))
    return is_integer and -(2**63) <= value < 2**63


def _packed(values: Iterable[Any]) -> array | None:
    """Numbers as a typed array, or None if one does not fit; numpy itself would take "1" and None for numbers."""
    try:
        return array("d", values)
    except (TypeError, OverflowError):
        return None
