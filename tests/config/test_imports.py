import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from posedy.config.imports import import_modules


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with modules of a user, which is not on sys.path."""
    package = tmp_path / "user_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "backbones.py").write_text("from user_package import __name__ as package\n")
    (package / "broken.py").write_text("import user_package.absent\n")
    (package / "failing.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(tmp_path))])
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("user_package")]:
        del sys.modules[name]


def test_import_modules_imports_from_the_working_directory(folder: Path) -> None:
    import_modules(["user_package.backbones", "json"])
    assert sys.modules["user_package.backbones"].package == "user_package"
    assert sys.path.count(str(folder)) == 1
    import_modules(["user_package.backbones"])
    assert sys.path.count(str(folder)) == 1


def test_import_modules_leaves_the_path_unchanged_without_names(folder: Path) -> None:
    import_modules([])
    assert str(folder) not in sys.path


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("user_package.absent", "No module named 'user_package.absent'"),
        ("user_package.broken", "No module named 'user_package.absent'"),
        ("user_package.failing", "ZeroDivisionError"),
        (".relative", "TypeError"),
    ],
)
def test_import_modules_names_the_module_that_fails(folder: Path, name: str, reason: str) -> None:
    with pytest.raises(ValueError, match=rf"{re.escape(name)}.*{re.escape(reason)}"):
        import_modules([name])


def test_a_module_that_exits_is_named(folder: Path) -> None:
    (folder / "user_package" / "script.py").write_text("raise SystemExit(7)\n")
    with pytest.raises(ValueError, match=r"user_package\.script"):
        import_modules(["user_package.script"])


@pytest.mark.parametrize("name", ["user_package.py", "./user_package", ".user_package", ""])
def test_a_path_instead_of_a_module_name_is_explained(folder: Path, name: str) -> None:
    with pytest.raises(ValueError, match="name of a module"):
        import_modules([name])


def test_a_missing_module_is_explained_by_where_it_is_searched(folder: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(str(folder))):
        import_modules(["absent_parts"])
