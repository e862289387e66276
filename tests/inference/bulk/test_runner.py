"""Runs of bulk prediction: each image once, equal results for any number of processes, after kills and full disks."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from posedy.inference.bulk import FORMATS, inputs, predict_bulk
from posedy.inference.bulk.inputs import check_new_folder, prepare_inputs, unit_size
from posedy.inference.bulk.sources import ImageSource
from tests.inference.bulk.stub import StubEstimator

Write = Callable[[Path, int], list[Path]]
STUB = Path(__file__).with_name("stub.py")


@pytest.fixture(scope="module")
def folder(write_images: Write, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """150 images in three units, two of them bad: one cannot be read, the detector fails for the other."""
    folder = tmp_path_factory.mktemp("bulk") / "in"
    images = write_images(folder, 150)
    images[10].write_bytes(b"no image")
    cv2.imwrite(str(images[100]), np.zeros((30, 30, 3), np.uint8))
    return folder


def predict(folder: Path, out: Path, **options: Any) -> list[str]:
    lines: list[str] = []
    options = {"settings": {"weights": "stub"}, "model": "stub", "format": "jsonl", "report": lines.append} | options
    estimator = options.pop("estimator", None) or StubEstimator()
    predict_bulk([str(folder)], out, estimator, **options)
    return lines


def read_parts(out: Path, suffix: str = ".jsonl") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.glob(f"part-*{suffix}"))}


def read_lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for content in read_parts(out).values() for line in content.splitlines()]


def read_errors(out: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (out / "errors.jsonl").read_text().splitlines()]


def test_each_image_is_in_the_results_or_the_errors(folder: Path, tmp_path: Path) -> None:
    lines = predict(folder, tmp_path)
    names = [line["image"] for line in read_lines(tmp_path)] + [error["image"] for error in read_errors(tmp_path)]
    assert Counter(names) == Counter(map(str, folder.rglob("*.png")))
    reasons = {Path(error["image"]).name: error["error"] for error in read_errors(tmp_path)}
    assert len(reasons) == 2
    assert any("cannot be decoded" in reason for reason in reasons.values())
    assert any("darkness" in reason for reason in reasons.values())
    assert any(f"FAILED: 2 images, listed in {tmp_path / 'errors.jsonl'}" in line for line in lines)
    assert any(line.startswith("done: 3 units in") for line in lines)


def test_results_are_those_of_single_images(folder: Path, tmp_path: Path) -> None:
    predict(folder, tmp_path)
    for line in read_lines(tmp_path)[::7]:
        estimator = StubEstimator(batch_size=1)
        image = cv2.imread(line["image"])
        batch = estimator.new_batch()
        (found,) = estimator.detect_many([image])
        poses = batch.add(image[..., ::-1], *found)
        batch.flush()
        assert line["persons"] == poses.to_records()
        assert (line["height"], line["width"]) == image.shape[:2]


def test_batches_have_persons_of_many_images_and_of_one_unit(folder: Path, tmp_path: Path) -> None:
    estimator = StubEstimator(batch_size=16)
    predict(folder, tmp_path, estimator=estimator)
    per_unit = [
        sum(len(json.loads(line)["persons"]) for line in content.splitlines())
        for content in read_parts(tmp_path).values()
    ]
    expected = [size for persons in per_unit for size in [16] * (persons // 16) + [persons % 16] * (persons % 16 > 0)]
    assert estimator.model.batches == expected


@pytest.mark.parametrize(
    "format", ["jsonl", *(pytest.param(name, marks=pytest.mark.slow) for name in ("coco", "parquet"))]
)
@pytest.mark.parametrize("world_size", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_any_number_of_processes_writes_equal_files(folder: Path, tmp_path: Path, world_size: int, format: str) -> None:
    suffix = FORMATS[format].suffix
    predict(folder, tmp_path / "one", format=format)
    for rank in reversed(range(world_size)):
        predict(folder, tmp_path / "many", format=format, rank=rank, world_size=world_size, workers=rank + 1)
    assert len(read_parts(tmp_path / "one", suffix)) == 3
    assert read_parts(tmp_path / "many", suffix) == read_parts(tmp_path / "one", suffix)
    assert read_errors(tmp_path / "many") == read_errors(tmp_path / "one")


def test_run_resumes_with_another_number_of_processes_and_repeats_nothing(folder: Path, tmp_path: Path) -> None:
    predict(folder, tmp_path / "whole")
    lines = predict(folder, tmp_path / "out", rank=1, world_size=2)
    assert any("2 of 3 units left: the same command resumes, unless another process" in line for line in lines)
    (done,) = (tmp_path / "out").glob("part-*.jsonl")
    before = done.stat().st_mtime_ns
    predict(folder, tmp_path / "out")
    assert done.stat().st_mtime_ns == before
    assert read_parts(tmp_path / "out") == read_parts(tmp_path / "whole")
    lines = predict(folder, tmp_path / "out")
    assert any("0 left" in line for line in lines)
    assert any(line.startswith("done: 3 units in") for line in lines)


def test_other_inputs_or_settings_are_an_error_and_change_nothing(
    folder: Path, write_images: Write, tmp_path: Path
) -> None:
    images = write_images(tmp_path / "in", 3)
    predict(tmp_path / "in", tmp_path / "out")
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    images[0].rename(images[0].with_name("other.png"))
    with pytest.raises(ValueError, match="has results of other inputs: 3 images, now 3, with other names; resume with"):
        predict(tmp_path / "in", tmp_path / "out")
    images[1].unlink()
    with pytest.raises(ValueError, match="other inputs: 3 images, now 2; resume with"):
        predict(tmp_path / "in", tmp_path / "out")
    with pytest.raises(ValueError, match="other inputs"):
        predict(folder, tmp_path / "out")
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    predict(folder, tmp_path / "other")
    with pytest.raises(ValueError, match="other settings: weights was 'stub', now 'net'; resume with"):
        predict(folder, tmp_path / "other", settings={"weights": "net"})
    with pytest.raises(ValueError, match="format was 'jsonl', now 'coco'"):
        predict(folder, tmp_path / "other", format="coco")
    (tmp_path / "other/manifest.json").write_text("{}")
    with pytest.raises(ValueError, match="is no manifest of a run: choose another --out"):
        predict(folder, tmp_path / "other")


def test_no_images_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(ValueError, match="no image in the inputs"):
        predict(tmp_path / "in", tmp_path / "out")


def test_errors_of_an_image_that_was_repaired_disappear_with_its_unit(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "in")
    predict(tmp_path / "in", tmp_path / "out")
    assert len(read_errors(tmp_path / "out")) == 2
    for error in read_errors(tmp_path / "out"):
        cv2.imwrite(error["image"], np.full((30, 30, 3), 9, np.uint8))
    for part in (tmp_path / "out").glob("part-*"):
        part.unlink()
    predict(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out/errors.jsonl").exists()
    assert len(read_lines(tmp_path / "out")) == 150


def test_drawings_are_spread_over_the_inputs(folder: Path, tmp_path: Path) -> None:
    predict(folder, tmp_path, num_drawings=5)
    drawings = sorted((tmp_path / "drawings").iterdir())
    assert [int(path.name[:8]) for path in drawings] == [0, 30, 60, 90, 120]
    for path in drawings:
        original = next(folder.rglob(f"{path.stem[9:]}.png"))
        assert cv2.imread(str(path)).shape == cv2.imread(str(original)).shape


def test_parquet_has_the_documented_columns(folder: Path, tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    parquet = pytest.importorskip("pyarrow.parquet")
    predict(folder, tmp_path / "parquet", format="parquet")
    predict(folder, tmp_path / "jsonl")
    expected = read_lines(tmp_path / "jsonl")
    table = pd.concat(map(pd.read_parquet, sorted((tmp_path / "parquet").glob("part-*.parquet"))))
    columns = ["image", "width", "height", "boxes", "box_scores", "keypoints", "scores", "model", "version"]
    assert list(table.columns) == columns
    assert len(table) == len(expected) == 148
    for row, line in zip(table.itertuples(), expected, strict=True):
        assert (row.image, row.width, row.height) == (line["image"], line["width"], line["height"])
        assert len(row.keypoints) == len(line["persons"])
        for number, person in enumerate(line["persons"]):
            points = np.stack(row.keypoints[number])
            assert points.shape == (17, 2)
            named = [[point["x"], point["y"]] for point in person["keypoints"].values()]
            np.testing.assert_allclose(points, named, atol=0.0051)
            np.testing.assert_allclose(row.boxes[number], person["box_xyxy"], atol=0.0051)
    schema = parquet.read_schema(next((tmp_path / "parquet").glob("part-*.parquet")))
    assert json.loads(schema.metadata[b"keypoints"])[0] == "nose"


@pytest.mark.slow
def test_duckdb_reads_the_files(folder: Path, tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    predict(folder, tmp_path / "parquet", format="parquet")
    predict(folder, tmp_path / "jsonl")
    num_persons = sum(len(line["persons"]) for line in read_lines(tmp_path / "jsonl"))
    query = f"select count(*), sum(len(keypoints)), min(len(scores[1])) from '{tmp_path}/parquet/part-*.parquet'"
    assert duckdb.sql(query).fetchall() == [(148, num_persons, 17)]


def test_coco_results_have_names_as_ids(folder: Path, tmp_path: Path) -> None:
    predict(folder, tmp_path / "coco", format="coco")
    predict(folder, tmp_path / "jsonl")
    records = [record for content in read_parts(tmp_path / "coco", ".json").values() for record in json.loads(content)]
    persons = Counter({line["image"]: len(line["persons"]) for line in read_lines(tmp_path / "jsonl")})
    assert Counter(record["image_id"] for record in records) == +persons
    assert all(len(record["keypoints"]) == 51 for record in records)


@pytest.mark.parametrize(("count", "size"), [(1, 64), (640_000, 64), (640_001, 128), (5_000_000, 512)])
def test_units_become_larger_for_more_than_ten_thousand(count: int, size: int) -> None:
    assert unit_size(count) == size
    assert -(-count // size) <= 10_000


def test_full_disk_leaves_finished_units_intact(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predict(folder, tmp_path / "whole")
    write = FORMATS["jsonl"].encode
    encoded = []

    def full_after_one(*arguments: Any) -> bytes:
        encoded.append(None)
        if len(encoded) > 1:
            raise OSError(28, "No space left on device")
        return write(*arguments)

    monkeypatch.setitem(FORMATS, "jsonl", type(FORMATS["jsonl"])(".jsonl", full_after_one))
    with pytest.raises(OSError, match="No space left"):
        predict(folder, tmp_path / "out")
    monkeypatch.undo()
    assert list(read_parts(tmp_path / "out")) == ["part-00000.jsonl"]
    predict(folder, tmp_path / "out")
    assert read_parts(tmp_path / "out") == read_parts(tmp_path / "whole")


@pytest.mark.parametrize(
    "format", ["parquet", *(pytest.param(name, marks=pytest.mark.slow) for name in ("coco", "jsonl"))]
)
def test_numbers_that_are_not_finite_are_errors_of_their_images(folder: Path, tmp_path: Path, format: str) -> None:
    estimator = StubEstimator()
    decode = estimator.model.decode

    def decode_badly(outputs: Any) -> Any:
        keypoints, scores = decode(outputs)
        keypoints[0] = np.nan
        return keypoints, scores

    estimator.model.decode = decode_badly  # type: ignore[method-assign]
    lines = predict(folder, tmp_path, estimator=estimator, format=format, num_drawings=150)
    assert lines[-2].startswith("done: 3 units in")
    failed = [error for error in read_errors(tmp_path) if "numbers that are not finite" in error["error"]]
    assert 20 < len(failed) < 140
    assert len(list((tmp_path / "drawings").iterdir())) == 148 - len(failed)


def test_tiny_files_do_not_stop_the_run(write_images: Write, tmp_path: Path) -> None:
    images = write_images(tmp_path / "in", 3)
    images[1].write_bytes(b"x")
    predict(tmp_path / "in", tmp_path / "out")
    assert [error["image"] for error in read_errors(tmp_path / "out")] == [str(images[1])]
    assert len(read_lines(tmp_path / "out")) == 2


@pytest.mark.parametrize("name", ["part-00000.jsonl", "part-7.parquet", "errors.jsonl", "errors", "inputs.jsonl"])
def test_files_of_other_programs_are_neither_results_nor_overwritten(folder: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("other")
    with pytest.raises(ValueError, match=rf"{name} exists, but .*manifest\.json .* does not: choose another --out"):
        predict(folder, tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: "other"}


def test_lost_list_of_inputs_is_written_again(folder: Path, tmp_path: Path) -> None:
    predict(folder, tmp_path)
    parts = read_parts(tmp_path)
    (tmp_path / "inputs.jsonl").write_text("damaged")
    (tmp_path / "part-00001.jsonl").unlink()
    predict(folder, tmp_path)
    assert read_parts(tmp_path) == parts
    inode = (tmp_path / "inputs.jsonl").stat().st_ino
    predict(folder, tmp_path)
    assert (tmp_path / "inputs.jsonl").stat().st_ino == inode  # other machines may be reading it


def test_of_two_runs_that_begin_at_the_same_time_in_one_folder_one_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = inputs.write_json_atomically

    def begin_another(*arguments: Any, **options: Any) -> None:
        monkeypatch.undo()
        prepare_inputs(tmp_path, [ImageSource("other.jpg")], {})
        write(*arguments, **options)

    monkeypatch.setattr(inputs, "write_json_atomically", begin_another)
    with pytest.raises(ValueError, match="has results of other inputs"):
        prepare_inputs(tmp_path, [ImageSource("a.jpg"), ImageSource("b.jpg")], {})
    assert prepare_inputs(tmp_path, [ImageSource("other.jpg")], {}).read_unit(0) == [ImageSource("other.jpg")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inputs.jsonl", "manifest.json"]


def test_errors_of_listing_are_no_errors_of_writing(tmp_path: Path) -> None:
    def list_badly() -> Iterator[ImageSource]:
        yield ImageSource("a.jpg")
        raise PermissionError("in/secret cannot be read")

    with pytest.raises(PermissionError, match=r"^in/secret cannot be read$"):
        prepare_inputs(tmp_path, list_badly(), {})
    assert not list(tmp_path.iterdir())


def test_resumed_run_must_have_the_same_image_column(write_images: Write, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    values = [image.read_bytes() for image in write_images(tmp_path / "in", 2)]
    parquet.write_table(pa.table({"a": values, "b": values}), tmp_path / "in.parquet")
    predict(tmp_path / "in.parquet", tmp_path / "out", image_column="a")
    with pytest.raises(ValueError, match="image column was 'a', now 'b'"):
        predict(tmp_path / "in.parquet", tmp_path / "out", image_column="b")


def test_drawings_of_long_names(write_images: Write, tmp_path: Path) -> None:
    (image,) = write_images(tmp_path / "in", 1)
    image.rename(image.with_name("\u00e4" * 125 + ".png"))
    predict(tmp_path / "in", tmp_path / "out", num_drawings=1)
    (drawing,) = (tmp_path / "out/drawings").iterdir()
    assert drawing.name == "00000000-" + "\u00e4" * 50 + ".jpg"


def test_names_that_are_no_text_are_escaped_in_the_errors(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"\xff.png")
    predict(tmp_path / "list.txt", tmp_path / "out")
    (error,) = read_errors(tmp_path / "out")
    assert error["image"] == r"\udcff.png"
    assert error["error"].encode().decode() == error["error"]  # lone surrogates could not be encoded


def test_errors_that_another_process_removes_meanwhile_are_no_failure(folder: Path, tmp_path: Path) -> None:
    predict(folder, tmp_path)
    (tmp_path / "errors/part-00002.jsonl").symlink_to(tmp_path / "removed")
    predict(folder, tmp_path)
    assert len(read_errors(tmp_path)) == 2


def test_closed_standard_error_does_not_stop_the_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert predict(folder, tmp_path)[-2].startswith("done: 3 units in")


def test_folders_with_files_are_no_folders_for_new_results(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "empty").mkdir()
    for folder in (None, str(tmp_path / "missing"), str(tmp_path / "empty"), "unknown://folder"):
        check_new_folder(folder)
    for folder in (str(tmp_path), tmp_path.as_uri()):
        with pytest.raises(ValueError, match="is not empty, and its files would be read as results"):
            check_new_folder(folder)


def start(folder: Path, out: Path, seconds: float = 0.0, **environment: str) -> subprocess.Popen:
    command = [sys.executable, str(STUB), str(folder), str(out), "jsonl", str(seconds)]
    return subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_killed_runs_lose_and_repeat_nothing(folder: Path, write_images: Write, tmp_path: Path) -> None:
    images = write_images(tmp_path / "in", 1000)
    predict(tmp_path / "in", tmp_path / "whole", settings={})
    rng, kills = random.Random(0), 0
    while kills < 10:
        # two processes at first, one later
        count = 2 if kills < 5 else 1
        processes = [
            start(tmp_path / "in", tmp_path / "out", 0.01, RANK=str(rank), WORLD_SIZE=str(count))
            for rank in range(count)
        ]
        time.sleep(rng.uniform(2, 8))
        for process in processes:
            kills += process.poll() is None
            process.send_signal(signal.SIGKILL)
            process.communicate()
    process = start(tmp_path / "in", tmp_path / "out")
    process.communicate()
    assert process.returncode == 0
    assert read_parts(tmp_path / "out") == read_parts(tmp_path / "whole")
    assert Counter(line["image"] for line in read_lines(tmp_path / "out")) == Counter(map(str, images))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_images(write_images: Write, tmp_path: Path) -> None:
    """50,000 names of 200 files need as much memory as 200."""
    images = write_images(tmp_path / "files", 200)
    for count in (200, 50_000):
        for number in range(count):
            target = tmp_path / str(count) / f"{number // 1000:03d}" / f"{number:06d}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(images[number % 200], target)
    peaks = {}
    for count in (200, 50_000):
        output = start(tmp_path / str(count), tmp_path / f"out{count}").communicate()[0]
        peaks[count] = float(output.split("peak MB")[1])
        assert len(read_lines(tmp_path / f"out{count}")) == count
    assert peaks[50_000] <= 1.1 * peaks[200], peaks
