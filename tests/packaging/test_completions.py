"""Completions, asked of the shells themselves."""

import os
import pty
import re
import select
import shlex
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from docs.completions import scripts
from tests.packaging.builds import need_tools
from tests.packaging.conftest import required

Complete = Callable[[str], set[str]]

BUDGET_S = 60.0  # a shell answers in a tenth of a second; a loaded host takes longer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with one file and one folder in it, and the scripts beside it."""
    for place, script in scripts().items():
        (tmp_path / Path(place).name).write_text(script)
    (tmp_path / "here" / "a-folder").mkdir(parents=True)
    (tmp_path / "here" / "a-file").touch()
    return tmp_path


def bash(folder: Path) -> Complete:
    def complete(line: str) -> set[str]:
        words = line.split(" ")
        program = f"""
            compopt() {{ :; }}  # there is no line that is being edited
            source {folder}/pyserver
            COMP_WORDS=({" ".join(shlex.quote(word) for word in words)}) COMP_CWORD={len(words) - 1}
            _pyserver
            printf '%s\\n' "${{COMPREPLY[@]}}"
        """
        return set(said(folder, "bash", "--norc", "-euc", program).split())

    return complete


def fish(folder: Path) -> Complete:
    def complete(line: str) -> set[str]:
        program = f"source {folder}/pyserver.fish; complete --do-complete={shlex.quote(line)}"
        answer = said(folder, "fish", "--no-config", "-c", program)
        return {offer.partition("\t")[0].rstrip("/") for offer in answer.splitlines()}

    return complete


def said(folder: Path, *argv: str) -> str:
    done = subprocess.run(argv, check=True, cwd=folder / "here", capture_output=True, text=True, timeout=BUDGET_S)
    assert done.stderr == ""
    return done.stdout


def zsh(folder: Path) -> Complete:
    """zsh completes only on a terminal: one key after another, and what it lists is read off the screen."""

    def complete(line: str) -> set[str]:
        terminal, inner = pty.openpty()
        process = subprocess.Popen(
            ["setsid", "--ctty", "zsh", "-f", "-i"],
            cwd=folder / "here",
            env={**os.environ, "TERM": "dumb", "HOME": str(folder)},
            stdin=inner,
            stdout=inner,
            stderr=inner,
        )
        os.close(inner)
        try:
            setup = [
                f"fpath=({folder} $fpath)",
                "autoload -U compinit; compinit -u -D",
                "unsetopt auto_menu zle_bracketed_paste; setopt list_rows_first; COLUMNS=999; LINES=999; PROMPT=",
                "zstyle ':completion:*' list-separator ''; zstyle ':completion:*' verbose no",
                "bindkey '^I' list-choices; bindkey '^E' kill-whole-line; echo SET''UP",
            ]
            os.write(terminal, "\r".join([*setup, ""]).encode())
            read_until(terminal, "SETUP\r\n")
            os.write(terminal, f"{line}\t\x05echo LIS''TED\r".encode())
            screen = read_until(terminal, "LISTED\r\n")
        finally:
            os.close(terminal)
            process.kill()
            process.wait()
        return {word.rstrip("/") for word in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen).split()}

    return complete


def read_until(terminal: int, mark: str) -> str:
    """Read what is shown up to a mark."""
    text, end = "", time.monotonic() + BUDGET_S
    while mark not in text:
        assert select.select([terminal], [], [], end - time.monotonic())[0], f"no {mark!r} after {text!r}"
        text += os.read(terminal, 65536).decode(errors="replace")
    return text.partition(mark)[0]


@pytest.fixture(params=[bash, zsh, fish])
def complete(request: pytest.FixtureRequest, folder: Path) -> Complete:
    with required():
        need_tools(request.param.__name__)
    shell: Callable[[Path], Complete] = request.param
    return shell(folder)


def test_commands(complete: Complete) -> None:
    assert {"serve", "check", "explain", "status", "compress"} <= complete("pyserver ")


def test_options_of_a_command(complete: Complete) -> None:
    offered = complete("pyserver check --")
    assert {"--config", "--no-walk"} <= offered
    assert "--workers" not in offered


def test_keys(complete: Complete) -> None:
    offered = complete("pyserver serve --set server.")
    assert {"server.workers=", "server.threads="} <= offered
    assert "limits.keep_alive=" not in offered


def test_files_and_folders(complete: Complete) -> None:
    assert {"a-file", "a-folder"} <= complete("pyserver check --config a-f")
    offered = complete("pyserver serve --root a-")
    assert "a-folder" in offered
    assert "a-file" not in offered


def test_choices(complete: Complete) -> None:
    assert {"fast", "good", "best"} <= complete("pyserver compress --level ")
    assert "a-folder" in complete("pyserver compress ")
