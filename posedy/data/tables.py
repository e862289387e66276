"""Conversion of JSON values to numpy arrays with a mask of invalid values, and strings packed in one buffer.

Files of hundreds of thousands of records are converted column by column in C; only a column with an invalid value is
converted value by value.
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
# No image has larger coordinates; below, float32 and sums of coordinates stay finite.
MAX_COORDINATE = 1e7
_LISTS = (list, tuple, np.ndarray)


def load_json(path: Path) -> Any:
    """Loads a JSON file without the values of `segmentation`, which take most of a COCO file's memory.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is not JSON.
    """
    try:
        return json.loads(read_bytes(path), object_hook=_drop_segmentation)
    except RecursionError:
        raise ValueError("lists or objects are nested too deeply") from None


def _drop_segmentation(record: dict[str, Any]) -> dict[str, Any]:
    record.pop("segmentation", None)
    return record


def invalid_ids(values: Sequence[Any], expects_text: bool = False) -> BoolArray:
    """Returns the mask (N,) of values that are not 64-bit integers, or not text where text is expected."""
    if expects_text:
        return np.array([not isinstance(value, str) for value in values], dtype=bool)
    return np.array([not _is_integer(value) for value in values], dtype=bool)


def number_column(values: Sequence[Any]) -> tuple[NDArray[np.float64], BoolArray]:
    """Converts JSON values to float64 (N,); non-numbers become NaN and are True in the returned mask (N,).

    NaN itself is a number, a boolean is not.
    """
    packed = None if bool in set(map(type, values)) else _pack_numbers(values)
    if packed is not None:
        return np.array(packed, dtype=np.float64), np.zeros(len(values), dtype=bool)
    column, bad = np.full(len(values), np.nan), np.zeros(len(values), dtype=bool)
    for index, value in enumerate(values):
        single = None if isinstance(value, bool) else _pack_numbers((value,))
        if single is None:
            bad[index] = True
        else:
            column[index] = single[0]
    return column, bad


def number_rows(values: Sequence[Any], length: int) -> tuple[NDArray[np.float64], BoolArray]:
    """Converts lists of `length` numbers to float64 (N, length); others become NaN and True in the returned mask (N,).

    Tuples and arrays, as in content built in memory, are accepted too.
    """
    bad = np.array([not isinstance(value, _LISTS) or len(value) != length for value in values], dtype=bool)
    if not bad.any():
        flat = _pack_numbers(chain.from_iterable(values))
        if flat is not None:
            return np.array(flat, dtype=np.float64).reshape(len(values), length), bad
    rows = np.full((len(values), length), np.nan)
    for index in np.flatnonzero(~bad).tolist():
        row = _pack_numbers(values[index])
        if row is None:
            bad[index] = True
        else:
            rows[index] = row
    return rows, bad


def is_plausible(coordinates: NDArray[np.floating]) -> BoolArray:
    """Returns the mask of coordinates that are finite and smaller than `MAX_COORDINATE`."""
    return np.abs(coordinates) < MAX_COORDINATE


def find_duplicates(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns the indices (R,) of values that occur earlier in the array."""
    first = np.unique(values, return_index=True)[1]
    is_duplicate = np.ones(len(values), dtype=bool)
    is_duplicate[first] = False
    return np.flatnonzero(is_duplicate)


@dataclass(frozen=True, eq=False)
class PackedNames:
    """Strings packed in one buffer, which worker processes share without copying, unlike a list of str.

    Attributes:
        buffer: the UTF-8 bytes of all strings joined.
        offsets: (N + 1,) int64, the start of each string in the buffer.
    """

    buffer: bytes
    offsets: NDArray[np.int64]

    @classmethod
    def pack(cls, names: list[str]) -> "PackedNames":
        """Packs a list of strings."""
        encoded = [name.encode(errors="surrogateescape") for name in names]
        offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        return cls(b"".join(encoded), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < len(self):
            raise IndexError(f"expected an index from 0 to {len(self) - 1}, got {index}")
        return self.buffer[self.offsets[index] : self.offsets[index + 1]].decode(errors="surrogateescape")


def _is_integer(value: Any) -> bool:
    is_integer = type(value) is int or (isinstance(value, Integral) and not isinstance(value, bool))
    return is_integer and -(2**63) <= value < 2**63


def _pack_numbers(values: Iterable[Any]) -> array | None:
    """Packs numbers in a typed array, or returns None for other values; numpy itself would convert "1" and None."""
    try:
        return array("d", values)
    except (TypeError, OverflowError):
        return None
