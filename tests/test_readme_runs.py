"""Every command and code block of the README runs, in a folder where the files that it speaks of are: drawn ones.

What cannot run as it stands is in `INSTEAD` and `NOT_RUN`, with the reason.
"""

import importlib
import importlib.util
import io
import re
import shlex
import shutil
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState

from posedy.cli.main import main
from posedy.data.coco_results import write_results
from posedy.inference.video_io import VideoRecording
from posedy.skeleton import COCO17
from tools.lab.baselines import truth_results
from tools.lab.synthetic.film import draw_film

from .test_readme import README, REPOSITORY, TOOLS, blocks

pytestmark = pytest.mark.slow
# the data of the README is COCO's or the reader's: drawn here, and few; networks and trainings are small
SMALL = ["model.input_size=[32,64]", "train.epochs=1", "train.batch_size=8", "train.workers=0", "train.precision=fp32"]
NOT_RUN = {
    "make ": "are the repository's own checks, and take longer",
    "pip install": "installs, which is what runs before these tests",
    "#": "a comment",
    "torchrun --nnodes": "needs two machines",
    "HOST=": "needs SLURM",
    "srun ": "needs SLURM",
    "python -m tools.lab.sweep": "takes hours; a small sweep is in tests/lab/test_sweep.py",
}
INSTEAD = {
    "torchrun --standalone --nproc-per-node 8 tools/train.py": "python tools/train.py",  # needs 8 GPUs
    "data.root=/data/coco": "data.root=data/coco",
    "/data/coco/": "data/coco/",
    # torchvision's weights are fetched
    "posedy demo photos/ more/*.jpg": "posedy demo photos/ more/*.jpg --detector-weights detector.pth",
    "posedy demo video.mp4": "posedy demo video.mp4 --detector-weights detector.pth",
    "posedy demo --webcam 0": "posedy demo --webcam 0 --detector-weights detector.pth",
    "posedy detect": "posedy detect --detector-weights detector.pth",
    "weights='DEFAULT'": "weights=None",  # fetched
    # minutes
    "tools.lab.benchmarks video": "tools.lab.benchmarks video --frames 4 --timed-frames 3 --rounds 1",
    "--timed-frames 100": "",
    "benchmarks latency": "benchmarks latency --runtimes fused --models dy_mobilenetv2_035 --rounds 1",
    "benchmarks layers": "benchmarks layers --batch 1 --rounds 1",
    "python -m tools.lab.synthetic data/": "python -m tools.lab.synthetic new/",
    "FILE --images FOLDER": "my/train.json --images my/photos",
    "--train 2000 --val 128": "--train 8 --val 8",
    "--train 2000": "--train 8",
}


def lines() -> list[str]:
    """The lines of the README's command blocks, those that go on joined, and the commands within its text."""
    found = [line.strip() for block in blocks("") for line in block.replace("\\\n", " ").splitlines() if line.strip()]
    spoken = re.findall(r"`((?:posedy|python -m tools\.lab\.)[a-z ]+[^`]*)`", README.replace("\n", " "))
    mentioned = [line for line in spoken if len(line.split()) == 2 and line != "posedy models"]
    parts = [line for line in spoken if "..." in line or "NAME" in line]
    return list(dict.fromkeys(line for line in found + spoken if line not in mentioned + parts))


@pytest.fixture(scope="module")
def workshop(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the README speaks of."""
    folder = tmp_path_factory.mktemp("workshop")
    for name in ("configs", "tools", "posedy"):
        (folder / name).symlink_to(REPOSITORY / name)
    for name in ("coco", "drawn"):
        shutil.copytree(drawn, folder / "data" / name)
    annotations = drawn / "annotations"
    truth, photos = annotations / "person_keypoints_val2017.json", drawn / "val2017"
    (folder / "my").mkdir()
    for name in ("train", "val"):
        shutil.copy(truth, folder / f"my/{name}.json")
    shutil.copytree(photos, folder / "my/photos")
    for name in ("photos", "more", "val2017"):
        shutil.copytree(photos, folder / name)
    for name in ("photo.jpg", "me.jpg"):
        shutil.copy(next(photos.glob("*.jpg")), folder / name)
    shutil.copy(truth, folder / "instances.json")
    shutil.copy(truth, folder / truth.name)
    shutil.copy(annotations / "person_detections_val2017.json", folder / "boxes.json")
    for name in ("results.json", "a.json", "b.json"):
        write_results(folder / name, truth_results(truth))
    configuration = blocks("yaml")[0]
    for word, name in (("wing_a", "left_wrist"), ("wing_b", "right_wrist"), ("head", "nose")):  # the drawn people's
        configuration = configuration.replace(word, name)
    (folder / "my.yaml").write_text(configuration)
    recording = VideoRecording(folder / "video.mp4", 30.0)
    for number, frame in enumerate(draw_film(0, 4, 2, (160, 96))):
        recording.write(frame.image, number / 30)
    recording.close()
    torch.manual_seed(0)
    from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

    detector = fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None)
    torch.save(detector.state_dict(), folder / "detector.pth")
    run, config = folder / "runs/x", REPOSITORY / "configs/coco/dy_mobilenetv2_050-dy_bneck.yaml"
    data = f"data.root={folder / 'data/coco'}"
    assert main(["train", str(config), data, *SMALL, "--out", str(run)]) == 0
    shutil.copytree(run, folder / "runs/dy050")
    given = ["--checkpoint", str(run / "best.pt"), "--boxes", "gt", "--out", str(folder / "runs/dy050/test-gt")]
    assert main(["test", str(run / "config.yaml"), *given]) == 0
    return folder


@pytest.fixture(autouse=True)
def at_work(workshop: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In the workshop, where camera 0 shows the video."""
    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.chdir(workshop)
    monkeypatch.setattr(sys, "path", [str(workshop), *sys.path])
    opened = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", lambda source: opened("video.mp4" if source == 0 else source))
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize("line", [line for line in lines() if not line.startswith(tuple(NOT_RUN))])
def test_a_command_does_what_the_readme_says(line: str, workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, others in INSTEAD.items():
        line = line.replace(words, others)
    words = shlex.split(line, comments=True)
    if words[0] == "python" and words[1] == "-c":
        exec(words[2], {})
        return
    if words[0] == "python" and words[1] == "-m":
        module = words[2] if importlib.util.find_spec(f"{words[2]}.__main__") is None else f"{words[2]}.__main__"
        importlib.import_module(module).main([given for word in words[3:] for given in _expanded(word, workshop)])
        return
    words = [TOOLS[words[1]], *words[2:]] if words[0] == "python" else words[1:]
    if words[0] == "train":  # a new run, and a short one
        shutil.rmtree(workshop / "new/runs", ignore_errors=True)
        words = [f"new/{word}" if words[index - 1] == "--out" else word for index, word in enumerate(words)] + SMALL
    if words[0] == "test":
        words.append("model.input_size=[32,64]")
    given = [word for pattern in words for word in _expanded(pattern, workshop)]
    assert main(given) == 0, capsys.readouterr().err


def _expanded(word: str, folder: Path) -> list[str]:
    """A pattern of files as a shell gives it."""
    if "*" not in word:
        return [word]
    return [str(path.relative_to(folder)) for path in sorted(folder.glob(word))]


def test_the_python_of_the_readme_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    pandas = pytest.importorskip("pandas")
    supervision = types.SimpleNamespace(KeyPoints=lambda xy, confidence: (xy.shape, confidence.shape))  # not installed
    for block in blocks("python"):
        scope = {"pandas": pandas, "io": io, "supervision": supervision, "np": np}
        exec(block, scope)
        if "table" in scope:
            assert len(scope["poses"]) == 1
            assert scope["table"]["keypoint"].tolist() == list(COCO17.keypoints)
            assert scope["points"] == ((1, 17, 2), (1, 17))
