"""Plot of the training curves."""

import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from posedy.files import read_csv
from posedy.training.loggers import RunLogger, plot_curves
from posedy.training.pose_task import PoseTask

PlotRows = Callable[[list[dict[str, str]]], np.ndarray]

SIZE = (770, 1210, 3)
# the inner parts of the panels, without titles and tick labels
LOSS, AP = (slice(40, 340), slice(120, 560)), (slice(60, 340), slice(700, 1200))
RATE, SPEED = (slice(410, 700), slice(120, 560)), (slice(410, 700), slice(700, 1130))
STAR = (14, 127, 255)  # tab:orange in BGR


def rows(epochs: int, every: int = 1) -> list[dict[str, str]]:
    """Rows of metrics.csv of a run that is evaluated every `every` epochs."""
    result = []
    for epoch in range(1, epochs + 1):
        row = {"epoch": epoch, "loss": 0.01 / epoch, "lr": 0.001 / epoch, "persons_per_second": 500 + epoch}
        measured = dict.fromkeys(("AP", "AP50", "AP75"), "")
        if epoch % every == 0:
            ap = epoch / (epoch + 5)
            measured = {"AP": str(ap), "AP50": str(ap**0.5), "AP75": str(ap**2)}
        result.append({name: str(value) for name, value in row.items()} | measured)
    return result


@pytest.fixture
def plot_rows(tmp_path: Path) -> PlotRows:
    """Returns a function that plots rows to a file and reads the image."""

    def plot(rows: list[dict[str, str]]) -> np.ndarray:
        path = tmp_path / "run" / "curves.png"
        plot_curves(rows, path)
        assert [file.name for file in path.parent.iterdir()] == ["curves.png"]
        image = cv2.imread(str(path))
        assert image is not None
        return image

    return plot


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("count", "every"),
    [(0, 1), *(pytest.param(*case, marks=pytest.mark.slow) for case in ((1, 1), (1, 10), (2, 1), (210, 10)))],
)
def test_plot_has_a_fixed_size_for_any_number_of_epochs(plot_rows: PlotRows, count: int, every: int) -> None:
    image = plot_rows(rows(count, every))
    assert image.shape == SIZE
    assert np.ptp(image) > 200


def rows_with_changed_fifth(name: str, value: str) -> list[dict[str, str]]:
    """Ten rows, the fifth with another value."""
    changed = rows(10)
    changed[4][name] = value
    return changed


@pytest.fixture(scope="module")
def ten_rows(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """The plot of `rows(10)`."""
    path = tmp_path_factory.mktemp("curves") / "curves.png"
    plot_curves(rows(10), path)
    image = cv2.imread(str(path))
    assert image is not None
    return image


@pytest.mark.parametrize(
    ("name", "value", "panel"),
    [
        ("loss", "0.003", LOSS),
        pytest.param("AP", "0.4", AP, marks=pytest.mark.slow),
        pytest.param("AP50", "0.6", AP, marks=pytest.mark.slow),
        pytest.param("AP75", "0.3", AP, marks=pytest.mark.slow),
        pytest.param("lr", "0.0003", RATE, marks=pytest.mark.slow),
        pytest.param("persons_per_second", "400", SPEED, marks=pytest.mark.slow),
    ],
)
def test_changed_value_changes_only_its_panel(
    plot_rows: PlotRows, ten_rows: np.ndarray, name: str, value: str, panel: tuple[slice, slice]
) -> None:
    before, after = ten_rows, plot_rows(rows_with_changed_fifth(name, value))
    for other in (LOSS, AP, RATE, SPEED):
        assert (before[other] != after[other]).any() == (other == panel)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "name", ["AP", *(pytest.param(name, marks=pytest.mark.slow) for name in ("loss", "lr", "persons_per_second"))]
)
def test_non_finite_values_are_skipped_like_empty_ones(plot_rows: PlotRows, name: str) -> None:
    broken, empty = rows(10), rows(10)
    for epoch, value in ((3, "nan"), (5, "inf"), (7, "-inf")):
        broken[epoch][name], empty[epoch][name] = value, ""
    np.testing.assert_array_equal(plot_rows(broken), plot_rows(empty))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", ["nan", *(pytest.param(value, marks=pytest.mark.slow) for value in ("0", ""))])
def test_columns_without_finite_values_give_empty_panels(plot_rows: PlotRows, value: str) -> None:
    image = plot_rows([dict.fromkeys(row, value) | {"epoch": row["epoch"]} for row in rows(3)])
    assert image.shape == SIZE


def star_position(image: np.ndarray) -> tuple[float, float]:
    """The (x, y) of the star that marks the best AP."""
    y, x = np.nonzero(np.abs(image[AP].astype(int) - STAR).sum(axis=-1) < 10)
    assert len(x) > 20
    return float(x.mean()), float(y.mean())


@pytest.mark.slow
def test_star_marks_the_first_best_metric(plot_rows: PlotRows) -> None:
    late = plot_rows(rows(9))
    early_best = rows(9)
    early_best[2]["AP"] = early_best[6]["AP"] = "0.9"
    early = plot_rows(early_best)
    assert star_position(early)[0] < star_position(late)[0] - 150
    assert star_position(early)[1] < star_position(late)[1]
    without = [row | {"AP": ""} for row in rows(9)]
    with pytest.raises(AssertionError):
        star_position(plot_rows(without))


@pytest.mark.slow
def test_data_share_is_plotted_in_percent_if_present(plot_rows: PlotRows) -> None:
    without = plot_rows(rows(5))
    half, most = (plot_rows([row | {"data_share": share} for row in rows(5)]) for share in ("0.5", "0.9"))
    empty = plot_rows([row | {"data_share": ""} for row in rows(5)])
    np.testing.assert_array_equal(without, empty)
    assert (half != without).any()

    def height(image: np.ndarray) -> float:
        gray = (np.abs(image[SPEED].astype(int) - 127) < 3).all(axis=-1)
        return float(np.median(np.nonzero(gray)[0]))

    # 0 to 100 % spans slightly more than 300 pixels
    assert 100 < height(half) - height(most) < 160


@pytest.mark.slow
def test_rows_of_run_logger_are_plotted(tmp_path: Path) -> None:
    logger = RunLogger(tmp_path, 0, PoseTask)
    logger.write_epoch({"epoch": 1, "step": 10, "loss": 0.5, "lr": 0.001, "temperature": 30, "persons_per_second": 9.5})
    logger.close()
    plot_curves(read_csv(tmp_path / "metrics.csv"), tmp_path / "curves.png")
    assert cv2.imread(str(tmp_path / "curves.png")).shape == SIZE


def test_invalid_number_is_reported_and_keeps_the_previous_file(tmp_path: Path) -> None:
    path = tmp_path / "curves.png"
    path.write_bytes(before := b"the earlier plot")
    with pytest.raises(ValueError, match=r"loss.*'low'.*row 5"):
        plot_curves(rows_with_changed_fifth("loss", "low"), path)
    assert path.read_bytes() == before


@pytest.mark.usefixtures("ten_rows")
def test_plotting_leaves_no_pyplot_figure() -> None:
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()
