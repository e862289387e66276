import importlib.metadata
import subprocess
import sys

import pytest

import posedy


def test_import_is_light() -> None:
    code = "import sys, posedy; print([m for m in ('torch', 'numpy', 'cv2', 'pydantic') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("name", posedy.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(posedy, name) is getattr(posedy, name)
    assert name in dir(posedy)


def test_the_names_are_what_they_say() -> None:
    from posedy.inference.estimator import PoseEstimator
    from posedy.models.registry import create_model

    assert posedy.PoseEstimator is PoseEstimator
    assert posedy.create_model is create_model
    assert posedy.__version__ == importlib.metadata.version("posedy")


def test_unknown_names_are_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'PoseEstimater'.*PoseEstimator"):
        posedy.PoseEstimater  # noqa: B018
