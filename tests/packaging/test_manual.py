"""The manual pages: complete, in form, and with examples that hold."""

import re
import subprocess

import pytest
from docs.commands import commands
from docs.manual import EXAMPLES, SIGNALS, pages
from tests.packaging.builds import need_tools
from tests.packaging.conftest import required

from pyserver.config import OPTIONS, load


def shown(page: str) -> str:
    """Return a page as a reader sees it; groff warns of what is not in form."""
    with required():
        need_tools("groff")
    argv = ("groff", "-man", "-Tutf8", "-ww", "-P-cbou", "-rLL=120n")
    done = subprocess.run(argv, check=True, input=page, capture_output=True, text=True)
    assert done.stderr == ""
    return " ".join(done.stdout.split())


def test_every_command_and_option_is_in_its_page() -> None:
    page = shown(pages()["man8/pyserver.8"])
    for command in commands()[1:]:
        assert f"pyserver {command.name}" in page
        for argument in command.arguments:
            if argument.names[:1] == ("-h",):
                continue
            assert ", ".join(argument.names) + f" {argument.metavar}".rstrip() in page
            assert argument.text[:20] in page


def test_the_synopsis_says_which_options_exclude_each_other_and_which_are_repeated() -> None:
    synopsis = shown(pages()["man8/pyserver.8"]).partition(" DESCRIPTION ")[0]
    assert "pyserver units {--print | --install DIR} [--command FILE]" in synopsis
    assert "pyserver reload [--control PATH | --name NAME] [--within SECONDS]" in synopsis
    assert "pyserver explain METHOD TARGET [-H FIELD]... [--config FILE] [--root DIR]" in synopsis


def test_every_signal_of_the_help_is_in_its_page() -> None:
    serve = next(command for command in commands() if command.name == "serve")
    named = set(re.findall(r"SIG[A-Z0-9]+", serve.more))
    assert named == {name for name, _ in SIGNALS} == {"SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1"}


def test_every_key_is_in_its_page() -> None:
    page = shown(pages()["man5/pyserver.toml.5"])
    for option in OPTIONS.values():
        assert re.search(rf"\b{option.key} {re.escape(option.text)}", page), option.name
        assert option.required or f"default: {option.shown(option.default)})" in page


def test_what_shells_and_roff_take_for_their_own_is_shown_as_it_is() -> None:
    page = shown(pages()["man8/pyserver.8"])
    assert "pyserver check && systemctl reload-or-restart pyserver" in page
    assert "pyserver explain HEAD /video.mp4 -H 'Range: bytes=0-99' -H 'If-Range: \"abc\"'" in page


@pytest.mark.parametrize("example", [text for _, text in EXAMPLES])
def test_examples_are_taken(tmp_path_factory: pytest.TempPathFactory, example: str) -> None:
    folder = tmp_path_factory.mktemp("etc")
    (folder / "pyserver.toml").write_text(
        re.sub(r'"(/srv/example|/var/www/pyserver|/var/log/pyserver(?=/))', f'"{folder}', example)
    )
    assert load(str(folder / "pyserver.toml")).sites
