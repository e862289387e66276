"""The benchmark of layers measures every formulation that applies and marks the one that is used."""

import json
from pathlib import Path

import pytest

from posedy.models.ops import Geometry
from tools.lab.benchmarks import layers
from tools.lab.benchmarks.__main__ import main

SMALL = (
    layers.Layer("small 1x1", 4, 8, 1, 1, (4, 4)),
    layers.Layer("small depthwise", 6, 6, 3, 2, (6, 4), 6),
)


def test_it_prints_a_ratio_for_each_formulation_and_marks_the_chosen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "LAYERS", SMALL)
    numbers = tmp_path / "numbers.json"
    main(["layers", "--batch", "1", "3", "--rounds", "1", "--json", str(numbers)])
    written = json.loads(numbers.read_text())
    measured = {(row["layer"], row["batch"], row["mode"]): row for row in written["layers"]}
    assert len(measured) == 8
    assert measured["small 1x1", 3, "inference"]["ratios"].keys() == {"matrix", "grouped", "rows", "one_by_one"}
    assert measured["small depthwise", 3, "training"]["ratios"].keys() == {"grouped", "one_by_one"}
    assert all(row["chosen"] in row["ratios"] for row in measured.values())
    assert measured["small depthwise", 3, "inference"]["chosen"] == "beside"
    printed = capsys.readouterr().out
    assert printed.count("*") == 8 + 1  # and what it means


def test_its_layers_are_padded_to_keep_the_size_at_stride_1() -> None:
    for layer in layers.LAYERS:
        padding = layer.kernel_size // 2
        assert layer.geometry == Geometry((layer.stride,) * 2, (padding,) * 2, (1, 1), layer.groups)


def test_counts_begin_at_1() -> None:
    with pytest.raises(ValueError, match="count"):
        main(["layers", "--rounds", "0"])
