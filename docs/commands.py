"""The command line as data: what the parser of pyserver.cli knows, for manual pages and completions.

Owns:    Command, Argument and Alternatives.
Never:   runs a command.
Used by: docs.manual, docs.completions.
"""

import argparse
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from pyserver.cli import build_parser


class Argument(NamedTuple):
    """An option, or with no names a positional argument."""

    names: tuple[str, ...]
    metavar: str  # "" where it takes no value
    text: str
    choices: tuple[str, ...]
    repeatable: bool

    @property
    def summary(self) -> str:
        """The text up to what is more exactly said there, for where there is one line."""
        return re.split(r"; | \(", self.text)[0]


class Alternatives(NamedTuple):
    """Options of which only one is given; each by its first name."""

    names: tuple[str, ...]
    required: bool  # one has to be


class Command(NamedTuple):
    """One command of `pyserver`, or with the name "" what stands before any command."""

    name: str
    text: str  # one line
    more: str  # what --help says after the options
    arguments: tuple[Argument, ...]
    alternatives: tuple[Alternatives, ...] = ()

    @property
    def options(self) -> tuple[Argument, ...]:
        """Arguments with names."""
        return tuple(argument for argument in self.arguments if argument.names)

    @property
    def positionals(self) -> tuple[Argument, ...]:
        """Arguments without, in their order."""
        return tuple(argument for argument in self.arguments if not argument.names)


def commands() -> tuple[Command, ...]:
    """Return what stands before any command, then the commands."""
    parser = build_parser()
    found = [Command("", parser.description or "", parser.epilog or "", tuple(_arguments(parser)))]
    for action in parser._actions:  # noqa: SLF001  argparse has no other way to its subcommands
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            texts = {choice.dest: choice.help or "" for choice in action._get_subactions()}  # noqa: SLF001
            for name, sub in action.choices.items():
                found.append(
                    Command(name, texts[name], sub.epilog or "", tuple(_arguments(sub)), tuple(_alternatives(sub)))
                )
    return tuple(found)


# Said so in their help: what cli.py keeps in order of appearance.
REPEATABLE: Final = "may be repeated"


def _alternatives(parser: argparse.ArgumentParser) -> Iterator[Alternatives]:
    for group in parser._mutually_exclusive_groups:  # noqa: SLF001  as above
        names = tuple(action.option_strings[0] for action in group._group_actions)  # noqa: SLF001
        yield Alternatives(names, group.required)


def _arguments(parser: argparse.ArgumentParser) -> Iterator[Argument]:
    for action in parser._actions:  # noqa: SLF001  as above
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            continue
        text = " ".join((action.help or "").split()).replace("%%", "%")
        choices = tuple(map(str, action.choices or ()))
        metavar = action.metavar if isinstance(action.metavar, str) else ""
        if action.nargs != 0 and not metavar:
            metavar = "{" + ",".join(choices) + "}" if choices else action.dest.upper()
        yield Argument(tuple(action.option_strings), metavar, text, choices, REPEATABLE in text)
