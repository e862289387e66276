"""Prediction in Ray actors: the results of one process, also if an actor is killed."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

import posedy
from posedy.inference.bulk import predict_bulk
from posedy.inference.estimator import PoseEstimator

pytestmark = pytest.mark.slow
Write = Callable[[Path, int], list[Path]]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    # not when tests are collected: the import takes seconds
    ray = pytest.importorskip("ray", reason="needs Ray Data: pip install 'posedy[ray]'")
    ray.init(num_cpus=2, include_dashboard=False, logging_level="error")
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "net.safetensors"
    posedy.save_checkpoint(posedy.create_model("mobilenetv2_035-bneck", input_size=(32, 32)).eval(), path)
    return path


def poses_of(rows: list[dict]) -> dict[str, list]:
    return {Path(row["image"]).name: row["keypoints"] for row in rows if row.get("error") is None}


def expected_poses(folder: Path, model: Path, out: Path) -> dict[str, list]:
    """The poses that one process without Ray predicts."""
    parquet = pytest.importorskip("pyarrow.parquet")
    estimator = PoseEstimator(model, device="cpu", detector="full-image")
    predict_bulk([str(folder)], out, estimator, model="net", settings={}, report=lambda line: None)
    return poses_of([row for part in sorted(out.glob("part-*")) for row in parquet.read_table(part).to_pylist()])


def check_equal(found: dict[str, list], expected: dict[str, list]) -> None:
    assert found.keys() == expected.keys()
    for name, keypoints in expected.items():
        np.testing.assert_allclose(np.array(found[name]), np.array(keypoints), atol=0.01)


def worker_processes() -> list[psutil.Process]:
    """The processes of the actors that predict."""
    children = psutil.Process().children(recursive=True)
    processes = {process.pid: process for process in [*children, *psutil.process_iter()]}.values()
    found = []
    for process in processes:
        try:
            if "_Predictor" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_two_actors_predict_what_one_process_does_and_a_killed_one_is_replaced(
    write_images: Write, model: Path, tmp_path: Path
) -> None:
    import posedy.ray  # needs the optional package

    images = write_images(tmp_path / "in", 400)
    images[7].write_bytes(b"no image")
    expected = expected_poses(tmp_path / "in", model, tmp_path / "one")
    killed: list[int] = []
    most = 0

    def kill_when_two_work() -> None:
        nonlocal most
        until = time.monotonic() + 200
        while time.monotonic() < until and not killed:
            workers = worker_processes()
            most = max(most, len(workers))
            if len(workers) >= 2:
                time.sleep(1)
                os.kill(workers[0].pid, signal.SIGKILL)
                killed.append(workers[0].pid)
            time.sleep(0.2)

    killer = threading.Thread(target=kill_when_two_work)
    killer.start()
    dataset = posedy.ray.predict(
        str(tmp_path / "in"), str(tmp_path / "out"), model=model, detector="full-image", actors=2, batch_size=4
    )
    killer.join()
    rows = dataset.take_all()
    assert most == 2, most
    assert len(killed) == 1
    assert sorted(Path(row["image"]).name for row in rows) == sorted(image.name for image in images)
    check_equal(poses_of(rows), expected)
    (failed,) = [row for row in rows if row["error"] is not None]
    assert Path(failed["image"]).name == images[7].name
    assert "cannot be decoded" in failed["error"]
    assert failed["keypoints"] is None


def test_datasets_with_other_columns_are_predicted_and_missing_ones_are_an_error(
    write_images: Write, model: Path, tmp_path: Path
) -> None:
    import ray  # optional

    import posedy.ray

    images = write_images(tmp_path / "in", 3)
    dataset = ray.data.from_items(
        [{"content": {"bytes": image.read_bytes()}, "id": image.name} for image in images]
        + [{"content": {"bytes": None}, "id": "none"}]
    )
    predicted = posedy.ray.predict(
        dataset, model=model, detector="full-image", image_column="content", name_column="id", actors=1
    )
    rows = predicted.take_all()
    check_equal(poses_of(rows), expected_poses(tmp_path / "in", model, tmp_path / "one"))
    assert [row["image"] for row in rows if row["error"]] == ["none"]
    with pytest.raises(ValueError, match=r"no column 'bytes': its columns are \['content', 'id'\]"):
        posedy.ray.predict(dataset, model=model)
    with pytest.raises(ValueError, match="is not empty, and its files would be read as results"):
        posedy.ray.predict(str(tmp_path / "in"), str(tmp_path / "in"), model=model)
    json.dumps(rows[0])  # plain values
