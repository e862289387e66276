"""The README's commands are commands that exist, on files of the repository that exist."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from posedy.cli.main import make_parser

REPOSITORY = Path(__file__).parents[1]
README = (REPOSITORY / "README.md").read_text()
TOOLS = {"tools/train.py": "train", "tools/test.py": "test", "tools/demo.py": "demo"}


def blocks(language: str) -> list[str]:
    """The README's code blocks of a language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    return [block for name, block in found if name == language]


def commands() -> list[list[str]]:
    """The words of each command of posedy's, without what stands before and after it."""
    found = []
    for block in blocks(""):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            for index, word in enumerate(words):
                if word == "posedy" and index == 0:
                    found.append(words[1:])
                elif word in TOOLS:
                    found.append([TOOLS[word], *words[index + 1 :]])
                elif word.startswith("tools.lab."):
                    found.append(words[index:])
    return found


def test_there_are_commands_of_every_kind() -> None:
    assert len(commands()) >= 20
    for kind in ("train", "test", "demo", "eval", "compare", "report", "detect", "export", "check"):
        assert any(words[0] == kind for words in commands()) or f"`posedy {kind} " in README


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_commands_parse(words: list[str]) -> None:
    if words[0].startswith("tools.lab."):
        assert importlib.util.find_spec(words[0]) is not None
        return
    parser = make_parser()
    words = [word for word in words if word != "..."]
    if not any(word.endswith(".yaml") for word in words) and words[0] in ("train", "test"):
        words.insert(1, "some.yaml")  # left out with "..."
    parsed, rest = parser.parse_known_args(words)
    assert all("=" in word for word in rest)
    config = getattr(parsed, "config", None)
    if config is not None and config.parts[0] == "configs":
        assert (REPOSITORY / config).is_file()


@pytest.mark.parametrize("name", re.findall(r"`((?:posedy|configs|tools|docs)/[\w/.-]+\.\w+)`", README))
def test_files_that_it_names_exist(name: str) -> None:
    assert (REPOSITORY / name).is_file()


@pytest.mark.parametrize("link", re.findall(r"\]\((?!http|#)([^)]+)\)", README))
def test_links_lead_somewhere(link: str) -> None:
    assert (REPOSITORY / link).exists()
