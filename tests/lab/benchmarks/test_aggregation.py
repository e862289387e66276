"""The benchmark of aggregation shows which kernels stay compressed."""

import pytest

from tools.lab.benchmarks.aggregation import format_aggregation, time_forms


@pytest.mark.slow
def test_kernels_stay_compressed_as_inputs_only() -> None:
    rows = time_forms({"pairs": 1, "runtime": "openvino", "threads": 1, "rounds": 1})
    sizes = {row["form"]: row["bytes"] for row in rows}
    kernels = 2 * 4 * 320 * 960
    assert sizes["sum, float32"]["f32"] >= 4 * kernels
    assert "f16" not in sizes["sum, float16 constants"]
    assert sizes["sum, float16 inputs"]["f16"] == 2 * kernels
    assert "i8" not in sizes["sum, int8 constants"]
    assert sizes["sum, int8 inputs"]["i8"] >= kernels
    assert format_aggregation({"rows": rows}).count("\n") == 1 + len(rows)
