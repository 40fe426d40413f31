import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pyserver.config.errors import ConfigError
from pyserver.config.sources import Keys, Source, lines_of_keys, parse, read


def line_of(path: object) -> str:
    with pytest.raises(ConfigError) as caught:
        read(str(path))
    return str(caught.value)


# -- files that cannot be read; what is in them is in test_reading.py --------------------------------


def test_a_file_is_its_text_and_the_folder_it_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.toml").write_text("# é")
    monkeypatch.chdir(tmp_path)
    assert read("x.toml") == Source("x.toml", str(tmp_path), "# é")


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    assert line_of(tmp_path / "x") == f"{tmp_path}/x: does not exist; create it, or name another with --config FILE"
    (tmp_path / "y").touch()
    assert line_of(tmp_path / "y/x") == f"{tmp_path}/y/x: does not exist; create it, or name another with --config FILE"


def test_a_file_that_is_a_folder(tmp_path: Path) -> None:
    assert line_of(tmp_path) == f"{tmp_path}: is a folder; name a file in it with --config FILE"


def test_a_file_that_is_a_loop(tmp_path: Path) -> None:
    (tmp_path / "x").symlink_to("x")
    assert line_of(tmp_path / "x").startswith(f"{tmp_path}/x: cannot be read: too many levels of symbolic links; ")


def test_a_name_that_cannot_be() -> None:
    assert line_of("a\0b") == "a\\x00b: is not a path; name a file with --config FILE"


def test_a_device_without_end() -> None:
    assert line_of("/dev/zero") == "/dev/zero: is larger than 256 KiB; name a TOML file with --config FILE"


def test_a_file_that_we_may_not_read(open_folder: Path, as_owner: Callable[..., None], unprivileged: str) -> None:
    as_owner((open_folder / "x").touch, 0o000)
    assert (
        line_of(open_folder / "x") == f"{open_folder}/x: cannot be read: permission denied; let {unprivileged} read it"
    )


def test_a_file_that_we_may_not_reach(open_folder: Path, as_owner: Callable[..., None], unprivileged: str) -> None:
    as_owner(os.chmod, open_folder, 0o000)
    assert (
        line_of(open_folder / "x") == f"{open_folder}/x: cannot be read: permission denied; let {unprivileged} read it"
    )


# -- the line of each key ------------------------------------------------------------------------------

TEXT = '''\
top = 1
dotted.key = 2

[server]  # threads = 0
# threads = 0
text = """
threads = 0
[log]
"""
threads = 3
array = [
    1,
    { deep = 2 },
]
"quoted key" = 1
'literal' = { inner = { most = 1 } }

[a . "b"]
c = 1

[[site]]
root = "."

  [[site]]
  root = "["

  [site.sub]
  key = 1

  [[site.list]]
  key = 1
  [[site.list]]
  key = 2
'''


@pytest.mark.parametrize("text", [TEXT, TEXT.replace("\n", "\r\n")], ids=["LF", "CRLF"])
@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (("top",), 1),
        (("dotted",), 2),
        (("dotted", "key"), 2),
        (("server",), 4),
        (("server", "text"), 6),
        (("server", "threads"), 10),
        (("server", "array"), 11),
        (("server", "array", 1, "deep"), 11),
        (("server", "quoted key"), 15),
        (("server", "literal", "inner", "most"), 16),
        (("a",), 18),
        (("a", "b"), 18),
        (("a", "b", "c"), 19),
        (("site",), 21),
        (("site", 0), 21),
        (("site", 0, "root"), 22),
        (("site", 1), 24),
        (("site", 1, "root"), 25),
        (("site", 1, "sub"), 27),
        (("site", 1, "sub", "key"), 28),
        (("site", 1, "list", 0, "key"), 31),
        (("site", 1, "list", 1), 32),
        (("site", 1, "list", 1, "key"), 33),
    ],
)
def test_the_line_of_a_key(text: str, keys: Keys, line: int) -> None:
    assert lines_of_keys(text)[keys] == line


def test_every_key_has_a_line() -> None:
    def keys_of(value: object, above: Keys = ()) -> set[Keys]:
        inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        return {above} | {keys for key, deeper in inner for keys in keys_of(deeper, (*above, key))}

    assert set(lines_of_keys(TEXT)) == keys_of(parse(Source("x", text=TEXT))) - {()}


def test_a_key_without_a_line_has_that_of_what_it_is_part_of() -> None:
    source = Source("x.toml", text="[server]\n[[site]]\n")
    assert source.place(("site", 0, "root")) == "x.toml:2"
    assert source.place(("log",)) == "x.toml"
    assert Source("--set a=b").place(("server", "threads")) == "--set a=b"


def test_the_search_ends_in_a_statement_without_end() -> None:
    names = '"a",\n' * 40_000
    source = Source("x.toml", text=f"[[site]]\nroot = 1\nindex = [\n{names}]\n[log]\n")
    assert source.place(("site", 0, "root")) == "x.toml:2"
    assert source.place(("site", 0, "index")) == "x.toml:1"
    assert source.place(("log",)) == "x.toml"
