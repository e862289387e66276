"""The layer benchmark measures every applicable implementation and marks the chosen one."""

import json
from pathlib import Path

import pytest

from posedy.models.ops import ConvParams
from tools.lab.benchmarks import layers
from tools.lab.benchmarks.__main__ import main

SMALL = (
    layers.Layer("small 1x1", 4, 8, 1, 1, (4, 4)),
    layers.Layer("small depthwise", 6, 6, 3, 2, (6, 4), 6),
)


def test_command_prints_all_ratios_and_marks_the_chosen_implementation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "LAYERS", SMALL)
    report = tmp_path / "report.json"
    main(["layers", "--batch", "1", "3", "--rounds", "1", "--json", str(report)])
    written = json.loads(report.read_text())
    measured = {(row["layer"], row["batch"], row["mode"]): row for row in written["layers"]}
    assert len(measured) == 8
    assert measured["small 1x1", 3, "inference"]["ratios"].keys() == {
        "pointwise_bmm",
        "grouped_nchw",
        "pointwise_nhwc",
        "image_loop",
    }
    assert measured["small depthwise", 3, "training"]["ratios"].keys() == {"grouped_nchw", "image_loop"}
    assert all(row["chosen"] in row["ratios"] for row in measured.values())
    assert measured["small depthwise", 3, "inference"]["chosen"] == "depthwise_hwnc"
    printed = capsys.readouterr().out
    assert printed.count("*") == 8 + 1  # and the legend


def test_layer_padding_keeps_the_size_at_stride_1() -> None:
    for layer in layers.LAYERS:
        padding = layer.kernel_size // 2
        assert layer.conv_params == ConvParams((layer.stride,) * 2, (padding,) * 2, (1, 1), layer.groups)


def test_zero_rounds_are_rejected() -> None:
    with pytest.raises(ValueError, match="--rounds"):
        main(["layers", "--rounds", "0"])
