"""The sdist and the wheel contain what they should, and the core package works without optional packages."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import posedy
from posedy.models.pretrained import DEFAULT
from posedy.models.registry import weights_path

REPOSITORY = Path(__file__).parents[1]
MAX_WHEEL_MB = 50  # files on PyPI may have 100 MB
OPTIONAL = {
    *("gradio", "hotcoco", "onnx", "onnxruntime", "onnxscript", "openvino", "pandas", "supervision", "timm", "triton"),
    *("playwright", "hypothesis", "pytest"),
}
"""Modules that the core package does without; `google.protobuf` comes with onnx."""
# modules that are imported for an optional package only
NEED_OPTIONAL = {
    "posedy/app/page.py": {"gradio"},
    "posedy/models/kernels/batch_norm.py": {"triton"},
    "posedy/models/kernels/depthwise.py": {"triton"},
}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel that is built from it."""
    if importlib.util.find_spec("build") is None:
        pytest.skip("needs the package build")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(REPOSITORY)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def package_files(folder: str) -> set[str]:
    """The files of a folder of the repository, without caches."""
    paths = [path for path in (REPOSITORY / folder).rglob("*") if path.is_file() and path.suffix != ".pyc"]
    return {path.relative_to(REPOSITORY).as_posix() for path in paths}


@pytest.mark.slow
def test_the_wheel_contains_the_package_only(packages: Path) -> None:
    [wheel] = packages.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == package_files("posedy")
    assert "posedy/py.typed" in names
    assert weights_path(DEFAULT).relative_to(REPOSITORY).as_posix() in names
    assert {name.rpartition(".")[0] for name in names if name.endswith(".safetensors")} <= {
        name.removesuffix(".md") for name in names if name.endswith(".md")
    }, "each file of weights has a model card"
    assert wheel.stat().st_size < MAX_WHEEL_MB * 1e6


@pytest.mark.slow
def test_the_wheel_has_its_licenses(packages: Path) -> None:
    [wheel] = packages.glob("*.whl")
    names = [name.rpartition("/")[2] for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" in name]
    assert {"LICENSE", "NOTICE", "METADATA", "entry_points.txt"} <= set(names)


@pytest.mark.slow
def test_the_sdist_contains_what_the_tests_need(packages: Path) -> None:
    [sdist] = packages.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        members = [member for member in archive.getmembers() if member.isfile()]
    names = {member.name.partition("/")[2] for member in members}
    for folder in ("posedy", "tests", "tools", "configs", "docs", "data/coco_mini"):
        assert package_files(folder) <= names
    assert {"README.md", "LICENSE", "NOTICE", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "Makefile"} <= names
    assert {"CITATION.cff", "pyproject.toml", "data/README.md"} <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith((".", "runs/", "data/coco/"))]
    assert sdist.stat().st_size < MAX_WHEEL_MB * 1e6


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("twine") is None, reason="needs twine")
def test_twine_accepts_both(packages: Path) -> None:
    files = [str(path) for path in packages.iterdir()]
    checked = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *files], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_optional_packages_are_imported_where_they_are_needed() -> None:
    for path in (REPOSITORY / "posedy").rglob("*.py"):
        name = path.relative_to(REPOSITORY).as_posix()
        imported = set()
        for statement in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(statement, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in statement.names}
            elif isinstance(statement, ast.ImportFrom):
                imported.add((statement.module or "").partition(".")[0])
        assert imported & OPTIONAL == NEED_OPTIONAL.get(name, set()), name


CORE_PROGRAM = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in OPTIONAL:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())

import importlib.util

find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in OPTIONAL else find_spec(name, package)

from posedy.cli.main import main

for line in sys.stdin.read().splitlines():
    assert main(line.split()) == 0, line
assert not OPTIONAL & sys.modules.keys()
"""


@pytest.mark.slow
def test_the_core_package_predicts_trains_and_evaluates(synthetic: Path, tmp_path: Path) -> None:
    annotations = synthetic / "annotations/person_keypoints_val2017.json"
    small = "model.name=mobilenetv2_035-fpn model.input_size=[32,64] train.epochs=1 train.batch_size=8 train.workers=0"
    (tmp_path / "small.yaml").write_text(f"data: {{root: {synthetic}}}\n")
    image = next((REPOSITORY / "data/coco_mini/val2017").glob("*.jpg"))
    commands = [
        f"predict {image} --out out",
        f"train small.yaml {small} --out run",
        "test run/config.yaml --checkpoint run/best.pt --boxes gt --out test",
        f"eval test/results.json --annotations {annotations} --ci",
        "report test",
    ]
    done = subprocess.run(
        [sys.executable, "-c", f"OPTIONAL = {OPTIONAL}\n{CORE_PROGRAM}"],
        input="\n".join(commands),
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "out/keypoints.json").is_file()


def test_no_code_in_files_is_run() -> None:
    """SECURITY.md: posedy calls no eval, exec, pickle or shell, and torch.load reads tensors and plain types."""
    calls, modules = {"eval", "exec", "compile", "__import__"}, {"pickle", "subprocess"}
    for path in (REPOSITORY / "posedy").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert not modules & {alias.name for alias in node.names}, path
            if isinstance(node, ast.ImportFrom):
                assert node.module not in modules, path
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                assert name not in calls, path
                if name == "torch.load":
                    assert "weights_only=True" in [ast.unparse(keyword) for keyword in node.keywords], path
                assert name not in ("os.system", "yaml.unsafe_load", "yaml.full_load"), path


def test_the_citation_file_has_the_fields_of_cff() -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= citation.keys()
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert str(citation["version"]) == project["version"] == posedy.__version__
    assert citation["license"] == project["license"]
    [paper] = citation["references"]
    assert {"type", "title", "authors"} <= paper.keys()
    assert "Dynamic Convolution" in paper["title"]


@pytest.mark.skipif(not (REPOSITORY / ".github").is_dir(), reason="not in the sdist")
@pytest.mark.parametrize("name", ["bug", "question", "feature"])
def test_issue_templates_ask_for_version_and_environment(name: str) -> None:
    form = yaml.safe_load((REPOSITORY / f".github/ISSUE_TEMPLATE/{name}.yml").read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= form.keys()
    fields = {entry["id"]: entry for entry in form["body"] if entry["type"] != "markdown"}
    assert re.search(r"`posedy --version`", fields["version"]["attributes"]["label"])
    assert "environment" in fields
    for entry in fields.values():
        assert entry["type"] in ("input", "textarea", "dropdown", "checkboxes")
        assert entry["attributes"]["label"]
