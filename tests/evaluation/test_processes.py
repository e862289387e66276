"""`posedy test` and `posedy detect` in two processes of torchrun: the records of one process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import posedy
from posedy.evaluation.processes import gather_items, join_processes, own_share

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]


def run(program: list[str], *arguments: str | Path) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*program, *map(str, arguments)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 5])
def test_two_processes_write_the_results_of_one(synthetic: Path, tmp_path: Path, batch_size: int) -> None:
    net = posedy.create_model("dy_mobilenetv2_035-bneck", input_size=(64, 64)).eval()
    posedy.save_checkpoint(net, tmp_path / "net.pt")
    config = tmp_path / "config.yaml"
    config.write_text(
        f"data: {{root: {synthetic}}}\nmodel: {{name: {net.name}, input_size: [64, 64]}}\n"
        f"train: {{workers: 0}}\neval: {{batch_size: {batch_size}}}\n"
    )
    command = ["posedy", "test", config, "--checkpoint", tmp_path / "net.pt", "--out"]
    printed = {}
    for name, program in {"one": [sys.executable, "-m"], "two": TORCHRUN}.items():
        printed[name] = run(program, *command, tmp_path / name)
    assert printed["one"].replace(str(tmp_path / "one"), "OUT") == printed["two"].replace(str(tmp_path / "two"), "OUT")
    one, two = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("one", "two"))
    if batch_size == 1:
        assert one == two
    assert [record["image_id"] for record in one] == [record["image_id"] for record in two]
    np.testing.assert_allclose([r["keypoints"] for r in two], [r["keypoints"] for r in one], atol=0.01)
    np.testing.assert_allclose([r["score"] for r in two], [r["score"] for r in one], atol=1e-5)
    one, two = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "two"))
    assert one == two


@pytest.mark.slow
def test_two_processes_detect_the_boxes_of_one(tmp_path: Path) -> None:
    """More images than one process gets at a time."""
    source = Path(posedy.__file__).parent / "examples"
    images = tmp_path / "images"
    images.mkdir()
    for number in range(72):
        example = sorted(source.glob("*.jpg"))[number % 6]
        (images / f"{number:03d}.jpg").symlink_to(example)
    for name, program in {"one": [sys.executable, "-m"], "two": TORCHRUN}.items():
        run(program, "posedy", "detect", images, "--out", tmp_path / f"{name}.json")
    one, two = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two"))
    assert one["images"] == two["images"]
    assert len(one["annotations"]) > 100
    np.testing.assert_allclose(
        [r["bbox"] for r in two["annotations"]], [r["bbox"] for r in one["annotations"]], atol=0.01
    )


def test_shares_are_disjoint_runs_of_items() -> None:
    class Process:
        num_processes, process_index = 3, 1

    share = own_share(range(20), Process(), 4)  # type: ignore[arg-type]
    assert [index for index, _ in share] == [4, 5, 6, 7, 16, 17, 18, 19]
    assert own_share("abc", None, 4) == [(0, "a"), (1, "b"), (2, "c")]
    assert gather_items([(1, "b"), (0, "a")], None) == ["a", "b"]


def test_one_process_joins_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert join_processes() is None
