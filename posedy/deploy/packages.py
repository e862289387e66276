"""The packages of the extra `export`, asked for before they are needed."""

import importlib.util


def require(*packages: str) -> None:
    """Makes sure that packages are installed.

    Raises:
        ValueError: if one is missing; the message says how to install it.
    """
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise ValueError(f"ONNX files need the package {missing[0]}: pip install 'posedy[export]'")
