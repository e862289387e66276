"""The commands, options, configuration keys, files and links in README.md and docs/ exist."""

import argparse
import importlib.util
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from posedy.cli.main import COMMANDS, make_parser
from posedy.config import ClassifierConfig, Config
from posedy.config.section import as_section

REPOSITORY = Path(__file__).parents[1]
DOCUMENTS = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
TEXT = "\n".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
TOOLS = {"tools/train.py": "train", "tools/test.py": "test", "tools/demo.py": "demo"}
# options of torchrun, of tools.lab and of MMPose
OTHER_OPTIONS = {"--standalone", "--config", "--cpus-per-task", "--per-shard", "--rounds", "--runtimes"}
OTHER_OPTIONS |= {"--cfg-options", "--work-dir", "--resume", "--amp", "--auto-scale-lr", "--launcher"}


def name_of(path: Path) -> str:
    """The path of a document in the repository."""
    return path.relative_to(REPOSITORY).as_posix()


def blocks(language: str) -> list[str]:
    """The code blocks of a language in all documents, "" for commands."""
    return [block for path in DOCUMENTS for block in blocks_of(path, language)]


def blocks_of(path: Path, language: str) -> list[str]:
    """The code blocks of a language in a document."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [block for name, block in found if name == language]


def lines() -> list[str]:
    """The commands in blocks, with continued lines joined, and the complete commands in inline code."""
    in_blocks = [line for block in blocks("") for line in block.replace("\\\n", " ").splitlines()]
    in_blocks = [" ".join(re.sub(r"(^|\s)#.*", "", line).split()) for line in in_blocks]  # without comments
    inline = re.findall(r"`((?:posedy |python -m tools\.lab\.)[a-z ]+[^`]*)`", TEXT.replace("\n", " "))
    complete = [line for line in inline if len(line.split()) > (3 if line.startswith("python") else 2)]
    complete += [line for line in ("posedy models", "python -m tools.lab.paper") if line in inline]
    return list(dict.fromkeys(line for line in in_blocks + complete if line and "NAME" not in line))


def commands() -> list[list[str]]:
    """The arguments of each posedy command, and those of tools.lab from the name of the module."""
    found = []
    for line in lines():
        argv = shlex.split(line)
        for index, argument in enumerate(argv):
            if argument == "posedy" and index == 0 and argv[1] != "--version":
                found.append(argv[1:])
            elif argument in TOOLS:
                found.append([TOOLS[argument], *argv[index + 1 :]])
            elif argument.startswith("tools.lab."):
                found.append(argv[index:])
    return found


@cache
def posedy_parser() -> argparse.ArgumentParser:
    """The parser of all commands, made once."""
    return make_parser()


def all_options(parser: argparse.ArgumentParser) -> set[str]:
    """The options of a parser and of its commands."""
    options = {option for action in parser._actions for option in action.option_strings}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            options |= {option for command in action.choices.values() for option in all_options(command)}
    return options


def config_keys(section: type = Config, prefix: str = "") -> Iterator[str]:
    """The keys of sections and values of the configuration."""
    for name, field in section.model_fields.items():
        yield f"{prefix}{name}"
        inner = as_section(field.annotation)
        if inner is not None:
            yield from config_keys(inner, f"{prefix}{name}.")


def test_readme_is_short() -> None:
    text = DOCUMENTS[0].read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 200
    assert len(text.split()) <= 1200


def test_each_page_is_two_links_from_the_index() -> None:
    index = REPOSITORY / "docs/README.md"
    first = linked_pages(index)
    second = {page for path in first if path.name == "README.md" for page in linked_pages(path)}
    assert set(DOCUMENTS[1:]) - {index} <= first | second


def linked_pages(path: Path) -> set[Path]:
    """The Markdown files that a page links to."""
    text = path.read_text(encoding="utf-8")
    return {(path.parent / name).resolve() for name in re.findall(r"\]\((?!http)([^)#]+\.md)", text)}


@pytest.mark.parametrize("path", DOCUMENTS[1:], ids=name_of)
def test_a_page_begins_with_its_readers_and_its_content(path: Path) -> None:
    title, first = path.read_text(encoding="utf-8").split("\n\n")[:2]
    assert re.fullmatch("# .+", title)
    assert re.match(r"This page is for [^.:]+: it ", first)


@pytest.mark.parametrize(
    "command",
    sorted(COMMANDS),
)
def test_each_command_is_documented(command: str) -> None:
    assert any(argv[0] == command for argv in commands())


@pytest.mark.parametrize("argv", commands(), ids=" ".join)
def test_commands_parse(argv: list[str]) -> None:
    if argv[0].startswith("tools.lab."):
        assert importlib.util.find_spec(argv[0]) is not None
        return
    parser = posedy_parser()
    argv = [argument for argument in argv if argument != "..."]
    if not any(argument.endswith(".yaml") for argument in argv) and argv[0] in ("train", "test", "train-classifier"):
        argv.insert(1, "some.yaml")  # "..." replaces it
    parsed, rest = parser.parse_known_args(argv)
    assert all("=" in argument for argument in rest)
    config = getattr(parsed, "config", None)
    if config is not None and config.parts[0] == "configs":
        assert (REPOSITORY / config).is_file()


@pytest.mark.parametrize("option", sorted(set(re.findall(r"`(--[a-z][a-z0-9-]*)", TEXT)) - OTHER_OPTIONS))
def test_options_in_the_text_exist(option: str) -> None:
    assert option in all_options(posedy_parser())


@pytest.mark.parametrize(
    "key", sorted(set(re.findall(r"(?<![\w./-])((?:data|model|augment|train|eval)\.[a-z][a-z_.]*[a-z])=", TEXT)))
)
def test_configuration_keys_exist(key: str) -> None:
    assert key in {*config_keys(), *config_keys(ClassifierConfig)}


@pytest.mark.parametrize(
    "name", sorted(set(re.findall(r"`((?:posedy|configs|tools|docs|tests)/[\w/.-]+\.\w+)`", TEXT)))
)
def test_files_in_the_text_exist(name: str) -> None:
    assert (REPOSITORY / name).is_file()


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_links_lead_to_files_and_headings(path: Path) -> None:
    for link in re.findall(r"(?:\]\(|<img src=\")(?!http)([^)\"]+)", path.read_text(encoding="utf-8")):
        name, anchor = urlsplit(link).path, urlsplit(link).fragment
        target = path.parent / name if name else path
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings], link
