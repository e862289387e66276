import json
from pathlib import Path

import pytest

from posedy.cli.main import main
from posedy.config import SkeletonConfig
from posedy.data.coco import GroundTruth
from posedy.data.coco_results import write_results
from posedy.evaluation.report.builder import write_report


@pytest.fixture(autouse=True)
def empty_plots(monkeypatch) -> None:
    """Leaves out the plots, which take most of the time of a small report; test_page.py tests them."""
    monkeypatch.setattr("posedy.evaluation.report.plots._to_svg", lambda figure, name: "<svg></svg>")


@pytest.fixture
def results(gt, make_noisy_results, tmp_path: Path) -> Path:
    write_results(tmp_path / "results.json", make_noisy_results(6))
    return tmp_path / "results.json"


def image_folder(gt: GroundTruth) -> Path:
    return Path(gt.source).parents[1] / "val2017"


def test_results_file_requires_annotations(gt, results, capsys):
    assert main(["report", str(results)]) == 1
    assert "--annotations FILE" in capsys.readouterr().err
    assert main(["report", str(results), "--annotations", gt.source]) == 0
    page = (results.parent / "report.html").read_text()
    assert "as in the results file" in page
    assert "data:image/jpeg" not in page


def write_metrics(folder: Path, gt: GroundTruth, **changes) -> None:
    data = {"annotations": gt.source, "images": str(image_folder(gt)), "category": dict(gt.category)}
    data |= changes.pop("data", {})
    (folder / "metrics.json").write_text(json.dumps({"model": "a network", "data": data} | changes))


def test_report_uses_annotations_images_and_protocol_of_metrics_json(gt, results, tmp_path):
    write_metrics(tmp_path, gt, protocol={"boxes": "gt", "nms": None, "flip": True, "input_size": [96, 128]})
    (tmp_path / "metrics.csv").write_text("epoch,loss,AP\n1,2.5,\n2,2.0,0.1\n")
    out = write_report(tmp_path, tmp_path / "elsewhere/page.html")
    page = out.read_text()
    assert out == tmp_path / "elsewhere/page.html"
    for text in ("a network: AP", "data:image/jpeg", "128x96 (height x width)", "Training"):
        assert text in page


def test_the_training_log_may_be_two_folders_up(gt, make_noisy_results, tmp_path):
    folder = tmp_path / "test" / "gt"
    folder.mkdir(parents=True)
    write_results(folder / "results.json", make_noisy_results(6))
    write_metrics(folder, gt)
    (tmp_path / "metrics.csv").write_text("epoch,loss,AP\n1,2.5,\n2,2.0,0.1\n")
    assert "Training" in write_report(folder).read_text()


def test_a_report_never_overwrites_its_inputs(gt, results, tmp_path):
    for path in (results, Path(gt.source)):
        with pytest.raises(ValueError, match="would overwrite"):
            write_report(results, path, Path(gt.source))
    with pytest.raises(IsADirectoryError):
        write_report(results, tmp_path, Path(gt.source))
    folder = tmp_path / "test" / "gt"
    folder.mkdir(parents=True)
    results.rename(folder / "results.json")
    write_metrics(folder, gt)
    (tmp_path / "metrics.csv").write_text("epoch,loss,AP\n1,2.5,\n")
    for path in (Path(gt.source), folder / "metrics.json", tmp_path / "metrics.csv"):
        with pytest.raises(ValueError, match="would overwrite"):
            write_report(folder, path)


def test_sigmas_other_than_coco_s_are_listed(gt, results, tmp_path):
    write_metrics(tmp_path, gt)
    assert "<td>OKS sigmas" not in write_report(tmp_path).read_text()
    assert ", ".join(["0.05"] * 17) in write_report(tmp_path, skeleton=SkeletonConfig(sigmas=0.05)).read_text()
    configured = [round(0.05 + 0.01 * (index % 3), 2) for index in range(17)]
    write_metrics(tmp_path, gt, data={"category": {**gt.category, "sigmas": configured}})
    page = write_report(tmp_path).read_text()
    assert f"<td>OKS sigmas</td><td>{', '.join(map('{:g}'.format, configured))} (in" in page


@pytest.fixture
def relative(gt, results, tmp_path: Path) -> Path:
    """An output folder project/runs/mine/test whose metrics.json has paths relative to the project."""
    project = tmp_path / "project"
    run = project / "runs/mine/test"
    run.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    results.rename(run / "results.json")
    (project / "data").symlink_to(Path(gt.source).parents[1])
    annotations = f"data/annotations/{Path(gt.source).name}"
    write_metrics(run, gt, data={"annotations": annotations, "images": "data/val2017"})
    return run


@pytest.mark.parametrize("folder", [pytest.param("project/runs/mine", marks=pytest.mark.slow), "elsewhere"])
def test_relative_paths_are_resolved_from_any_working_directory(relative, tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path / folder)
    assert "data:image/jpeg" in write_report(relative).read_text()


def test_missing_relative_paths_are_reported_with_the_searched_folders(gt, relative, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "project/data").unlink()
    with pytest.raises(OSError, match=r"no annotation file .*/elsewhere, .*/mine/test .*--annotations"):
        write_report(relative)
    with pytest.warns(UserWarning, match=r"no folder data/val2017 .*elsewhere, .*/mine/test .*--images"):
        write_report(relative, annotations=Path(gt.source))


def test_metrics_json_is_ignored_for_other_results_files(gt, results, tmp_path):
    (tmp_path / "metrics.json").write_text(json.dumps({"model": "a network", "data": {"annotations": gt.source}}))
    (tmp_path / "metrics.csv").write_text("something,else\n1,2\n")
    other = results.rename(tmp_path / "other.json")
    page = write_report(other, annotations=Path(gt.source)).read_text()
    assert "a network" not in page
    assert "Training" not in page


@pytest.mark.parametrize(
    "content",
    [
        *({"data": value} for value in (None, "text", 5, [1])),
        *({"data": {"annotations": value}} for value in (None, "text", 5, [1], "", {})),
        *({"data": {"images": value}} for value in (None, 5, [1], "")),
        *({"data": {"category": value}} for value in ("text", 5, [1], {}, {"id": 1})),
    ],
)
def test_invalid_data_of_metrics_json_is_rejected(gt, results, tmp_path, content):
    if isinstance(content["data"], dict):
        content = {"data": {"annotations": gt.source} | content["data"]}
    (tmp_path / "metrics.json").write_text(json.dumps(content))
    with pytest.raises((ValueError, OSError), match=r"metrics\.json: .*(posedy test|--annotations)"):
        write_report(tmp_path)


@pytest.mark.parametrize("value", ["text", pytest.param([1], marks=pytest.mark.slow)])
def test_invalid_protocol_is_ignored_with_a_warning(gt, results, tmp_path, value):
    write_metrics(tmp_path, gt, protocol=value, model=value)
    with pytest.warns(UserWarning, match=r"metrics\.json: protocol"):
        page = write_report(tmp_path).read_text()
    assert "as in the results file" in page


@pytest.mark.parametrize("change", [{"id": 7}, {"keypoints": ["nose"]}, {"sigmas": "many"}, {"flip_pairs": [[0, 99]]}])
def test_mismatched_category_is_rejected(gt, results, tmp_path, change):
    write_metrics(tmp_path, gt, data={"category": {**gt.category, **change}})
    with pytest.raises(ValueError, match=r"metrics\.json: data\.category"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("epoch,loss,AP\n1,2.5,\n2,low,0.1\n", "row 2: loss: .*'low'"),
        pytest.param("epoch,loss\nfirst,2.5\n", "row 1: epoch: .*'first'", marks=pytest.mark.slow),
        ("epoch,loss\n1,2\n" + "9" * 200_000 + ",1\n", ""),
    ],
)
def test_invalid_training_log_is_ignored_with_a_warning(gt, results, tmp_path, table, message):
    (tmp_path / "metrics.csv").write_text(table)
    with pytest.warns(UserWarning, match=rf"metrics\.csv.*{message}"):
        page = write_report(results, annotations=Path(gt.source)).read_text()
    assert "<h2>Training" not in page


def test_training_log_may_contain_inf_and_nan(gt, results, tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,loss,AP\n1,2,0.1\n2,inf,\n3,nan,\n4\n")
    assert "<h2>Training" in write_report(results, annotations=Path(gt.source)).read_text()


@pytest.mark.parametrize("name", [*(pytest.param(name, marks=pytest.mark.slow) for name in (5, "nul\0")), "absent.jpg"])
def test_missing_image_is_reported_and_others_are_shown(gt, results, tmp_path, name):
    record = json.loads(Path(gt.source).read_text())
    shown = gt.labeled[0]["image_id"]
    next(image for image in record["images"] if image["id"] == shown)["file_name"] = name
    (tmp_path / "one.json").write_text(json.dumps(record))
    with pytest.warns(UserWarning, match="1 of 8 images .*--images"):
        page = write_report(results, annotations=tmp_path / "one.json", images=image_folder(gt)).read_text()
    assert "data:image/jpeg" in page
    assert "1 of 8 images cannot be read" in page


def test_page_without_images_contains_a_message(gt, results, tmp_path):
    with pytest.warns(UserWarning, match="none of 8 images"):
        page = write_report(results, annotations=Path(gt.source), images=tmp_path).read_text()
    assert "data:image/jpeg" not in page
    assert "none of 8 images can be read" in page


def test_missing_results_and_invalid_metrics_json_are_rejected(gt, results, tmp_path):
    with pytest.raises(OSError, match=r"no results at .*absent"):
        write_report(tmp_path / "absent.json")
    for content, message in (("{", "is not JSON"), ("[]", r"got \[\]")):
        (tmp_path / "metrics.json").write_text(content)
        with pytest.raises(ValueError, match=rf"metrics\.json.*{message}"):
            write_report(results)
