"""The generated reference pages are those of the current parsers and schema."""

import re
import shutil
from pathlib import Path

import pytest

from posedy.cli.main import COMMANDS, make_parser
from posedy.config import ClassifierConfig, Config
from tests.test_readme import all_options, config_keys
from tools.docs import generate


def test_no_page_is_stale() -> None:
    assert generate.stale_pages() == [], "run python -m tools.docs.generate"


def test_check_names_stale_missing_and_left_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "docs/reference"
    shutil.copytree(generate.REFERENCE, folder)
    monkeypatch.setattr(generate, "REFERENCE", folder)
    monkeypatch.setattr(generate, "stale_pages", lambda stale=generate.stale_pages: stale(folder))
    assert generate.main(["--check"]) == 0
    page = folder / "configuration.md"
    page.write_text(page.read_text().replace("`0.001`", "`0.002`"))
    (folder / "commands/eval.md").unlink()
    (folder / "commands/old.md").touch()
    assert generate.main(["--check"]) == 1
    error = capsys.readouterr().err
    for name in ("configuration.md", "commands/eval.md", "commands/old.md"):
        assert f"docs/reference/{name} is stale" in error
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0


@pytest.mark.parametrize("config", [Config, ClassifierConfig])
def test_the_configuration_page_has_all_keys(config: type) -> None:
    text = generate.pages()["configuration.md"]
    names = [*config_keys(config)]
    keys = [key for key in names if not any(other.startswith(f"{key}.") for other in names)]  # not the sections
    assert [key for key in keys if f"| `{key}` |" not in text] == []


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_the_page_of_a_command_has_all_its_options(command: str) -> None:
    text = generate.pages()[f"commands/{command}.md"]
    (commands,) = (action for action in make_parser()._actions if action.dest == "command")
    parser = commands.choices[command]
    hidden = {option for action in parser._actions if action.help == "==SUPPRESS==" for option in action.option_strings}
    assert {option for option in all_options(parser) - hidden if option not in text} == set()
    assert {option for option in hidden if re.search(rf"`{option}[ `]", text)} == set()


def test_a_command_with_two_files_shows_both() -> None:
    assert "posedy compare RESULTS RESULTS --annotations FILE [options]" in generate.pages()["commands/compare.md"]
