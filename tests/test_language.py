"""Words that the glossary of CONTRIBUTING.md replaces occur nowhere, but for the reasons given here."""

import re
import subprocess
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
    ("posedy/config/reading.py", "coding"): "the name of a key in earlier files",
    ("posedy/models/network_file.py", "coding"): "the name of an option in earlier files",
    ("tests/models/test_network_file.py", "coding"): "the name of an option in earlier files",
    ("tests/test_earlier_files.py", "coding"): "the name of an option in earlier files",
    ("CHANGELOG.md", None): "its migration table has the names of earlier versions",
}
FILES = subprocess.run(
    ["git", "ls-files", "*.py", "*.md", "*.yaml", "*.toml", "Makefile"],
    cwd=REPOSITORY,
    capture_output=True,
    text=True,
    check=False,
).stdout.split()


@pytest.mark.skipif(not FILES, reason="needs the git repository, for the list of its files")
@pytest.mark.parametrize("word", WORDS)
def test_the_glossary_is_kept(word: str) -> None:
    pattern = re.compile(rf"(?<![\w/-])(?:{WORDS[word]})(?![\w-])", re.IGNORECASE)
    found = []
    for name in FILES:
        path = REPOSITORY / name
        if (name, None) in ALLOWED or (name, word) in ALLOWED or not path.is_file():
            continue
        lines = path.read_text(encoding="utf-8").splitlines()
        # names of tests and variables have their words joined by underscores
        found += [
            f"{name}:{number}: {line.strip()}"
            for number, line in enumerate(lines, start=1)
            if pattern.search(line) or pattern.search(line.replace("_", " "))
        ]
    assert not found, "\n".join(found)


def test_every_exception_is_needed() -> None:
    for name, word in ALLOWED:
        text = (REPOSITORY / name).read_text(encoding="utf-8").replace("_", " ")
        pattern = WORDS[word] if word is not None else "|".join(WORDS.values())
        assert re.search(pattern, text, re.IGNORECASE), f"{name} has no {word}: remove the exception"
