"""The text report of an inspection."""

import pytest

from tools.lab.attention.attention_probe import AGGREGATIONS, Aggregation, AttentionStatistics
from tools.lab.attention.report import format_aggregations, format_groups, mean_entropy, verdict

PROTOCOL = "boxes=gt (10 on 4 images), flip=on"
# Table 3, as fractions
PAPER = (0.694, 0.360, 0.001, 0.148, 0.273)


def table(*ap: float) -> dict[Aggregation, dict[str, float]]:
    return {name: {"AP": value, "AP50": value / 2} for name, value in zip(AGGREGATIONS, ap, strict=True)}


def layers(*entropy: float) -> list[AttentionStatistics]:
    return [AttentionStatistics("x", "2", value, value, value, 0.0, 0.25, (0.25,) * 4) for value in entropy]


def test_verdict_on_the_papers_values_confirms_the_ranking() -> None:
    text = verdict(table(*PAPER), layers(0.5))
    here, paper = text.splitlines()[:2]
    names = [part.strip(" .0123456789") for part in here.removeprefix("AP of this network: ").split(">")]
    assert paper == f"Ranking in the paper: {' > '.join(names)}."
    assert "As in the paper" in text
    assert "averaging them loses 0.334" in text
    assert "another image's loses 0.421" in text
    assert "Unlike" not in text
    assert "uniform" not in text


def test_verdict_reports_another_images_attention_above_the_average() -> None:
    text = verdict(table(0.517, 0.456, 0.0, 0.354, 0.505), layers(0.9))
    assert "attention 0.517 > shuffled across images 0.505 > average 0.456" in text
    assert "Unlike in the paper" in text
    assert "same for all images" in text


@pytest.mark.parametrize("images", [0.5, 0.51, 0.5001])
def test_verdict_names_aggregations_not_below_attention(images: float) -> None:
    text = verdict(table(0.5, 0.4, 0.0, 0.3, images), layers(0.9))
    assert "not reproduced: shuffled across images" in text
    assert ("=" in text.splitlines()[0]) == (images < 0.501)
    assert "As in the paper" not in text


@pytest.mark.parametrize(
    ("entropy", "is_uniform"), [((0.999, 0.985), True), ((0.999, 0.9), False), ((0.98, 0.98), False)]
)
def test_verdict_reports_nearly_uniform_attention(entropy: tuple[float, ...], is_uniform: bool) -> None:
    assert mean_entropy(layers(*entropy)) == pytest.approx(sum(entropy) / 2)
    assert ("nearly uniform" in verdict(table(*PAPER), layers(*entropy))) == is_uniform


def test_tables_contain_the_protocol_and_aligned_columns() -> None:
    third = format_aggregations(table(*PAPER), PROTOCOL).splitlines()
    fourth = format_groups(
        ["2", "16", "head"], [((True, False, True), {"AP": 0.5, "AP50": 0.75})], PROTOCOL
    ).splitlines()
    assert third[1] == fourth[1] == PROTOCOL
    for lines in (third[2:], fourth[2:]):
        assert len({len(line) for line in lines}) == 1
    assert third[3].split() == ["attention", "0.694", "0.347"]
    assert fourth[2].split() == ["2", "16", "head", "AP", "AP50"]
    assert fourth[3].split() == ["on", "-", "on", "0.500", "0.750"]
