"""The picture of a run's curves."""

import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from posedy.files import read_csv
from posedy.training.loggers import RunLog, draw_curves

Draw = Callable[[list[dict[str, str]]], np.ndarray]

SIZE = (770, 1210, 3)
# the panels' middles, away from titles and numbers at the axes
LOSS, AP = (slice(40, 340), slice(120, 560)), (slice(60, 340), slice(700, 1200))
RATE, SPEED = (slice(410, 700), slice(120, 560)), (slice(410, 700), slice(700, 1130))
STAR = (14, 127, 255)  # tab:orange in OpenCV's order


def rows(epochs: int, every: int = 1) -> list[dict[str, str]]:
    """A run that is evaluated every few epochs, written as metrics.csv is."""
    written = []
    for epoch in range(1, epochs + 1):
        row = {"epoch": epoch, "loss": 0.01 / epoch, "lr": 0.001 / epoch, "persons_per_second": 500 + epoch}
        measured = dict.fromkeys(("AP", "AP50", "AP75"), "")
        if epoch % every == 0:
            ap = epoch / (epoch + 5)
            measured = {"AP": str(ap), "AP50": str(ap**0.5), "AP75": str(ap**2)}
        written.append({name: str(value) for name, value in row.items()} | measured)
    return written


@pytest.fixture
def drawn_curves(tmp_path: Path) -> Draw:
    """Draws rows to a file and reads it."""

    def draw(of: list[dict[str, str]]) -> np.ndarray:
        path = tmp_path / "run" / "curves.png"
        draw_curves(of, path)
        assert [file.name for file in path.parent.iterdir()] == ["curves.png"]
        picture = cv2.imread(str(path))
        assert picture is not None
        return picture

    return draw


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("count", "every"),
    [(0, 1), *(pytest.param(*few, marks=pytest.mark.slow) for few in ((1, 1), (1, 10), (2, 1))), (210, 10)],
)
def test_runs_of_any_length_give_a_picture(drawn_curves: Draw, count: int, every: int) -> None:
    picture = drawn_curves(rows(count, every))
    assert picture.shape == SIZE
    assert np.ptp(picture) > 200


def with_fifth(name: str, value: str) -> list[dict[str, str]]:
    """Ten epochs, the fifth with another value."""
    changed = rows(10)
    changed[4][name] = value
    return changed


@pytest.mark.parametrize(
    ("name", "value", "panel"),
    [
        ("loss", "0.003", LOSS),
        ("AP", "0.4", AP),
        pytest.param("AP50", "0.6", AP, marks=pytest.mark.slow),
        pytest.param("AP75", "0.3", AP, marks=pytest.mark.slow),
        ("lr", "0.0003", RATE),
        ("persons_per_second", "400", SPEED),
    ],
)
def test_a_changed_number_changes_its_panel_alone(
    drawn_curves: Draw, name: str, value: str, panel: tuple[slice, slice]
) -> None:
    before, after = drawn_curves(rows(10)), drawn_curves(with_fifth(name, value))
    for other in (LOSS, AP, RATE, SPEED):
        assert (before[other] != after[other]).any() == (other == panel)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "name", ["AP", *(pytest.param(name, marks=pytest.mark.slow) for name in ("loss", "lr", "persons_per_second"))]
)
def test_what_is_not_finite_is_left_out_like_what_is_empty(drawn_curves: Draw, name: str) -> None:
    broken, empty = rows(10), rows(10)
    for epoch, value in ((3, "nan"), (5, "inf"), (7, "-inf")):
        broken[epoch][name], empty[epoch][name] = value, ""
    np.testing.assert_array_equal(drawn_curves(broken), drawn_curves(empty))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", ["nan", *(pytest.param(value, marks=pytest.mark.slow) for value in ("0", ""))])
def test_columns_without_any_number_to_show_survive(drawn_curves: Draw, value: str) -> None:
    picture = drawn_curves([dict.fromkeys(row, value) | {"epoch": row["epoch"]} for row in rows(3)])
    assert picture.shape == SIZE


def star(picture: np.ndarray) -> tuple[float, float]:
    """The (x, y) of the mark of the best AP."""
    y, x = np.nonzero(np.abs(picture[AP].astype(int) - STAR).sum(axis=-1) < 10)
    assert len(x) > 20
    return float(x.mean()), float(y.mean())


@pytest.mark.slow
def test_the_star_is_at_the_first_best_ap(drawn_curves: Draw) -> None:
    late = drawn_curves(rows(9))
    early_best = rows(9)
    early_best[2]["AP"] = early_best[6]["AP"] = "0.9"
    early = drawn_curves(early_best)
    assert star(early)[0] < star(late)[0] - 150
    assert star(early)[1] < star(late)[1]
    without = [row | {"AP": ""} for row in rows(9)]
    with pytest.raises(AssertionError):
        star(drawn_curves(without))


@pytest.mark.slow
def test_the_share_of_waiting_is_drawn_in_percent_where_the_column_is(drawn_curves: Draw) -> None:
    without = drawn_curves(rows(5))
    half, most = (drawn_curves([row | {"data_share": share} for row in rows(5)]) for share in ("0.5", "0.9"))
    empty = drawn_curves([row | {"data_share": ""} for row in rows(5)])
    np.testing.assert_array_equal(without, empty)
    assert (half != without).any()

    def height(picture: np.ndarray) -> float:
        gray = (np.abs(picture[SPEED].astype(int) - 127) < 3).all(axis=-1)
        return float(np.median(np.nonzero(gray)[0]))

    # the axis goes from 0 to 100 over a bit more than 300 pixels
    assert 100 < height(half) - height(most) < 160


def test_rows_of_a_run_are_drawn(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 0)
    log.write({"epoch": 1, "step": 10, "loss": 0.5, "lr": 0.001, "temperature": 30, "persons_per_second": 9.5})
    log.close()
    draw_curves(read_csv(tmp_path / "metrics.csv"), tmp_path / "curves.png")
    assert cv2.imread(str(tmp_path / "curves.png")).shape == SIZE


def test_a_word_for_a_number_is_named_and_leaves_the_earlier_picture(tmp_path: Path) -> None:
    path = tmp_path / "curves.png"
    draw_curves(rows(2), path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"loss.*'low'.*row 5"):
        draw_curves(with_fifth("loss", "low"), path)
    assert path.read_bytes() == before


def test_no_global_figure_is_left(drawn_curves: Draw) -> None:
    drawn_curves(rows(2))
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()
