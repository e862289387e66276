import json
from functools import partial
from pathlib import Path

import pytest

from posedy.cli.main import main
from posedy.config import SkeletonConfig
from posedy.data.coco import GroundTruth
from posedy.data.coco_results import write_results
from posedy.evaluation.bootstrap import bootstrap_intervals
from posedy.evaluation.report.builder import write_report


@pytest.fixture(autouse=True)
def few_draws(monkeypatch) -> None:
    """Most of a small report's time is the bootstrap's, which is tested elsewhere."""
    monkeypatch.setattr(
        "posedy.evaluation.report.contents.bootstrap_intervals", partial(bootstrap_intervals, resamples=4)
    )


@pytest.fixture
def results(truth, noised, tmp_path: Path) -> Path:
    write_results(tmp_path / "results.json", noised(6))
    return tmp_path / "results.json"


def photos(truth: GroundTruth) -> Path:
    return Path(truth.source).parents[1] / "val2017"


def test_results_alone_need_the_annotation_file(truth, results, capsys):
    assert main(["report", str(results)]) == 1
    assert "give --annotations FILE" in capsys.readouterr().err
    assert main(["report", str(results), "--annotations", truth.source]) == 0
    page = (results.parent / "report.html").read_text()
    assert "as in the results file" in page
    assert "data:image/jpeg" not in page


def write_test(folder: Path, truth: GroundTruth, **changes) -> None:
    data = {"annotations": truth.source, "images": str(photos(truth)), "category": dict(truth.category)}
    data |= changes.pop("data", {})
    (folder / "metrics.json").write_text(json.dumps({"model": "a network", "data": data} | changes))


def test_a_test_knows_its_truth_photos_and_protocol(truth, results, tmp_path):
    write_test(tmp_path, truth, protocol={"boxes": "gt", "nms": None, "flip": True, "input_size": [96, 128]})
    (tmp_path / "metrics.csv").write_text("epoch,loss,AP\n1,2.5,\n2,2.0,0.1\n")
    out = write_report(tmp_path, tmp_path / "elsewhere/page.html")
    page = out.read_text()
    assert out == tmp_path / "elsewhere/page.html"
    for words in ("a network: AP", "data:image/jpeg", "128x96 (height x width)", "Training"):
        assert words in page


def test_sigmas_that_are_not_coco_s_are_told_in_order(truth, results, tmp_path):
    write_test(tmp_path, truth)
    assert "<td>sigmas" not in write_report(tmp_path).read_text()
    assert ", ".join(["0.05"] * 17) in write_report(tmp_path, skeleton=SkeletonConfig(sigmas=0.05)).read_text()
    configured = [round(0.05 + 0.01 * (index % 3), 2) for index in range(17)]
    write_test(tmp_path, truth, data={"category": {**truth.category, "sigmas": configured}})
    page = write_report(tmp_path).read_text()
    assert f"<td>sigmas of OKS</td><td>{', '.join(map('{:g}'.format, configured))} (in" in page


@pytest.fixture
def relative(truth, results, tmp_path: Path) -> Path:
    """A test's folder, project/runs/mine/test, whose metrics.json has paths relative to the project."""
    project = tmp_path / "project"
    run = project / "runs/mine/test"
    run.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    results.rename(run / "results.json")
    (project / "data").symlink_to(Path(truth.source).parents[1])
    annotations = f"data/annotations/{Path(truth.source).name}"
    write_test(run, truth, data={"annotations": annotations, "images": "data/val2017"})
    return run


@pytest.mark.parametrize("folder", ["project/runs/mine", "elsewhere"])
def test_relative_paths_are_found_from_any_working_directory(relative, tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path / folder)
    assert "data:image/jpeg" in write_report(relative).read_text()


def test_relative_paths_that_are_nowhere_are_named_with_where_they_were_looked_for(
    truth, relative, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "project/data").unlink()
    with pytest.raises(OSError, match=r"json is not there, .*/elsewhere nor in .*/mine/test and .*give --annotations"):
        write_report(relative)
    with pytest.warns(UserWarning, match=r"no folder data/val2017, neither in .*elsewhere nor in .*give --images"):
        write_report(relative, annotations=Path(truth.source))


def test_a_test_s_protocol_is_of_its_results_only(truth, results, tmp_path):
    (tmp_path / "metrics.json").write_text(json.dumps({"model": "a network", "data": {"annotations": truth.source}}))
    (tmp_path / "metrics.csv").write_text("something,else\n1,2\n")
    other = results.rename(tmp_path / "other.json")
    page = write_report(other, annotations=Path(truth.source)).read_text()
    assert "a network" not in page
    assert "Training" not in page


@pytest.mark.parametrize(
    "odd",
    [
        *({"data": value} for value in (None, "text", 5, [1])),
        *({"data": {"annotations": value}} for value in (None, "text", 5, [1], "", {})),
        *({"data": {"images": value}} for value in (None, 5, [1], "")),
        *({"data": {"category": value}} for value in ("text", 5, [1], {}, {"id": 1})),
    ],
)
def test_odd_data_in_metrics_json_are_named(truth, results, tmp_path, odd):
    if isinstance(odd["data"], dict):
        odd = {"data": {"annotations": truth.source} | odd["data"]}
    (tmp_path / "metrics.json").write_text(json.dumps(odd))
    with pytest.raises((ValueError, OSError), match=r"metrics\.json: .*(posedy test|give --annotations)"):
        write_report(tmp_path)


@pytest.mark.parametrize("value", ["text", [1]])
def test_an_odd_protocol_is_passed_over(truth, results, tmp_path, value):
    write_test(tmp_path, truth, protocol=value, model=value)
    with pytest.warns(UserWarning, match=r"metrics\.json: 'protocol' must be a dictionary"):
        page = write_report(tmp_path).read_text()
    assert "as in the results file" in page


@pytest.mark.parametrize("change", [{"id": 7}, {"keypoints": ["nose"]}, {"sigmas": "many"}, {"flip_pairs": [[0, 99]]}])
def test_a_category_that_does_not_fit_is_refused(truth, results, tmp_path, change):
    write_test(tmp_path, truth, data={"category": {**truth.category, **change}})
    with pytest.raises(ValueError, match=r"metrics\.json: data\.category"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("epoch,loss,AP\n1,2.5,\n2,low,0.1\n", "loss must be a number in each row, got 'low' in row 2"),
        ("epoch,loss\nfirst,2.5\n", "epoch must be a number in each row, got 'first' in row 1"),
        ("epoch,loss\n1,2\n" + "9" * 200_000 + ",1\n", "is not a table"),
    ],
)
def test_a_training_that_cannot_be_read_is_left_out(truth, results, tmp_path, table, words):
    (tmp_path / "metrics.csv").write_text(table)
    with pytest.warns(UserWarning, match=rf"leaves the training out: .*metrics\.csv.*{words}"):
        page = write_report(results, annotations=Path(truth.source)).read_text()
    assert "<h2>Training" not in page


def test_a_training_may_have_diverged(truth, results, tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,loss,AP\n1,2,0.1\n2,inf,\n3,nan,\n4\n")
    assert "<h2>Training" in write_report(results, annotations=Path(truth.source)).read_text()


@pytest.mark.parametrize("name", [5, "nul\0", "absent.jpg"])
def test_a_missing_photo_costs_its_picture_only(truth, results, tmp_path, name):
    record = json.loads(Path(truth.source).read_text())
    shown = truth.labeled[0]["image_id"]
    next(image for image in record["images"] if image["id"] == shown)["file_name"] = name
    (tmp_path / "one.json").write_text(json.dumps(record))
    with pytest.warns(UserWarning, match=r"1 of 8 photos cannot be read.* give --images"):
        page = write_report(results, annotations=tmp_path / "one.json", images=photos(truth)).read_text()
    assert "data:image/jpeg" in page
    assert "1 of 8 photos cannot be read" in page


def test_without_any_photo_the_page_says_so(truth, results, tmp_path):
    with pytest.warns(UserWarning, match="none of 8 photos can be read"):
        page = write_report(results, annotations=Path(truth.source), images=tmp_path).read_text()
    assert "data:image/jpeg" not in page
    assert "No pictures: none of 8 photos can be read" in page


def test_what_is_wrong_is_named(truth, results, tmp_path):
    with pytest.raises(OSError, match=r"no results at .*absent"):
        write_report(tmp_path / "absent.json")
    for content, words in (("{", "is not JSON"), ("[]", r"must hold a dictionary, got \[\]")):
        (tmp_path / "metrics.json").write_text(content)
        with pytest.raises(ValueError, match=rf"metrics\.json {words}.*run posedy test again"):
            write_report(results)
