import importlib.metadata
import inspect
import re
import subprocess
import sys

import pytest

import posedy


def test_import_is_lazy() -> None:
    code = "import sys, posedy; print([m for m in ('torch', 'numpy', 'cv2', 'pydantic') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("name", posedy.__all__)
def test_every_public_name_exists(name: str) -> None:
    assert getattr(posedy, name) is getattr(posedy, name)
    assert name in dir(posedy)


def test_public_names_are_those_of_their_modules() -> None:
    from posedy.inference.estimator import PoseEstimator
    from posedy.models.factory import create_model

    assert posedy.PoseEstimator is PoseEstimator
    assert posedy.create_model is create_model
    assert posedy.__version__ == importlib.metadata.version("posedy")


def test_unknown_names_raise_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"'PoseEstimater'.*PoseEstimator"):
        posedy.PoseEstimater  # noqa: B018


def public_callables() -> list[str]:
    """The public names that are classes or functions."""
    return [name for name in posedy.__all__ if callable(getattr(posedy, name))]


@pytest.mark.parametrize("name", public_callables())
def test_the_first_line_of_every_docstring_ends_with_a_period(name: str) -> None:
    text = getattr(posedy, name).__doc__
    assert text
    assert text.splitlines()[0].endswith(".")


@pytest.mark.parametrize("name", public_callables())
def test_every_parameter_is_in_the_docstring(name: str) -> None:
    value = getattr(posedy, name)
    text = inspect.getdoc(value) or ""
    missing = [
        parameter.name
        for parameter in inspect.signature(value).parameters.values()
        # the signature of a class without __init__ is (*args, **kwargs)
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or not isinstance(value, type)
        if not re.search(rf"\b{re.escape(parameter.name)}\b", text)
    ]
    assert missing == []


@pytest.mark.parametrize("name", [name for name in public_callables() if isinstance(getattr(posedy, name), type)])
def test_every_public_method_has_a_docstring(name: str) -> None:
    members = vars(getattr(posedy, name)).items()
    documented = {
        member: value
        for member, value in members
        if not member.startswith("_") and (inspect.isfunction(value) or isinstance(value, property))
    }
    assert [member for member, value in documented.items() if not value.__doc__] == []


def test_arguments_of_another_type_are_named() -> None:
    for call in (
        lambda: posedy.fuse("balanced"),
        lambda: posedy.set_temperature("balanced", 1),
        lambda: posedy.smooth_tracks([]),
        lambda: posedy.TrackTable.from_poses(["balanced"]),
        lambda: posedy.PoseTracker("balanced"),
        lambda: posedy.to_dynamic("balanced"),
        lambda: posedy.to_static("balanced"),
        lambda: posedy.save_checkpoint("balanced", "net.pt"),
        lambda: posedy.export_onnx("balanced", "net.onnx"),
    ):
        with pytest.raises(TypeError, match=r"expected .*(balanced|\[\]|str)"):
            call()
