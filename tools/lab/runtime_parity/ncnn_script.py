"""Runs an ONNX file in ncnn, in an environment without posedy: `PYTHON ncnn_script.py FILE.onnx INPUTS OUTPUTS`.

The packages are ncnn, pnnx, which converts the file, and numpy. INPUTS and OUTPUTS are .npy files: inputs are
(N, C, H, W), outputs those of the first output of the graph. ncnn computes in float32 here; its default is float16,
with which keypoints differ by up to some pixels.
"""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np


def main(file: Path, inputs: Path, outputs: Path) -> None:
    """Converts the file next to it, runs it once per input and writes the outputs."""
    import ncnn

    images = np.load(inputs)
    shape = ",".join(str(size) for size in (1, *images.shape[1:]))
    package = importlib.util.find_spec("pnnx")
    if package is None or package.origin is None:
        raise ValueError("pnnx is not installed")
    converter = Path(package.origin).with_name("pnnx")  # an executable; the package itself imports torch
    command = [str(converter), str(file.resolve()), f"inputshape=[{shape}]", "fp16=0"]
    subprocess.run(command, cwd=file.parent, stdout=sys.stderr, check=True)
    net = ncnn.Net()
    for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
        setattr(net.opt, option, False)
    if net.load_param(str(file.with_suffix(".ncnn.param"))) or net.load_model(str(file.with_suffix(".ncnn.bin"))):
        raise ValueError(f"ncnn cannot load the conversion of {file}")
    results = []
    for image in images:
        extractor = net.create_extractor()
        extractor.input("in0", ncnn.Mat(image))
        results.append(np.array(extractor.extract("out0")[1]))
    np.save(outputs, np.stack(results))


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:]))
