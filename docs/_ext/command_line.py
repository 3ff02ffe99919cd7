"""The command line, described in Markdown from its parsers."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator


def describe(parser: argparse.ArgumentParser) -> str:
    """Return a section for each command, with its usage and its arguments."""
    return "\n".join(line for found in _commands(parser, "", "") for line in _section(*found))


def _commands(
    parser: argparse.ArgumentParser, name: str, summary: str
) -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    """Yield what carries something out, with its name and its summary, in the order of the help."""
    found = [each for each in parser._actions if isinstance(each, argparse._SubParsersAction)]
    if not found:
        yield name, parser.description or summary, parser
    for action in found:
        summaries = {each.dest: each.help or "" for each in action._choices_actions}
        for inner, command in action.choices.items():
            yield from _commands(command, f"{name} {inner}".strip(), summaries.get(inner, ""))


def _section(name: str, summary: str, command: argparse.ArgumentParser) -> Iterator[str]:
    yield f"## {name}"
    yield ""
    yield _sentence(summary)
    yield ""
    yield "```text"
    yield command.format_usage().strip()
    yield "```"
    yield ""
    yield "| Argument | Meaning |"
    yield "|---|---|"
    for action in command._actions:
        if action.help is not argparse.SUPPRESS:
            yield f"| {_spelling(action)} | {_meaning(action, command)} |"
    yield ""
    if command.epilog:
        yield _prose(command.epilog)
        yield ""


def _spelling(action: argparse.Action) -> str:
    value = ""
    if action.nargs != 0:
        value = str(
            action.metavar or (action.dest.upper() if action.option_strings else action.dest)
        )
        if action.choices:
            value = "{" + ",".join(map(str, action.choices)) + "}"
    if not action.option_strings:
        return f"`{value}`"
    return ", ".join(
        f"`{option}{f' {value}' if value else ''}`" for option in action.option_strings
    )


def _meaning(action: argparse.Action, command: argparse.ArgumentParser) -> str:
    formatter = command._get_formatter()
    return _sentence(formatter._expand_help(action) if action.help else "").replace("|", "\\|")


def _sentence(text: str) -> str:
    first, space, rest = _prose(text.strip()).partition(" ")
    return f"{first.capitalize() if first.islower() and first.isalpha() else first}{space}{rest}"


def _prose(text: str) -> str:
    """Return a text with its options as code: two hyphens would become a dash."""
    return re.sub(r"(?<![\w`-])--[a-z][a-z-]*", r"`\g<0>`", text)
