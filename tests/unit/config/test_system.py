import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pyserver.config.errors import ConfigError
from pyserver.config.sources import Setting, Source
from pyserver.config.system import check_log, check_root, exposed

FILE = Source("/etc/x.toml", "/etc", '[[site]]\nroot = "."\n[log]\naccess = "x"')


def root(path: object) -> Setting:
    return Setting(str(path), FILE, ("site", 0, "root"))


def log(path: object) -> Setting:
    return Setting(str(path), FILE, ("log", "access"))


def line_of(check: Callable[[Setting], None], setting: Setting) -> str:
    with pytest.raises(ConfigError) as caught:
        check(setting)
    return str(caught.value)


# -- the root ----------------------------------------------------------------------------------


def test_a_folder_and_a_link_to_one_are_roots(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    check_root(root(tmp_path))
    check_root(root(tmp_path / "link"))


def test_a_root_that_is_missing(tmp_path: Path) -> None:
    expected = f'/etc/x.toml:2: root "{tmp_path}/no" does not exist; create the folder, or write another'
    assert line_of(check_root, root(tmp_path / "no")) == expected


def test_a_root_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    expected = f'/etc/x.toml:2: root "{tmp_path}/file/no" does not exist; create the folder, or write another'
    assert line_of(check_root, root(tmp_path / "file/no")) == expected


def test_a_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    expected = f'/etc/x.toml:2: root "{tmp_path}/file" is not a folder; write the folder that the file is in'
    assert line_of(check_root, root(tmp_path / "file")) == expected


def test_a_root_that_is_a_loop(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert line_of(check_root, root(tmp_path / "loop")).startswith(
        f'/etc/x.toml:2: root "{tmp_path}/loop" cannot be reached: too many levels of symbolic links; '
    )


@pytest.mark.parametrize("mode", [0o000, 0o444, 0o111], ids=oct)
def test_a_root_that_we_may_not_read_or_search(
    open_folder: Path, mode: int, as_owner: Callable[..., None], unprivileged: str
) -> None:
    as_owner(os.chmod, open_folder, mode)
    expected = f'/etc/x.toml:2: root "{open_folder}" is closed to {unprivileged}; give read and search permission'
    assert line_of(check_root, root(open_folder)) == expected


def test_a_root_that_we_may_not_reach(open_folder: Path, as_owner: Callable[..., None], unprivileged: str) -> None:
    as_owner(os.mkdir, open_folder / "in")
    as_owner(os.chmod, open_folder, 0o000)
    expected = (
        f'/etc/x.toml:2: root "{open_folder}/in" cannot be reached: permission denied; '
        f"let {unprivileged} search the folders above it"
    )
    assert line_of(check_root, root(open_folder / "in")) == expected


# -- the access log ------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["off", "-", "/dev/null"])
def test_what_needs_no_folder(target: str) -> None:
    check_log(log(target))


def test_a_log_that_exists_and_one_that_does_not_yet(tmp_path: Path) -> None:
    check_log(log(tmp_path / "access.log"))
    assert not (tmp_path / "access.log").exists()
    (tmp_path / "access.log").touch()
    check_log(log(tmp_path / "access.log"))


def test_a_log_in_a_missing_folder(tmp_path: Path) -> None:
    expected = (
        f'/etc/x.toml:4: access log "{tmp_path}/no/a.log" is in a folder that does not exist; '
        f"create {tmp_path}/no, or write another"
    )
    assert line_of(check_log, log(tmp_path / "no/a.log")) == expected


def test_a_log_that_is_a_folder(tmp_path: Path) -> None:
    expected = f'/etc/x.toml:4: access log "{tmp_path}" is a folder; write the path of a file in it'
    assert line_of(check_log, log(tmp_path)) == expected


def test_a_log_that_we_may_not_create(open_folder: Path, as_owner: Callable[..., None], unprivileged: str) -> None:
    as_owner(os.chmod, open_folder, 0o555)
    expected = (
        f'/etc/x.toml:4: access log "{open_folder}/a.log" is in a folder closed to {unprivileged}; '
        f"give write permission for {open_folder}"
    )
    assert line_of(check_log, log(open_folder / "a.log")) == expected


def test_a_log_that_we_may_not_write(open_folder: Path, as_owner: Callable[..., None], unprivileged: str) -> None:
    as_owner((open_folder / "a.log").touch, 0o444)
    expected = f'/etc/x.toml:4: access log "{open_folder}/a.log" is closed to {unprivileged}; give write permission'
    assert line_of(check_log, log(open_folder / "a.log")) == expected


def test_a_log_that_we_may_not_reach(open_folder: Path, as_owner: Callable[..., None], unprivileged: str) -> None:
    as_owner(os.chmod, open_folder, 0o000)
    expected = (
        f'/etc/x.toml:4: access log "{open_folder}/a.log" cannot be reached: permission denied; '
        f"let {unprivileged} search the folders above it"
    )
    assert line_of(check_log, log(open_folder / "a.log")) == expected


# -- T-15: a root that contains what is not for clients ---------------------------------------------


MOVE = ", which clients can read; move one of them"


def test_a_root_with_nothing_private_in_it(tmp_path: Path) -> None:
    (tmp_path / "www").mkdir()
    beside = [Source(str(tmp_path / "pyserver.toml")), Source(str(tmp_path / "www-log.toml"))]
    assert list(exposed(root(tmp_path / "www"), beside, log(tmp_path / "access.log"))) == []
    assert list(exposed(root("/"), [], log("off"))) == []
    assert list(exposed(root("/"), [], log("-"))) == []
    assert list(exposed(root("/"), [], None)) == []


def test_a_root_that_contains_the_configuration_and_the_log(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    config = tmp_path / "link/pyserver.toml"
    access = tmp_path / "log/access.log"
    assert list(exposed(root(tmp_path), [Source(str(config))], log(access))) == [
        f'/etc/x.toml:2: root "{tmp_path}" contains the configuration {config}{MOVE}',
        f'/etc/x.toml:2: root "{tmp_path}" contains the access log {access}{MOVE}',
    ]
