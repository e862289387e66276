import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posedy.data.tables import (
    PackedNames,
    find_duplicates,
    invalid_ids,
    is_plausible,
    load_json,
    number_column,
    number_rows,
)

SCALARS = st.none() | st.text(max_size=2) | st.integers() | st.floats() | st.lists(st.floats(), max_size=3)


def is_number(value):
    if isinstance(value, int):
        return abs(value) < 10**300
    return isinstance(value, float)


@given(st.lists(SCALARS | st.booleans()))
def test_invalid_ids_agrees_with_a_loop(values):
    for value, flag in zip(values, invalid_ids(values), strict=True):
        assert flag == (type(value) is not int or not -(2**63) <= value < 2**63)
    for value, flag in zip(values, invalid_ids(values, expects_text=True), strict=True):
        assert flag == (not isinstance(value, str))


@given(st.lists(SCALARS))
def test_number_column_agrees_with_a_loop(values):
    column, bad = number_column(values)
    for value, number, flag in zip(values, column, bad, strict=True):
        assert flag == (not is_number(value))
        np.testing.assert_equal(number, float(value) if is_number(value) else math.nan)


@given(st.lists(SCALARS | st.lists(SCALARS, min_size=2, max_size=2)))
def test_number_rows_agrees_with_a_loop(values):
    rows, bad = number_rows(values, 2)
    assert rows.shape == (len(values), 2)
    for value, row, flag in zip(values, rows, bad, strict=True):
        is_valid = isinstance(value, list) and len(value) == 2 and all(map(is_number, value))
        assert flag == (not is_valid)
        np.testing.assert_equal(row, [float(item) for item in value] if is_valid else [math.nan] * 2)


def test_number_rows_converts_numbers():
    rows, bad = number_rows([[1, 2.5], [3, math.inf]], 2)
    assert not bad.any()
    assert rows.tolist() == [[1, 2.5], [3, math.inf]]


@given(st.lists(st.integers(-5, 5)))
def test_find_duplicates_agrees_with_a_loop(values):
    assert find_duplicates(np.array(values, dtype=np.int64)).tolist() == [
        index for index, value in enumerate(values) if value in values[:index]
    ]


def test_booleans_are_not_numbers():
    assert number_column([1, True, 0])[1].tolist() == [False, True, False]


def test_plausible_coordinates_are_finite_and_bounded():
    assert is_plausible(np.array([0, -5e6, 1e7, math.nan, -math.inf])).tolist() == [True, True, False, False, False]


def test_segmentation_is_dropped_at_any_depth(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"a": [{"segmentation": [[1, 2]], "id": 1}], "b": {"x": {"segmentation": {}}}}))
    assert load_json(path) == {"a": [{"id": 1}], "b": {"x": {}}}


def test_deep_nesting_raises(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("[" * 200_000)
    with pytest.raises(ValueError, match="nested"):
        load_json(path)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_packed_names_can_be_read_back(names):
    packed = PackedNames.pack(names)
    assert [packed[index] for index in range(len(packed))] == names


@pytest.mark.parametrize("index", [-1, 2])
def test_index_of_packed_names_out_of_range_raises(index):
    with pytest.raises(IndexError, match=str(index)):
        PackedNames.pack(["a", "b"])[index]
