import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from posedy.models.complexity import Complexity
from tools.lab.paper.comparison import ComparedCount, ModelRow, Row, Table
from tools.lab.paper.comparison_report import format_count, format_models, format_tables
from tools.lab.paper.published import PUBLISHED_AP, Printed

REASON = "A long reason for the difference, which is wrapped over several lines. " * 3
OTHER_REASON = "A short reason."


def make_row(name: str, parameters: Printed | None = None, madds: Printed | None = None) -> Row:
    return Row(name, ComparedCount(44_420_880, parameters), ComparedCount(1_822_425_408, madds))


@pytest.fixture
def rows() -> list[ModelRow]:
    plain = make_row("resnet18", Printed("44.4M"), Printed("1.81G"))
    far = make_row("dy_mobilenetv3_small", Printed("43.0M", REASON), Printed("1.75G", OTHER_REASON))
    name = "dy_mobilenetv3_small-dy_bneck"
    total = Complexity(88_841_760, 3_644_850_816)
    return [
        ModelRow("resnet18-bneck", plain, make_row("bneck"), total, None),
        ModelRow(name, far, make_row("dy_bneck", Printed("40.0M", REASON)), total, PUBLISHED_AP[name]),
    ]


def collapse_spaces(line: str) -> str:
    return " ".join(line.split())


def test_models_are_shown_with_the_papers_values_and_marks(rows: list[ModelRow]) -> None:
    lines = format_models(rows, (192, 256)).splitlines()
    assert max(map(len, lines)) < 120
    (plain,) = [line for line in lines if line.startswith("resnet18-bneck")]
    assert collapse_spaces(plain) == "resnet18-bneck 44.42M 44.4M 1.822G 1.81G 44.42M - 1.822G - 88.84M 3.645G -"
    (far,) = [line for line in lines if line.startswith("dy_mobilenetv3_small-dy_bneck")]
    assert (
        collapse_spaces(far)
        == "dy_mobilenetv3_small-dy_bneck 44.42M 43.0M a 1.822G 1.75G b 44.42M 40.0M a 1.822G - 88.84M 3.645G 60.0"
    )
    assert len(plain) == len(far)


def test_reasons_are_listed_once_below_the_table(rows: list[ModelRow]) -> None:
    text = " ".join(format_models(rows, (192, 256)).split())
    assert text.count(f"a {REASON.strip()}") == 1
    assert text.count(REASON.strip()) == 1
    assert text.endswith(f"b {OTHER_REASON}")


def test_other_sizes_explain_why_the_papers_madds_are_missing(rows: list[ModelRow]) -> None:
    note = "are not shown"
    assert note not in format_models(rows, (192, 256))
    assert note in format_models(rows, (288, 384))
    assert "384x288 (height x width)" in format_models(rows, (288, 384))


def test_tables_have_relative_differences(rows: list[ModelRow]) -> None:
    table = Table("Table 7: something", [rows[0].backbone, rows[1].backbone, Row("K", None, rows[1].backbone.madds)])
    lines = format_tables([table]).splitlines()
    assert lines[0] == "Table 7: something"
    assert collapse_spaces(lines[2]) == "resnet18 44.42M 44.4M = 1.822G 1.81G +0.7%"
    assert collapse_spaces(lines[3]) == "dy_mobilenetv3_small 44.42M 43.0M +3.3% a 1.822G 1.75G +4.1% b"
    assert collapse_spaces(lines[4]) == "K 1.822G 1.75G +4.1% b"
    assert lines[4].index("1.822G") == lines[3].index("1.822G")
    assert max(map(len, lines)) < 120


@given(st.integers(0, 10**12))
@example(9_999_500_001)
@example(99_995_000_000)
@example(9_999_499_999)
def test_formatted_count_has_six_characters_and_four_digits(count: int) -> None:
    text = format_count(count)
    assert re.fullmatch(r" *\d+(\.\d+)?[MG]", text)
    assert len(text) >= 6
    assert len(text) == 6 or count >= 1e12 - 1e8
    value = float(text[:-1]) * {"M": 1e6, "G": 1e9}[text[-1]]
    assert value == pytest.approx(count, rel=0.0006, abs=501)
