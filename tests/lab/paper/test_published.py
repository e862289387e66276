import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posedy.models.registry import list_models
from tools.lab.paper.published import PUBLISHED_AP, TABLE_1, TABLE_8, TABLE_10_BACKBONES, TABLE_10_HEADS, Printed


def test_printed_value_is_parsed_and_matched_by_its_digits() -> None:
    assert Printed("312.9M").value == pytest.approx(312_900_000, rel=1e-12)
    assert Printed("1.81G").value == pytest.approx(1_810_000_000, rel=1e-12)
    assert Printed("0.7M").matches(687_680)
    assert not Printed("0.6M").matches(687_680)
    assert Printed("1.81G").matches(1_814_073_344)
    assert not Printed("2.0M").matches(2_050_001)


@given(st.integers(0, 99_999), st.sampled_from("MG"))
def test_printed_value_matches_its_own_count(tenths: int, unit: str) -> None:
    printed = Printed(f"{tenths / 10:.1f}{unit}")
    assert printed.matches(round(printed.value))


def test_published_ap_has_existing_networks() -> None:
    assert set(PUBLISHED_AP) <= set(list_models())
    # Table 10's 14 networks and Table 11's two that are dynamic in one part
    assert len(PUBLISHED_AP) == 16
    assert sum(ap.AR is None for ap in PUBLISHED_AP.values()) == 2
    for ap in PUBLISHED_AP.values():
        assert ap.AP75 < ap.AP50
        assert ap.AP < ap.AP75
        if ap.APm is not None and ap.APl is not None and ap.AR is not None:
            assert ap.APm < ap.AP < ap.APl <= ap.AR + 1


@pytest.mark.parametrize(
    ("static", "dynamic", "gain"),
    [
        ("resnet18-deconv", "dy_resnet18-deconv", 1.6),
        ("mobilenetv2_100-deconv", "dy_mobilenetv2_100-deconv", 2.9),
        ("mobilenetv2_050-deconv", "dy_mobilenetv2_050-deconv", 4.9),
        ("mobilenetv3_small-deconv", "dy_mobilenetv3_small-deconv", 2.2),
        ("mobilenetv2_100-bneck", "dy_mobilenetv2_100-dy_bneck", 3.6),
        ("mobilenetv2_050-bneck", "dy_mobilenetv2_050-dy_bneck", 3.6),
        ("mobilenetv3_small-bneck", "dy_mobilenetv3_small-dy_bneck", 2.9),
        ("mobilenetv2_050-bneck", "mobilenetv2_050-dy_bneck", 1.1),
        ("mobilenetv2_050-bneck", "dy_mobilenetv2_050-bneck", 3.1),
    ],
)
def test_gains_equal_those_printed_in_brackets(static: str, dynamic: str, gain: float) -> None:
    difference = PUBLISHED_AP[dynamic].AP - PUBLISHED_AP[static].AP
    assert difference == pytest.approx(gain, abs=1e-9)


def test_table_1_and_8_agree() -> None:
    shared = [key for key in TABLE_1 if key[1] in (1, 4)]
    assert len(shared) == 8
    for name, num_kernels in shared:
        assert TABLE_8[name].madds == TABLE_1[name, num_kernels]


# The rules stated in the reasons, on the layers counted by hand.


def layers(name: str) -> list[dict[str, str]]:
    with (Path(__file__).parents[2] / "models" / "layers.csv").open() as file:
        return [row for row in csv.DictReader(file) if row["model"] == name]


def pixels(size: str) -> int:
    height, width = size.split("x")
    return int(height) * int(width)


def dynamic_layers(name: str) -> list[tuple[bool, int, int, int]]:
    """Return is_depthwise, input channels, multiply-adds of the pooling and weights of a kernel per dynamic layer."""
    return [
        (row["kind"] == "dw", int(row["cin"]), pixels(row["in_hw"]) * int(row["cin"]), int(row["weights"]))
        for row in layers(name)
        if row["dynamic"] == "1"
    ]


def reduced_overhead(name: str) -> float:
    """Return attention and aggregation at K = 4 with only the first attention layer of depthwise convolutions."""
    return sum(c * c / 4 + (0 if is_depthwise else pool + 4 * w) for is_depthwise, c, pool, w in dynamic_layers(name))


@pytest.mark.parametrize(("width", "paper_width"), [("100", "1"), ("075", "0.75"), ("050", "0.5"), ("035", "0.35")])
def test_rule_of_mobilenetv2(width: str, paper_width: str) -> None:
    static = TABLE_1[f"mobilenetv2_{width}", 1].value
    for num_kernels in (2, 4, 6, 8):
        added = sum(
            c * c / 4 + num_kernels * c / 4 + (pool if is_depthwise else num_kernels * weights)
            for is_depthwise, c, pool, weights in dynamic_layers(f"mobilenetv2_x{paper_width}")
        )
        printed = TABLE_1[f"dy_mobilenetv2_{width}", num_kernels]
        assert static + added == pytest.approx(printed.value, rel=0.002)
        if width in ("100", "075"):
            assert printed.matches(round(static + added))


def test_rule_of_mobilenetv3() -> None:
    static, printed = TABLE_8["mobilenetv3_small"].madds, TABLE_8["dy_mobilenetv3_small"].madds
    assert static is not None
    assert printed is not None
    assert printed.matches(round(static.value + reduced_overhead("mobilenetv3_small_v1")))


@pytest.mark.parametrize("channels", [1280, 576])
def test_rule_of_the_light_weight_head(channels: int) -> None:
    name = f"head_typeB_B{channels}"
    static = sum(int(row["madds"]) for row in layers(name))
    static += sum(pixels(row["out_hw"]) * int(row["cout"]) for row in layers(name) if row["kind"] in ("exp", "dw"))
    static += 4 * (16 * 12 * channels + 32 * 24 * 256 + 64 * 48 * 128) + 64 * 48 * 17
    for head, count in (("bneck", static), ("dy_bneck", static + reduced_overhead(name))):
        printed = TABLE_10_HEADS[head, channels].madds
        assert printed is not None
        assert printed.matches(round(count / 2**20 * 1e6))


@pytest.mark.parametrize(
    ("name", "classifier", "backbone"),
    [("resnet18", 11_689_512, 11_176_512), ("resnet10", 5_418_792, None)],
)
def test_rule_of_resnets(name: str, classifier: int, backbone: int | None) -> None:
    printed = TABLE_8[name].parameters
    assert printed is not None
    assert printed.matches(round(classifier / 2**20 * 1e6))
    if backbone is not None:
        printed = TABLE_10_BACKBONES[name].parameters
        assert printed is not None
        weights = sum(int(row["weights"]) for row in layers(name))
        assert weights < backbone
        assert printed.matches(round(weights / 2**20 * 1e6))


@pytest.mark.parametrize(("name", "classifier"), [("dy_resnet18", 44_933_880), ("dy_resnet10", 19_686_008)])
def test_rule_of_dynamic_resnets(name: str, classifier: int) -> None:
    shortcuts = sum(int(row["weights"]) for row in layers(name.removeprefix("dy_")) if row["kind"] == "ds")
    printed = TABLE_8[name].parameters
    assert printed is not None
    assert printed.matches(round((classifier - shortcuts) / 2**20 * 1e6))
    assert not printed.matches(round(classifier / 2**20 * 1e6))
