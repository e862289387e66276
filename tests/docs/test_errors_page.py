"""The messages on the page of errors and warnings occur in posedy's source."""

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs/explanation/errors.md").read_text(encoding="utf-8")
GAP = "\0"
"""Stands for a value that a message is formatted with."""


def quoted_messages(page: str) -> list[str]:
    """The messages at the beginning of each item of the page's lists, with "..." for values."""
    items = re.findall(r"^- (.+(?:\n  .+)*)", page, re.MULTILINE)
    starts = [re.match(r"(?:`[^`]+`(?:, )?)+", " ".join(item.split())) for item in items]
    return [message for start in starts if start for message in re.findall(r"`([^`]+)`", start.group())]


def source_messages(source: str) -> Iterator[str]:
    """The texts in a program, with gaps for the values of f-strings, logging and `format`; without docstrings."""
    tree = ast.parse(source)
    docstrings = set()
    for node in ast.walk(tree):  # a statement before its expressions
        if isinstance(node, ast.Expr):
            docstrings.add(id(node.value))
        if id(node) not in docstrings and (text := text_of(node)) is not None:
            yield re.sub(r"%s|\{\}", GAP, text)


def text_of(node: ast.AST) -> str | None:
    """The text of a constant, an f-string or a sum of them; None for other expressions."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(value.value if isinstance(value, ast.Constant) else GAP for value in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        parts = [text_of(node.left), text_of(node.right)]
        return None if parts == [None, None] else "".join(GAP if part is None else part for part in parts)
    return None


def join(source: Iterable[str]) -> str:
    """The texts of the source, with single spaces, and empty lines between them, which no message matches."""
    return "\n\n".join(" ".join(text.split()) for text in source)


def missing_messages(quoted: Iterable[str], source: str) -> list[str]:
    """The quoted messages that no text of the joined source contains, with any values and line breaks for gaps."""
    return [message for message in quoted if not re.search(pattern_of(message), source)]


def pattern_of(message: str) -> str:
    """A pattern of a message: "..." is text with a value in it, or "..." itself; at the ends it is any text."""
    gap = rf"(?:[^\n]*?{GAP}[^\n]*?|[.]{{3}})"
    return gap.join(re.escape(part) for part in message.removeprefix("...").removesuffix("...").split("..."))


@pytest.fixture(scope="module")
def source() -> str:
    """All texts of posedy, joined."""
    paths = sorted((REPOSITORY / "posedy").rglob("*.py"))
    return join(text for path in paths for text in source_messages(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("message", quoted_messages(PAGE))
def test_a_message_occurs_in_the_source(message: str, source: str) -> None:
    assert missing_messages([message], source) == []


@pytest.mark.parametrize("message", quoted_messages(PAGE))
def test_a_message_has_a_constant_part(message: str) -> None:
    assert max(len(part.strip()) for part in message.split("...")) >= 10


def test_the_page_has_the_common_messages_once() -> None:
    messages = quoted_messages(PAGE)
    assert len(messages) >= 60
    assert len(set(messages)) == len(messages)


@pytest.mark.parametrize("message", quoted_messages(PAGE))
def test_a_change_of_a_message_is_detected(message: str, source: str) -> None:
    longest = max(message.split("..."), key=len).strip()
    assert missing_messages([message], source.replace(longest, "another text")) == [message]


def test_values_of_messages_are_gaps() -> None:
    program = 'def f(a):\n    """no image at all."""\n    raise ValueError(f"no image at {a!r}: " "check" + f(a))\n'
    texts = join(source_messages(program))
    assert missing_messages(["no image at ...: check..."], texts) == []
    assert missing_messages(["no image at all."], texts) == ["no image at all."]
    assert missing_messages(["no image at ...: look"], texts) == ["no image at ...: look"]
