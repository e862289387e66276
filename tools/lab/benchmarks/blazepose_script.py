"""Times BlazePose in an environment that has MediaPipe but not posedy: `PYTHON blazepose_script.py TASK`.

TASK is JSON with `image`, `threads` and `rounds`. The last line of the output is JSON: `calls`, the seconds of
`mediapipe.solutions.pose` on the image by round; `networks`, those of the keypoint networks alone in LiteRT, if
it is installed; `files`, the keypoint networks; `missing`, the names of those that the package does not have.
"""

import json
import os
import sys
from pathlib import Path

VARIANTS = ("lite", "full", "heavy")
"""The keypoint networks in the order of MediaPipe's `model_complexity`."""

MEDIAPIPE_HELP = """\
BlazePose needs an environment of its own, given as --mediapipe-python mp/bin/python (Python 3.9 to 3.12; the last two
lines add the keypoint networks lite and heavy, which MediaPipe would download at the first use):

python3.11 -m venv mp && mp/bin/pip install mediapipe==0.10.21 ai-edge-litert
npm pack @mediapipe/pose@0.5.1675469404 && tar xzf mediapipe-pose-0.5.1675469404.tgz
cp package/*.tflite mp/lib/python3.11/site-packages/mediapipe/modules/pose_landmark/"""


def main(task: dict) -> dict:
    """Measures what the task says and returns the result in plain types."""
    # MediaPipe has no option for the number of threads: all of its threads share these cores
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: task["threads"]])
    import cv2
    import mediapipe
    from ratios import measure_interleaved  # next to this file, the first entry of sys.path

    folder = Path(mediapipe.__file__).parent / "modules/pose_landmark"
    files = {name: folder / f"pose_landmark_{name}.tflite" for name in VARIANTS}
    files = {name: str(file) for name, file in files.items() if file.is_file()}  # MediaPipe downloads missing ones
    image = cv2.cvtColor(cv2.imread(task["image"]), cv2.COLOR_BGR2RGB)
    calls = {}
    for name in files:
        for kind, is_static in (("tracked", False), ("with detector", True)):
            pose = mediapipe.solutions.pose.Pose(static_image_mode=is_static, model_complexity=VARIANTS.index(name))
            if pose.process(image).pose_landmarks is None:
                raise ValueError(f"BlazePose {name} found no person in {task['image']}")
            calls[f"BlazePose {name}, {kind}"] = lambda pose=pose: pose.process(image)
    networks = _keypoint_networks(files, task["threads"])
    return {
        "calls": measure_interleaved(calls, task["rounds"]),
        "networks": measure_interleaved(networks, task["rounds"]),
        "files": files,
        "missing": [name for name in VARIANTS if name not in files],
    }


def _keypoint_networks(files: dict, threads: int) -> dict:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        return {}
    import numpy as np

    calls = {}
    for name, file in files.items():
        interpreter = Interpreter(file, num_threads=threads)
        interpreter.allocate_tensors()
        (inputs,) = interpreter.get_input_details()
        crop = np.random.default_rng(0).random(inputs["shape"], np.float32)
        interpreter.set_tensor(inputs["index"], crop)
        calls[f"BlazePose {name}"] = interpreter.invoke
    return calls


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
