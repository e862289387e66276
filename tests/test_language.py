"""Words that the glossary of CONTRIBUTING.md replaces occur nowhere, but for the reasons given here."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
WORDS = {
    "photo": r"photos?(?!metric|graph)",
    "picture": r"pictures?",
    "landmark": r"landmarks?",
    "joint": r"joints?",
    "somebody": r"somebody|(?<!wait for )everyone",
    "window": r"windows? of (?:a|the|each) (?:person|image|crop)",
    "cell": r"heatmap cells?|cells? of (?:a|the|each) (?:heat)?map",
    "truth": r"(?<!ground[ -])truth",
    "drawn (data)": r"drawn (?:people|persons|photos|images|data)",
    "mirror": r"mirror\w*",
    "twin": r"twins?",
    "coding": r"codings?",
    "shipped": r"shipped",
    "a training": r"(?:a|the|each|this|one) training(?= (?:is|has|was|ends|goes|starts|stops|of)\b)|trainings",
    "goes on": r"goes? on|going on",
    "part": r"val part|train part",
    "trouble": r"troubles?|in words",
    "refused": r"refus(?:e|es|ed|al)",
    "mend": r"mend(?:s|ed)?",
    "slip": r"slips?|slipped",
    "identities": r"identities of persons|who is who",
    "rival": r"rivals?|usual way",
    "outcome": r"outcomes?",
    "data set": r"data sets?",
    "fetch": r"fetch(?:es|ed)?",
    "British spelling": r"\w*(?:labell|colour|normalis|initialis|summaris|recognis|neighbour)\w*|grey|analyse[ds]?",
}
ALLOWED = {
    # file, word: why it may stand there
    ("CONTRIBUTING.md", None): "its table lists the words",
    ("tests/test_language.py", None): "the list",
    ("posedy/training/loggers.py", "picture"): "the folder pictures/ of a run is a file format",
    ("tests/cli/test_main.py", "picture"): "the folder pictures/ of a run is a file format",
    ("tests/training/test_own_parts.py", "picture"): "the folder pictures/ of a run is a file format",
    ("tests/training/test_trainer.py", "picture"): "the folder pictures/ of a run is a file format",
    ("posedy/config/reading.py", "coding"): "the name of a key in earlier files",
    ("posedy/models/network_file.py", "coding"): "the name of an option in earlier files",
    ("tests/models/test_network_file.py", "coding"): "the name of an option in earlier files",
    ("tests/test_earlier_files.py", "coding"): "the name of an option in earlier files",
    ("tools/lab/benchmarks/blazepose_script.py", "landmark"): "the names of MediaPipe's files and attributes",
    ("tests/lab/benchmarks/test_peers.py", "landmark"): "the names of MediaPipe's files and attributes",
    ("docs/how_to/from_mediapipe.md", "landmark"): "the names of MediaPipe's attributes and functions",
    ("posedy/app/page.py", "mirror"): "the name of gradio's option",
    ("tests/app/test_page.py", "mirror"): "the name of gradio's option",
    ("CHANGELOG.md", None): "its migration table has the names of earlier versions",
}
FILES = subprocess.run(
    ["git", "ls-files", "*.py", "*.md", "*.yaml", "*.toml", "Makefile"],
    cwd=REPOSITORY,
    capture_output=True,
    text=True,
    check=False,
).stdout.split()


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    """The files, with names of tests and variables as words, which are joined by underscores."""
    paths = {name: REPOSITORY / name for name in FILES if (name, None) not in ALLOWED}
    return {name: path.read_text(encoding="utf-8").replace("_", " ") for name, path in paths.items() if path.is_file()}


@pytest.fixture(scope="module")
def suspects(texts: dict[str, str]) -> dict[str, str]:
    """The files with any of the words: one search in lower case is faster than one for each word."""
    pattern = re.compile(rf"(?<![\w/-])(?:{'|'.join(WORDS.values())})(?![\w-])")
    return {name: text for name, text in texts.items() if pattern.search(text.lower())}


@pytest.mark.skipif(not FILES, reason="needs the git repository, for the list of its files")
@pytest.mark.parametrize("word", WORDS)
def test_the_glossary_is_kept(word: str, suspects: dict[str, str]) -> None:
    pattern = re.compile(rf"(?<![\w/-])(?:{WORDS[word]})(?![\w-])", re.IGNORECASE)
    found = []
    for name, text in suspects.items():
        if (name, word) not in ALLOWED and pattern.search(text):
            lines = (REPOSITORY / name).read_text(encoding="utf-8").splitlines()
            found += [
                f"{name}:{number}: {line.strip()}"
                for number, line in enumerate(lines, start=1)
                if pattern.search(line.replace("_", " "))
            ]
    assert not found, "\n".join(found)


def test_every_exception_is_needed() -> None:
    for name, word in ALLOWED:
        text = (REPOSITORY / name).read_text(encoding="utf-8").replace("_", " ")
        pattern = WORDS[word] if word is not None else "|".join(WORDS.values())
        assert re.search(pattern, text, re.IGNORECASE), f"{name} has no {word}: remove the exception"


def statements(tree: ast.AST) -> Iterator[ast.AST]:
    """The statements of a program at all depths, without their expressions, which are most of its nodes."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.stmt | ast.excepthandler | ast.match_case):
            yield node
            yield from statements(node)


def test_docstrings_of_functions_are_in_the_third_person() -> None:
    """A first word in the imperative is one whose third person is the first word of other docstrings."""
    places: dict[str, list[str]] = {}
    for folder in ("posedy", "tools"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            for node in statements(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef) and (docstring := ast.get_docstring(node)):
                    word = docstring.split()[0].rstrip(",.:;")
                    places.setdefault(word, []).append(f"{path.relative_to(REPOSITORY)}:{node.lineno}: {word}")
    assert len(places["Returns"]) > 100
    imperative = [word for word in places if {f"{word}s", f"{word}es", f"{word[:-1]}ies"} & places.keys()]
    assert not imperative, "\n".join(place for word in imperative for place in places[word])
