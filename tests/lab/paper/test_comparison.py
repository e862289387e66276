"""Comparison with the paper: #Param, MAdds against counts by hand, and a reason for every difference."""

import csv
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

from posedy.models.complexity import measure
from posedy.models.factory import create_model
from posedy.models.registry import is_beyond_paper, list_backbones, list_models
from tools.lab.paper.comparison import (
    ComparedCount,
    ModelRow,
    Row,
    Table,
    compare_models,
    compare_tables,
    list_reasons,
    models_to_json,
    tables_to_json,
)
from tools.lab.paper.published import TABLE_1, TABLE_8, TABLE_10_BACKBONES, TABLE_10_HEADS, Printed

BACKBONE_PARAMETERS = {
    "mobilenetv2_100": 2_223_872,
    "dy_mobilenetv2_100": 9_868_736,
    "mobilenetv2_075": 1_355_424,
    "dy_mobilenetv2_075": 5_731_118,
    "mobilenetv2_050": 687_680,
    "dy_mobilenetv2_050": 2_665_334,
    "mobilenetv2_035": 396_128,
    "dy_mobilenetv2_035": 1_405_612,
    "mobilenetv3_small": 1_087_998,
    "dy_mobilenetv3_small": 2_754_368,
    "resnet18": 11_176_512,
    "dy_resnet18": 44_420_880,
    "mobilenetv2_175": 6_139_552,
    "dy_mobilenetv2_175": 29_267_682,
    "resnet10": 4_905_792,
    "dy_resnet10": 19_173_008,
}
HEAD_PARAMETERS = {
    ("mobilenetv2", "bneck"): 1_208_081,
    ("mobilenetv2", "dy_bneck"): 6_318_877,
    ("mobilenetv2", "deconv"): 7_345_937,
    ("mobilenetv3", "bneck"): 1_008_849,
    ("mobilenetv3", "dy_bneck"): 4_871_101,
    ("mobilenetv3", "deconv"): 4_462_353,
    ("resnet", "bneck"): 990_737,
    ("resnet", "dy_bneck"): 4_764_061,
    ("resnet", "deconv"): 4_200_209,
}
# Millions, counted by hand, with the aggregated biases K C_out of section 3.2, which our layers do not have.
MADDS = {
    "Table 1": {
        "mobilenetv2_100": "300.774",
        "dy_mobilenetv2_100, K = 2": "313.259",
        "dy_mobilenetv2_100, K = 4": "316.857",
        "dy_mobilenetv2_100, K = 6": "320.455",
        "dy_mobilenetv2_100, K = 8": "324.053",
        "mobilenetv2_075": "209.070",
        "dy_mobilenetv2_075, K = 2": "218.220",
        "dy_mobilenetv2_075, K = 4": "220.292",
        "dy_mobilenetv2_075, K = 6": "222.364",
        "dy_mobilenetv2_075, K = 8": "224.436",
        "mobilenetv2_050": "97.132",
        "dy_mobilenetv2_050, K = 2": "102.225",
        "dy_mobilenetv2_050, K = 4": "103.173",
        "dy_mobilenetv2_050, K = 6": "104.120",
        "dy_mobilenetv2_050, K = 8": "105.068",
        "mobilenetv2_035": "59.286",
        "dy_mobilenetv2_035, K = 2": "62.859",
        "dy_mobilenetv2_035, K = 4": "63.349",
        "dy_mobilenetv2_035, K = 6": "63.840",
        "dy_mobilenetv2_035, K = 8": "64.331",
    },
    "Table 8": {
        "mobilenetv2_100": "300.774",
        "dy_mobilenetv2_100": "316.857",
        "mobilenetv2_075": "209.070",
        "dy_mobilenetv2_075": "220.292",
        "mobilenetv2_050": "97.132",
        "dy_mobilenetv2_050": "103.173",
        "mobilenetv2_035": "59.286",
        "dy_mobilenetv2_035": "63.349",
        "mobilenetv3_small": "66.388",
        "dy_mobilenetv3_small": "70.073",
        "resnet18": "1814",
        "dy_resnet18": "1860",
        "resnet10": "889.2",
        "dy_resnet10": "909.2",
    },
    "Table 9": {
        "bneck, 1280 channels": "727.646",
        "dy_bneck, 1280 channels": "738.937",
        "bneck, 576 channels": "689.664",
        "dy_bneck, 576 channels": "699.236",
    },
    "Table 10": {
        "resnet18": "1777",
        "dy_resnet18": "1822",
        "mobilenetv2_100": "293.382",
        "dy_mobilenetv2_100": "309.330",
        "mobilenetv2_050": "93.896",
        "dy_mobilenetv2_050": "99.864",
        "mobilenetv3_small": "63.070",
        "dy_mobilenetv3_small": "66.722",
        "deconv, 512 channels": "1121",
        "deconv, 1280 channels": "1272",
        "deconv, 576 channels": "1133",
    },
}
IN_LAYERS_CSV = {
    "dy_mobilenetv2_100": "mobilenetv2_x1",
    "dy_mobilenetv2_075": "mobilenetv2_x0.75",
    "dy_mobilenetv2_050": "mobilenetv2_x0.5",
    "dy_mobilenetv2_035": "mobilenetv2_x0.35",
    "dy_mobilenetv3_small": "mobilenetv3_small_v1",
    "dy_resnet18": "resnet18",
    "dy_resnet10": "resnet10",
    "dy_bneck, 1280 channels": "head_typeB_B1280",
    "dy_bneck, 576 channels": "head_typeB_B576",
}


QUICK = ["resnet18-bneck", "mobilenetv2_100-fpn"]


@pytest.fixture(scope="module")
def models() -> Iterator[list[ModelRow]]:
    """Two small networks; tests/lab/test_commands.py tests a dynamic one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tools.lab.paper.comparison.list_models", lambda: QUICK)
        yield compare_models()


@pytest.fixture(scope="module")
def all_models() -> list[ModelRow]:
    return compare_models()


@pytest.fixture(scope="module")
def tables() -> list[Table]:
    return compare_tables()


def aggregated_biases(label: str) -> int:
    """Return K times the output channels of all dynamic layers; 0 for a static network."""
    name, _, num_kernels = label.partition(", K = ")
    if not name.startswith("dy_"):
        return 0
    with (Path(__file__).parents[2] / "models" / "layers.csv").open() as file:
        layers = [row for row in csv.DictReader(file) if row["model"] == IN_LAYERS_CSV[name]]
    return int(num_kernels or 4) * sum(int(row["cout"]) for row in layers if row["dynamic"] == "1")


@pytest.mark.slow
def test_parameters_of_all_models_are_exact(all_models: list[ModelRow]) -> None:
    assert [row.name for row in all_models] == list_models()
    assert {row.backbone.name for row in all_models} == set(list_backbones()) == set(BACKBONE_PARAMETERS)
    test_parameters_are_exact(all_models)


def test_parameters_are_exact(models: list[ModelRow]) -> None:
    for row in models:
        assert row.backbone.parameters is not None
        assert row.head.parameters is not None
        assert row.backbone.parameters.ours == BACKBONE_PARAMETERS[row.backbone.name]
        family = row.backbone.name.removeprefix("dy_").rstrip("0123456789").partition("_")[0]
        if not is_beyond_paper(row.name):
            assert row.head.parameters.ours == HEAD_PARAMETERS[family, row.head.name]
        assert row.total.parameters == row.backbone.parameters.ours + row.head.parameters.ours
        assert row.total.madds == row.backbone.madds.ours + row.head.madds.ours


@pytest.mark.parametrize("name", QUICK)
def test_totals_equal_the_whole_network(models: list[ModelRow], name: str) -> None:
    (row,) = [row for row in models if row.name == name]
    assert row.total.parameters == sum(parameter.numel() for parameter in create_model(name).parameters())
    assert row.total.madds == measure(create_model(name), (3, 256, 192)).madds


def test_madds_of_the_fpn_head_equal_a_count_by_hand(models: list[ModelRow]) -> None:
    """1x1 and depthwise 3x3 convolutions at 8x6, 16x12, 32x24 and 64x48 pixels, for 1280, 64, 32 and 24 channels."""
    pixels = [48, 192, 768, 3072]
    laterals = sum(c * out * hw for c, out, hw in zip((1280, 64, 32, 24), (64, 64, 32, 24), pixels, strict=True))
    blocks = sum((9 * c + c * out) * hw for c, out, hw in ((64, 32, 192), (32, 24, 768), (24, 24, 3072)))
    heatmaps = (9 * 24 + 24 * 96 + 96 * 17) * 3072
    (row,) = [row for row in models if row.name == "mobilenetv2_100-fpn"]
    assert row.head.madds.ours == laterals + blocks + heatmaps


@pytest.mark.slow
def test_madds_equal_counts_by_hand(tables: list[Table]) -> None:
    for table, (name, expected) in zip(tables, MADDS.items(), strict=True):
        assert table.title.startswith(f"{name}:")
        assert {row.name for row in table.rows} == set(expected)
        for row in table.rows:
            text = expected[row.name]
            assert row.madds.ours / 1e6 == pytest.approx(float(text), rel=0.005), row.name
            decimals = len(text.partition(".")[2])
            millions = (row.madds.ours + aggregated_biases(row.name)) / 1e6
            assert f"{millions:.{decimals}f}" == text, row.name


@pytest.mark.slow
def test_all_printed_values_are_compared(tables: list[Table]) -> None:
    count = len(TABLE_1) + 2 * (len(TABLE_8) + len(TABLE_10_BACKBONES) + len(TABLE_10_HEADS))
    counts = [item for table in tables for row in table.rows for item in row.counts()]
    assert len(counts) == count == 20 + 2 * (14 + 8 + 7)
    assert all(item.paper is not None for item in counts)


@pytest.mark.slow
def test_every_difference_has_a_reason_and_every_reason_a_difference(
    tables: list[Table], all_models: list[ModelRow]
) -> None:
    rows = [row for table in tables for row in table.rows]
    for row in chain(rows, (row for model in all_models for row in (model.backbone, model.head))):
        for item in row.counts():
            if item.paper is not None:
                assert item.needs_reason == (item.paper.reason is not None), (row.name, item)
    gaps = [item for row in rows for item in row.counts() if item.needs_reason]
    assert len(gaps) == 43
    assert len(list_reasons(gaps)) == 9


def test_only_differences_beyond_rounding_and_1_percent_need_a_reason() -> None:
    assert not ComparedCount(2_223_872, None).needs_reason
    assert not ComparedCount(687_680, Printed("0.7M")).needs_reason
    assert not ComparedCount(9_868_736, Printed("9.8M")).needs_reason
    assert ComparedCount(9_899_000, Printed("9.8M")).needs_reason
    assert ComparedCount(9_700_000, Printed("9.8M")).needs_reason
    assert ComparedCount(9_899_000, Printed("9.8M")).gap == pytest.approx(0.0101, abs=1e-4)


def test_madds_are_compared_only_at_the_papers_size(models: list[ModelRow], monkeypatch: pytest.MonkeyPatch) -> None:
    name = "resnet18-bneck"
    (expected,) = [row for row in models if row.name == name]
    monkeypatch.setattr("tools.lab.paper.comparison.list_models", lambda: [name])
    (row,) = compare_models((96, 128))
    assert row.backbone.parameters == expected.backbone.parameters
    assert expected.backbone.madds.paper == TABLE_10_BACKBONES["resnet18"].madds
    assert row.backbone.madds.paper is None
    assert row.total.madds == expected.total.madds / 4  # a quarter of the pixels


@pytest.mark.parametrize("size", [(192, 250), (100, 256), (0, 256)])
def test_sizes_not_divisible_by_32_are_rejected(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="32"):
        compare_models(size)


@pytest.mark.slow
def test_json_has_all_values(all_models: list[ModelRow], tables: list[Table]) -> None:
    value = models_to_json(all_models, (192, 256))
    by_name = {row["name"]: row for row in value["models"]}
    assert list(by_name) == list_models()
    row = by_name["dy_mobilenetv2_050-dy_bneck"]
    assert row["backbone"]["parameters"]["ours"] == 2_665_334
    assert row["backbone"]["madds"]["printed"] == "98.0M"
    assert row["backbone"]["madds"]["reason"]
    assert row["paper_ap"]["AP"] == 62.8
    assert set(by_name["mobilenetv2_050-dy_bneck"]["paper_ap"]) == {"AP", "AP50", "AP75"}
    assert "paper_ap" not in by_name["resnet10-deconv"]
    rows: list[Row] = [row for table in tables for row in table.rows]
    assert sum(len(table["rows"]) for table in tables_to_json(tables)["tables"]) == len(rows)
