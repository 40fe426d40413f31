"""Completions of the command line for three shells: `PYTHONPATH=service python3 -m docs.completions FOLDER`.

Owns:    FOLDER/bash-completion/completions/pyserver, FOLDER/zsh/site-functions/_pyserver and
         FOLDER/fish/vendor_completions.d/pyserver.fish: where each shell looks, below /usr/share.
Used by: packaging/install.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from docs.commands import Argument, Command, commands

from pyserver.config import OPTIONS

FILES: Final = "files"
FOLDERS: Final = "folders"

# What may be written for a value, by how the help calls it. What is not here is completed with nothing.
VALUES: Final[dict[str, str | tuple[str, ...]]] = {
    "FILE": FILES,
    "DIR": FOLDERS,
    "ROOT": FOLDERS,
    "PATH": FILES,
    "PATH|off": FILES,
    "KEY=VALUE": tuple(f"{option.name}=" for option in OPTIONS.values() if not option.in_list),
}

HEAD: Final = "Written by docs/completions.py from the parser of the command line."


def values_of(argument: Argument) -> str | tuple[str, ...]:
    """Return FILES, FOLDERS, or the words to offer."""
    return argument.choices or VALUES.get(argument.metavar, ())


def scripts() -> dict[str, str]:
    """Return each script by its place below /usr/share."""
    return {
        "bash-completion/completions/pyserver": bash(),
        "zsh/site-functions/_pyserver": zsh(),
        "fish/vendor_completions.d/pyserver.fish": fish(),
    }


# -- bash ------------------------------------------------------------------------------------------------


def bash() -> str:
    """Return a script that needs nothing of the package bash-completion."""
    first, *others = commands()
    lines = [
        f"# {HEAD}",
        "_pyserver() {",
        "    local word command= before=${COMP_WORDS[COMP_CWORD-1]} cur=${COMP_WORDS[COMP_CWORD]}",
        '    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do',
        f"        case $word in {'|'.join(each.name for each in others)}) command=$word; break ;; esac",
        "    done",
        "    case $command:$before in",
        *(line for each in others for line in _bash_values(each)),
        "    esac",
        "    case $command in",
        *(f"        {each.name}) {_bash_command(each)} ;;" for each in others),
        f"        *) {_bash_words([each.name for each in others] + _names(first))} ;;",
        "    esac",
        "}",
        "complete -F _pyserver pyserver",
    ]
    return "\n".join(lines) + "\n"


def _bash_values(command: Command) -> Iterator[str]:
    for option in command.options:
        if option.metavar:
            before = "|".join(f"{command.name}:{name}" for name in option.names)
            yield f"        {before}) {_bash_offer(values_of(option))}; return ;;"


def _bash_offer(values: str | tuple[str, ...]) -> str:
    if values in {FILES, FOLDERS}:
        kind = "-f" if values == FILES else "-d"
        return f'compopt -o filenames; mapfile -t COMPREPLY < <(compgen {kind} -- "$cur")'
    words = _bash_words(list(values))
    return f"compopt -o nospace; {words}" if any(word.endswith("=") for word in values) else words


def _bash_words(words: list[str]) -> str:
    return f"mapfile -t COMPREPLY < <(compgen -W '{' '.join(words)}' -- \"$cur\")"


def _bash_command(command: Command) -> str:
    names = _bash_words(_names(command))
    for positional in command.positionals:  # the first with something to offer stands for all
        if values_of(positional):
            return f"if [[ $cur == -* ]]; then {names}; else {_bash_offer(values_of(positional))}; fi"
    return names


def _names(command: Command) -> list[str]:
    return [name for option in command.options for name in option.names]


# -- zsh -------------------------------------------------------------------------------------------------


def zsh() -> str:
    """Return a function for a folder in $fpath."""
    first, *others = commands()
    lines = [
        "#compdef pyserver",
        f"# {HEAD}",
        "local curcontext=$curcontext state line",
        "local -a commands",
        f"commands=({' '.join(_quoted(f'{each.name}:{each.text}') for each in others)})",
        f"_arguments -C {' '.join(_zsh_options(first))} '1:command:->command' '*::argument:->argument' && return",
        "case $state in",
        "command) _describe command commands ;;",
        "argument)",
        "    case $line[1] in",
        *(f"    {each.name}) _arguments -S {' '.join(_zsh_arguments(each))} ;;" for each in others),
        "    esac ;;",
        "esac",
    ]
    return "\n".join(lines) + "\n"


def _zsh_arguments(command: Command) -> Iterator[str]:
    yield from _zsh_options(command)
    for positional in command.positionals:
        yield _quoted(f":{positional.metavar}:{_zsh_action(positional)}")


def _zsh_options(command: Command) -> Iterator[str]:
    for option in command.options:
        text = option.summary.translate({ord(special): f"\\{special}" for special in "\\[]:"})
        value = f":{option.metavar}:{_zsh_action(option)}" if option.metavar else ""
        for name in option.names:
            others = "" if option.repeatable else f"({' '.join(option.names)})"
            yield _quoted(f"{'*' if option.repeatable else others}{name}[{text}]{value}")


def _zsh_action(argument: Argument) -> str:
    values = values_of(argument)
    if isinstance(values, str):
        return "_files" if values == FILES else "_files -/"
    if any(word.endswith("=") for word in values):
        return f"compadd -S '' - {' '.join(values)}"
    return f"({' '.join(values)})" if values else " "


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


# -- fish ------------------------------------------------------------------------------------------------


def fish() -> str:
    """Return a script for vendor_completions.d."""
    first, *others = commands()
    lines = [f"# {HEAD}", "complete -c pyserver -f"]
    lines += [f"complete -c pyserver -n __fish_use_subcommand {_fish_option(option)}" for option in first.options]
    for each in others:
        lines.append(f"complete -c pyserver -n __fish_use_subcommand -a {each.name} -d {_fish_text(each.text)}")
        condition = f"-n '__fish_seen_subcommand_from {each.name}'"
        lines += [f"complete -c pyserver {condition} {_fish_option(option)}" for option in each.options]
        for positional in each.positionals:
            if values_of(positional):
                lines.append(f"complete -c pyserver {condition} {_fish_value(positional)}")
    return "\n".join(lines) + "\n"


def _fish_option(option: Argument) -> str:
    names = [f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names]
    value = ["-r", _fish_value(option)] if option.metavar else []
    return " ".join([*names, *value, f"-d {_fish_text(option.summary)}"])


def _fish_value(argument: Argument) -> str:
    values = values_of(argument)
    if isinstance(values, str):
        return "-F" if values == FILES else "-fa '(__fish_complete_directories)'"
    return f"-fa '{' '.join(values)}'" if values else "-f"


def _fish_text(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


if __name__ == "__main__":
    for place, script in scripts().items():
        file = Path(sys.argv[1], place)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(script)
