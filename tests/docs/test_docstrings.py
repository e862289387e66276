"""The first lines of public docstrings stand alone, and their sample is reproducible."""

import re
from pathlib import Path

import pytest

from tools.docs import docstrings
from tools.docs.docstrings import PublicObject, public_objects

FILLERS = {
    "a",
    "an",
    "the",
    "of",
    "and",
    "or",
    "to",
    "in",
    "on",
    "for",
    "from",
    "with",
    "is",
    "are",
    "this",
    "it",
    "its",
}
BAD_SOURCE = '''
class BoxScores:
    """The box scores."""

    @property
    def count(self):
        """Over all processes, without a period"""

    def read(self):
        """Reads a file of scores. Then checks them."""

    def write(self):
        pass

    def clear(self):
        """Removes the scores of all boxes."""
'''


def words(text: str) -> set[str]:
    """The words of a name or sentence without fillers and plural or third-person endings."""
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)
    return {word.rstrip("s") for word in re.findall(r"[a-z0-9]+", text.lower()) if word not in FILLERS}


def problem(item: PublicObject) -> str | None:
    """Why the first line of a docstring doesn't stand alone, or none."""
    if not item.first_line.endswith("."):
        return "does not end with a period"
    if re.search(r"(?<!e\.g)(?<!i\.e)(?<!vs)[.!?] +[A-Z]", item.first_line):
        return "is more than one sentence"
    own_name = item.name.rpartition(".")[2].replace("_", " ")
    if len(words(item.first_line) - words(own_name)) < 2:
        return "says hardly more than the name"
    return None


@pytest.mark.slow
def test_the_seed_determines_the_sample(capsys: pytest.CaptureFixture[str]) -> None:
    outputs = []
    for seed in (0, 0, 1):
        docstrings.main(["--count", "5", "--seed", str(seed)])
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] != outputs[2]
    names = [line for line in outputs[0].splitlines() if line.startswith("posedy.")]
    assert len(set(names)) == 5


def test_public_objects_are_those_without_an_underscore(tmp_path: Path) -> None:
    package = tmp_path / "package"
    (package / "sub").mkdir(parents=True)
    (package / "sub/__init__.py").write_text("def shown(x: int, *, y=2) -> str: ...\ndef _hidden(): ...\n")
    (package / "_private.py").write_text("def hidden(): ...\n")
    (package / "boxes.py").write_text(
        "class Boxes(list):\n"
        "    @property\n    def size(self) -> int: ...\n"
        "    @size.setter\n    def size(self, value): ...\n"
        "class _Hidden:\n    def hidden(self): ...\n"
    )
    assert [(item.name, item.signature) for item in public_objects(package)] == [
        ("package.boxes.Boxes", "class Boxes(list)"),
        ("package.boxes.Boxes.size", "property size -> int"),
        ("package.sub.shown", "def shown(x: int, *, y=2) -> str"),
    ]


def test_first_lines_stand_alone() -> None:
    objects = public_objects()
    assert len(objects) > 500
    problems = [f"{item.name}: {item.first_line!r} {reason}" for item in objects if (reason := problem(item))]
    assert not problems, "\n".join(problems)


def test_bad_first_lines_are_found(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "scores.py").write_text(BAD_SOURCE)
    assert {item.name.rpartition(".")[2]: problem(item) for item in public_objects(package)} == {
        "BoxScores": "says hardly more than the name",
        "count": "does not end with a period",
        "read": "is more than one sentence",
        "write": "does not end with a period",
        "clear": None,
    }
