import pytest
from hypothesis import given
from hypothesis import strategies as st

from posedy.data.tables import PackedNames


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_names_come_back(names):
    packed = PackedNames.pack(names)
    assert [packed[index] for index in range(len(packed))] == names


@pytest.mark.parametrize("index", [-1, 2])
def test_names_outside_are_refused(index):
    with pytest.raises(IndexError, match="of 2"):
        PackedNames.pack(["a", "b"])[index]
