"""The measurements of bulk prediction: they notice lost and repeated images."""

import json
from pathlib import Path

import pytest

from tools.lab.benchmarks.__main__ import main
from tools.lab.benchmarks.bulk import link_images, read_results

EXAMPLES = "posedy/examples/*.jpg"


def test_repeated_images_are_an_error(tmp_path: Path) -> None:
    for number, names in enumerate(["ab", "cb"]):
        lines = [json.dumps({"image": name, "persons": []}) for name in names]
        (tmp_path / f"part-{number:05d}.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match="has 1 images twice, such as b"):
        read_results(tmp_path)
    (tmp_path / "part-00001.jsonl").unlink()
    assert list(read_results(tmp_path)) == ["a", "b"]


def test_links_have_distinct_names(tmp_path: Path) -> None:
    images = sorted(Path().glob(EXAMPLES))
    folder = link_images(images, tmp_path / "links", 14)
    links = sorted(folder.iterdir())
    assert len(links) == 14
    assert [link.resolve() for link in links] == [images[number % 6].resolve() for number in range(14)]


def test_numbers_below_1_are_rejected() -> None:
    with pytest.raises(ValueError, match="--count"):
        main(["bulk", "kills", EXAMPLES, "--count", "0"])


@pytest.mark.slow
def test_kills_and_memory_are_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("POSEDY_RUNTIME")  # the commands are those of users
    path = tmp_path / "report.json"
    command = ["bulk", "kills", EXAMPLES, "--count", "130", "--kills", "2", "--checkpoint", "light"]
    main([*command, "--json", str(path)])
    report = json.loads(path.read_bytes())
    assert report["each_image_once"]
    assert report["equal_lines"] == report["images"] == 130
    assert [kill["processes"] for kill in report["kills"]] == [2, 1]
    assert "130 lines equal those of an undisturbed run" in capsys.readouterr().out
    main(["bulk", "memory", EXAMPLES, "--count", "6", "12", "--checkpoint", "light", "--json", str(path)])
    peaks = json.loads(path.read_bytes())["peaks"]
    assert [peak["images"] for peak in peaks] == [6, 12]
    assert all(100 < peak["peak_mb"] < 10_000 for peak in peaks)
