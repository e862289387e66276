import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from posedy.models.complexity import Complexity
from tools.lab.paper.comparison import Compared, ModelRow, Row, Table
from tools.lab.paper.comparison_report import format_count, format_models, format_tables
from tools.lab.paper.published import PUBLISHED_AP, Printed

FAR = "It is far because of this and of that, which takes some words to say in full. " * 3
OTHER = "It is elsewhere."


def part(name: str, parameters: Printed | None = None, madds: Printed | None = None) -> Row:
    return Row(name, Compared(44_420_880, parameters), Compared(1_822_425_408, madds))


@pytest.fixture
def rows() -> list[ModelRow]:
    plain = part("resnet18", Printed("44.4M"), Printed("1.81G"))
    far = part("dy_mobilenetv3_small", Printed("43.0M", FAR), Printed("1.75G", OTHER))
    name = "dy_mobilenetv3_small-dy_bneck"
    total = Complexity(88_841_760, 3_644_850_816)
    return [
        ModelRow("resnet18-bneck", plain, part("bneck"), total, None),
        ModelRow(name, far, part("dy_bneck", Printed("40.0M", FAR)), total, PUBLISHED_AP[name]),
    ]


def cells(line: str) -> str:
    return " ".join(line.split())


def test_models_stand_beside_the_papers_numbers_with_marks(rows: list[ModelRow]) -> None:
    lines = format_models(rows, (192, 256)).splitlines()
    assert max(map(len, lines)) < 120
    (plain,) = [line for line in lines if line.startswith("resnet18-bneck")]
    assert cells(plain) == "resnet18-bneck 44.42M 44.4M 1.822G 1.81G 44.42M - 1.822G - 88.84M 3.645G -"
    (far,) = [line for line in lines if line.startswith("dy_mobilenetv3_small-dy_bneck")]
    assert (
        cells(far)
        == "dy_mobilenetv3_small-dy_bneck 44.42M 43.0M a 1.822G 1.75G b 44.42M 40.0M a 1.822G - 88.84M 3.645G 60.0"
    )
    assert len(plain) == len(far)


def test_reasons_stand_once_under_the_table(rows: list[ModelRow]) -> None:
    text = " ".join(format_models(rows, (192, 256)).split())
    assert text.count(f"a {FAR.strip()}") == 1
    assert text.count(FAR.strip()) == 1
    assert text.endswith(f"b {OTHER}")


def test_another_size_says_why_the_papers_costs_are_missing(rows: list[ModelRow]) -> None:
    words = "not shown here"
    assert words not in format_models(rows, (192, 256))
    assert words in format_models(rows, (288, 384))
    assert "384x288 (height x width)" in format_models(rows, (288, 384))


def test_tables_have_gaps(rows: list[ModelRow]) -> None:
    table = Table("Table 7: something", [rows[0].backbone, rows[1].backbone, Row("K", None, rows[1].backbone.madds)])
    lines = format_tables([table]).splitlines()
    assert lines[0] == "Table 7: something"
    assert cells(lines[2]) == "resnet18 44.42M 44.4M = 1.822G 1.81G +0.7%"
    assert cells(lines[3]) == "dy_mobilenetv3_small 44.42M 43.0M +3.3% a 1.822G 1.75G +4.1% b"
    assert cells(lines[4]) == "K 1.822G 1.75G +4.1% b"
    assert lines[4].index("1.822G") == lines[3].index("1.822G")
    assert max(map(len, lines)) < 120


@given(st.integers(0, 10**12))
@example(9_999_500_001)
@example(99_995_000_000)
@example(9_999_499_999)
def test_a_count_has_six_characters_and_four_digits(count: int) -> None:
    text = format_count(count)
    assert re.fullmatch(r" *\d+(\.\d+)?[MG]", text)
    assert len(text) >= 6
    assert len(text) == 6 or count >= 1e12 - 1e8
    value = float(text[:-1]) * {"M": 1e6, "G": 1e9}[text[-1]]
    assert value == pytest.approx(count, rel=0.0006, abs=501)
