"""Import of modules that register backbones, heads, codecs and detectors."""

import importlib
import os
import sys
from collections.abc import Sequence


def import_modules(names: Sequence[str]) -> None:
    """Imports modules by name, also from the working directory, which is added to `sys.path` as by `python -m`.

    Raises:
        ValueError: if a module is missing or fails to import; the message names it.
    """
    folder = os.getcwd()  # noqa: PTH109 - entries of sys.path are text
    if names and "" not in sys.path and folder not in sys.path:
        sys.path.insert(0, folder)
    for name in names:
        try:
            importlib.import_module(name)
        except (Exception, SystemExit) as error:  # user modules may raise any error, and scripts may exit
            hint = ""
            if not all(part.isidentifier() for part in name.split(".")) or name.endswith(".py"):
                hint = "; expected the name of a module such as my_package.my_parts, without folder and suffix"
            elif isinstance(error, ModuleNotFoundError) and error.name == name.split(".")[0]:
                hint = f"; it is searched for in the working directory {folder} and in sys.path"
            raise ValueError(
                f"the module {name!r} cannot be imported ({type(error).__name__}: {error}){hint}"
            ) from error
