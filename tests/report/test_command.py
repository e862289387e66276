import json
from pathlib import Path

import pytest

from posedy.cli import main
from posedy.evaluation.results import write_results
from posedy.evaluation.truth import KeypointTruth
from posedy.report.command import write_report


@pytest.fixture
def results(truth, noised, tmp_path: Path) -> Path:
    write_results(tmp_path / "results.json", noised(6))
    return tmp_path / "results.json"


def photos(truth: KeypointTruth) -> Path:
    return Path(truth.source).parents[1] / "val2017"


def test_results_alone_need_the_annotation_file(truth, results, capsys):
    assert main(["report", str(results)]) == 1
    assert "give --annotations FILE" in capsys.readouterr().err
    assert main(["report", str(results), "--annotations", truth.source]) == 0
    page = (results.parent / "report.html").read_text()
    assert "as in the results file" in page
    assert "data:image/jpeg" not in page


def test_a_test_knows_its_truth_photos_and_protocol(truth, results, tmp_path):
    category = {**truth.category, "sigmas": [0.05] * 17}
    data = {"annotations": truth.source, "images": str(photos(truth)), "category": category}
    test = {"model": "a network", "protocol": {"boxes": "gt", "nms": None, "flip": True, "input_size": [96, 128]}}
    (tmp_path / "metrics.json").write_text(json.dumps(test | {"data": data}))
    (tmp_path / "metrics.csv").write_text("epoch,loss,AP\n1,2.5,\n2,2.0,0.1\n")
    out = write_report(tmp_path, tmp_path / "elsewhere/page.html")
    page = out.read_text()
    assert out == tmp_path / "elsewhere/page.html"
    for words in ("a network: AP", "data:image/jpeg", "96x128", "Training"):
        assert words in page


def test_sigmas_that_were_given_are_told(truth, results, tmp_path):
    data = {"annotations": truth.source, "category": dict(truth.category)}
    (tmp_path / "metrics.json").write_text(json.dumps({"data": data}))
    assert "<td>sigmas</td>" not in write_report(tmp_path).read_text()
    assert "<td>sigmas</td>" in write_report(tmp_path, sigmas=[0.05]).read_text()


def test_a_test_s_protocol_is_of_its_results_only(truth, results, tmp_path):
    (tmp_path / "metrics.json").write_text(json.dumps({"model": "a network", "data": {"annotations": truth.source}}))
    (tmp_path / "metrics.csv").write_text("something,else\n1,2\n")
    other = results.rename(tmp_path / "other.json")
    page = write_report(other, annotations=Path(truth.source)).read_text()
    assert "a network" not in page
    assert "Training" not in page


def test_what_is_wrong_is_named(truth, results, tmp_path):
    with pytest.raises(OSError, match=r"no results at .*absent"):
        write_report(tmp_path / "absent.json")
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(ValueError, match=r"metrics\.json is not JSON"):
        write_report(results)
    (tmp_path / "metrics.json").unlink()
    record = json.loads(Path(truth.source).read_text())
    for image in record["images"]:
        image.pop("file_name")
    (tmp_path / "nameless.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="has no file_name"):
        write_report(results, annotations=tmp_path / "nameless.json", images=photos(truth))
