"""The reference pages of the command line, from the parsers of the commands."""

import argparse
from collections.abc import Iterator

from posedy.cli.main import COMMANDS, make_parser


def command_pages() -> dict[str, str]:
    """Returns the Markdown of each command's page by its file name, and `README.md`, which lists the commands."""
    parser = make_parser()
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    summaries = {action.dest: action.help or "" for action in commands._choices_actions}
    rows = [f"| [`posedy {name}`]({name}.md) | {summaries[name]} |" for name in COMMANDS]
    index = (
        "# Commands\n\n"
        "This page is for users of the command line: it lists the commands, each with a page of its arguments.\n\n"
        "| command | what it does |\n|---|---|\n" + "\n".join(rows) + "\n\n"
        "`python -m posedy` is the same as `posedy`. The exit code is 0 if a command is done, 1 if it failed or an\n"
        "input is invalid, and 2 for wrong arguments. `--debug` shows debug messages, and the traceback of an error.\n"
    )
    return {"README.md": index, **{f"{name}.md": _page(name, commands.choices[name]) for name in COMMANDS}}


def _page(name: str, parser: argparse.ArgumentParser) -> str:
    """Returns the Markdown of the page of a command."""
    shown = [action for action in parser._actions if action.help != argparse.SUPPRESS]
    required = [_signature(action) for action in shown if action.option_strings and action.required]
    positional = [_signature(action) for action in shown if not action.option_strings]
    sections = [
        f"# posedy {name}",
        f"This page is for users of the command line: it has the arguments of `posedy {name}`.",
        parser.description or "",
        f"```text\nposedy {' '.join([name, *positional, *required, '[options]'])}\n```",
    ]
    for group in parser._action_groups:
        rows = list(_rows(parser, group))
        if rows:
            title = group.title or ""
            sections.append(f"## {title[:1].upper()}{title[1:]}")
            sections += [group.description] if group.description else []
            sections.append("\n".join(["| argument | meaning |", "|---|---|", *rows]))
    if parser.epilog:
        sections.append(f"## Notes and examples\n\n```text\n{parser.epilog.strip()}\n```")
    return "\n\n".join(sections) + "\n"


def _rows(parser: argparse.ArgumentParser, group: argparse._ArgumentGroup) -> Iterator[str]:
    """Yields the rows of the table of a group's arguments."""
    for action in group._group_actions:
        if action.help != argparse.SUPPRESS:
            meaning = " ".join((action.help or "").split()) % {**vars(action), "prog": parser.prog}
            yield f"| `{_escape(_signature(action))}` | {_escape(meaning)} |"


def _signature(action: argparse.Action) -> str:
    """Returns an argument as in a command line, such as `--out DIR` or `INPUT ...`."""
    metavar = action.metavar or ("{" + ",".join(map(str, action.choices)) + "}" if action.choices else None)
    if isinstance(metavar, tuple):
        metavar = " ".join(metavar)
    value = metavar or (action.dest.upper() if action.option_strings else action.dest)
    takes_value = action.nargs != 0
    if action.nargs in ("*", "+") and takes_value:
        value = f"[{value} ...]" if action.nargs == "*" else f"{value} ..."
    elif action.nargs == "?":
        value = f"[{value}]"
    elif isinstance(action.nargs, int) and isinstance(action.metavar, str) and takes_value:
        value = " ".join([value] * action.nargs)
    if not action.option_strings:
        return value
    names = ", ".join(action.option_strings)
    return f"{names} {value}" if takes_value else names


def _escape(text: str) -> str:
    """Escapes the separator of table columns."""
    return text.replace("|", "\\|")
