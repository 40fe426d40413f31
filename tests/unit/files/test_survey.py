import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from tests.unit.files.process import as_nobody, open_descriptors

from pyserver import limits
from pyserver.files.resolve import Links, Root
from pyserver.files.survey import KINDS, Policy, Survey, survey


@pytest.fixture
def www(tmp_path: Path) -> Path:
    """A root with nothing to tell about, beside a file that is outside."""
    folder = tmp_path / "www"
    (folder / "assets").mkdir(parents=True)
    (folder / ".well-known").mkdir()
    (folder / "index.html").write_text("page")
    (folder / "index.html.gz").write_text("gz")
    (folder / "assets/a.css").write_text("a")
    (folder / "link.html").symlink_to("index.html")
    (folder / "other").symlink_to("assets")
    (folder / ".nojekyll").touch()
    (folder / ".well-known/security.txt").touch()
    (tmp_path / "outside").write_text("secret")
    return folder


def walked(
    www: Path, *pages: bytes, links: Links = "beneath", dot_files: bool = False, precompressed: bool = True
) -> Survey:
    before = open_descriptors()
    root = Root(www, links)
    found = survey(root, Policy(dot_files=dot_files, precompressed=precompressed), pages)
    root.close()
    assert open_descriptors() == before
    return found


def told(www: Path, *pages: bytes, dot_files: bool = False, precompressed: bool = True) -> list[str]:
    lines = walked(www, *pages, dot_files=dot_files, precompressed=precompressed).lines()
    return [line.removeprefix(f"{www}/") for line in lines]


def test_nothing_to_tell(www: Path) -> None:
    found = walked(www, b"/index.html")
    assert (list(found.lines()), found.complete) == ([], True)
    assert found.files == 9  # folders and links too, what is in a linked folder once


def test_an_empty_root(tmp_path: Path) -> None:
    assert told(tmp_path) == []


# -- what an alias or a redirect hides ----------------------------------------------------------------


def hidden_by(www: Path, taken: Mapping[bytes, str], *pages: bytes, clean_urls: bool = True) -> list[str]:
    """What is told where these paths, or with a "*" all that begin so, belong to others."""

    def taken_by(path: bytes) -> str | None:
        return next(
            (who for rule, who in taken.items() if path == rule or (rule[-1:] == b"*" and path.startswith(rule[:-1]))),
            None,
        )

    root = Root(www)
    policy = Policy(indexes=(b"index.html",), clean_urls=clean_urls, taken_by=taken_by)
    lines = [line.removeprefix(f"{www}/") for line in survey(root, policy, pages).lines()]
    root.close()
    return lines


def test_a_file_whose_path_a_redirect_has(www: Path) -> None:
    what = "clients do not get it, the redirect from /assets/a.css comes first; delete one of them, or rename it"
    assert hidden_by(www, {b"/assets/a.css": "the redirect from /assets/a.css"}) == [f"assets/a.css: {what}"]


def test_a_folder_that_others_have_is_told_once(www: Path) -> None:
    (www / "assets/b.bak").touch()
    what = "clients do not get it, the alias /assets/ comes first; delete one of them, or rename it"
    assert hidden_by(www, {b"/assets": "the alias /assets/", b"/assets/*": "the alias /assets/"}) == [f"assets: {what}"]


def test_a_page_whose_clean_url_others_have(www: Path) -> None:
    (www / "about.html").touch()
    taken = {b"/about": "the alias /about/", b"/about/*": "the alias /about/"}
    what = (
        "clients do not get it as /about (clean_urls), the alias /about/ comes first; delete one of them, or rename it"
    )
    assert hidden_by(www, taken) == [f"about.html: {what}"]
    assert hidden_by(www, taken, clean_urls=False) == []
    assert hidden_by(www, taken, b"/about.html") == []  # an error page is sent wherever it lies
    assert hidden_by(www, {b"/about.html": "the redirect from /about.html"}) == []  # it is /about
    (www / "about").mkdir()  # then the page has no other name than its own
    assert [line.partition(":")[0] for line in hidden_by(www, taken)] == ["about"]


def test_an_index_has_two_names_and_with_clean_urls_one(www: Path) -> None:
    (www / "assets/index.html").touch()
    for path in (b"/assets/", b"/assets/index.html"):
        assert hidden_by(www, {path: "a redirect"}, clean_urls=False) == []
    assert hidden_by(www, {b"/assets/index.html": "a redirect"}) == []
    (line,) = hidden_by(www, {b"/assets/": "the redirect from /assets/"})
    assert line.startswith(
        "assets/index.html: clients do not get it as /assets/ (clean_urls), the redirect from /assets/"
    )


def test_who_redirects_everything_knows_it(www: Path) -> None:
    assert hidden_by(www, {b"/*": "the redirect from /*"}) == []


# -- one of each kind --------------------------------------------------------------------------------


def test_a_page_that_the_configuration_names_and_that_is_missing(www: Path) -> None:
    expected = ["404.html: is named in the configuration: no such file or directory"]
    assert told(www, b"/index.html", b"/404.html") == expected


def test_files_that_cannot_be_read(www: Path) -> None:
    root = Root(www)  # pytest's folders above it are closed to others
    (www / "assets/closed.css").touch(0o600)
    (www / "folder").mkdir(0o700)
    (www / "listed").mkdir()
    (www / "listed/a.css").touch()
    os.mkfifo(www / "listed/fifo")
    (www / "listed").chmod(0o744)

    def body() -> None:
        assert list(survey(root, Policy()).lines()) == [
            f"{www}/assets/closed.css: cannot be read: permission denied",
            f"{www}/folder/: cannot be looked into: permission denied",
            f"{www}/listed/a.css: cannot be read: permission denied",
            f"{www}/listed/fifo: cannot be looked at: permission denied",
        ]

    if os.geteuid() != 0:
        pytest.skip("what is one's own can be read")
    as_nobody(body)


def test_what_is_neither_file_nor_folder(www: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(www / "fifo")
    monkeypatch.chdir(www)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
    assert told(www) == [
        "fifo: is a FIFO, which clients do not get",
        "socket: is a socket, which clients do not get",
    ]


def test_a_device_is_told_and_not_opened(www: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make a device")
    os.mknod(www / "zero", 0o600 | 0o020000, os.makedev(10, 255))  # opening this one would fail
    assert told(www) == ["zero: is a device, which clients do not get"]


@pytest.mark.parametrize(
    ("target", "what"),
    [
        ("../outside", "which lies outside of the root; copy the file, or write a [[site.alias]] for the folder"),
        ("/etc", "which lies outside of the root; copy the file, or write a [[site.alias]] for the folder"),
        ("gone", "which is not there"),
        ("index.html/x", "which is not there"),
        ("ring", "which is a ring of links"),
        ("{www}/index.html", "which is absolute, so it is not followed although it ends in the root; make it relative"),
        ("{www}", "which is absolute, so it is not followed although it ends in the root; make it relative"),
    ],
)
def test_links_that_lead_nowhere(www: Path, target: str, what: str) -> None:
    target = target.format(www=www)
    (www / "ring").symlink_to(target)
    assert told(www) == [f"ring: is a link to {target}, {what}"]


def test_links_that_the_policy_does_not_follow(www: Path) -> None:
    told = [line.removeprefix(f"{www}/") for line in walked(www, links="none").lines()]
    assert told == [
        'link.html: is a link to index.html, which is not followed by symlinks = "none"',
        'other: is a link to assets, which is not followed by symlinks = "none"',
    ]
    if os.geteuid() == 0:
        os.lchown(www / "link.html", 65534, 65534)
        why = 'is a ring, or some link on the way belongs to another user than its target, by symlinks = "owner"'
        expected = [f"{www}/link.html: is a link to index.html, which {why}"]
        assert list(walked(www, links="owner").lines()) == expected


@pytest.mark.parametrize("extension", ["zst", "br", "gz"])
def test_a_variant_older_than_its_file(www: Path, extension: str) -> None:
    variant = www / f"assets/a.css.{extension}"
    variant.touch()
    os.utime(variant, (1, 1))
    what = "is older than its file, so it is not sent; run pyserver compress, or delete it"
    assert told(www) == [f"assets/a.css.{extension}: {what}"]
    assert told(www, precompressed=False) == []


def test_a_variant_that_saves_nothing(www: Path) -> None:
    (www / "assets/a.css.gz").write_text("as long as it was")
    what = "saves nothing, so it is not sent; run pyserver compress, or delete it"
    assert told(www) == [f"assets/a.css.gz: {what}"]


def test_what_is_no_file_is_no_variant(www: Path) -> None:
    os.mkfifo(www / "assets/a.css.gz")
    (www / "assets/a.css.br").symlink_to("a.css.gz")
    assert told(www) == ["assets/a.css.gz: is a FIFO, which clients do not get"]


def test_an_archive_is_no_variant(www: Path) -> None:
    (www / "archive.tar.gz").touch()
    os.utime(www / "archive.tar.gz", (1, 1))
    assert told(www) == []


@pytest.mark.parametrize("name", [".git", ".svn", ".cache"])
def test_folders_with_a_dot_are_told_once(www: Path, name: str) -> None:
    (www / "assets" / name / "objects").mkdir(parents=True)
    (www / "assets" / name / "objects/x.bak").touch()
    assert told(www) == [f"assets/{name}: clients do not get it; move it out of the root"]


@pytest.mark.parametrize("name", [".env", ".env.production", ".htpasswd", ".bash_history"])
def test_files_with_secrets(www: Path, name: str) -> None:
    (www / name).touch()
    assert told(www) == [f"{name}: clients do not get it; move it out of the root"]
    assert told(www, dot_files=True) == [
        f'{name}: is served to clients by dot_files = "allow"; move it out of the root'
    ]


def test_dot_files_that_are_allowed_and_hold_no_secret(www: Path) -> None:
    (www / ".config").mkdir()
    (www / ".config/page.bak").touch()
    (www / ".git").mkdir()
    assert told(www, dot_files=True) == [
        '.git: is served to clients by dot_files = "allow"; move it out of the root',
        ".config/page.bak: looks like a backup, which clients do not get; delete it",
    ]


@pytest.mark.parametrize("name", ["page.html~", "page.bak", "#page.html#", "page.html.orig"])
def test_backups(www: Path, name: str) -> None:
    (www / name).touch()
    assert told(www) == [f"{name}: looks like a backup, which clients do not get; delete it"]


@pytest.mark.parametrize(
    ("name", "what"),
    [
        (b"caf\xe9", "is not UTF-8, as links to it will be; rename it"),
        (b"a\nb", "has a control byte or a backslash, which no request may have; rename it"),
        (b"a\\b", "has a control byte or a backslash, which no request may have; rename it"),
    ],
)
def test_names_that_are_hard_to_ask_for(www: Path, name: bytes, what: str) -> None:
    Path(www / os.fsdecode(name)).touch()
    assert told(www) == [f"{os.fsdecode(name)}: {what}"]


def test_names_that_differ_in_case_only(www: Path) -> None:
    (www / "Index.html").touch()
    (www / "straße").touch()
    (www / "STRASSE").touch()
    assert told(www) == [
        "index.html: differs from Index.html in case only; elsewhere both are one file",
        "straße: differs from STRASSE in case only; elsewhere both are one file",
    ]


def test_a_name_that_is_a_list_of_findings(www: Path) -> None:
    """Each is told under its kind, and the kinds follow one another."""
    for name in ("b.bak", "a.bak"):
        (www / name).touch()
    os.mkfifo(www / "fifo")
    kinds = [line.partition(": ")[0] for line in told(www)]
    assert kinds == ["fifo", "a.bak", "b.bak"]


# -- bounds ----------------------------------------------------------------------------------------------


def test_of_many_findings_the_first_are_told_and_the_others_counted(www: Path) -> None:
    for number in range(limits.SURVEY_SHOWN_MAX + 312):
        (www / f"{number:03}.bak").touch()
    lines = list(walked(www).lines())
    assert len(lines) == limits.SURVEY_SHOWN_MAX + 1
    assert lines[-2].startswith(f"{www}/{limits.SURVEY_SHOWN_MAX - 1:03}.bak: ")
    assert lines[-1] == f"{www}: and 312 more backups"


def test_the_walk_ends_at_its_bound_and_says_so(www: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SURVEY_FILES_MAX", 8)
    found = walked(www)
    assert (found.files, found.complete) == (8, False)
    assert list(found.lines()) == [f"{www}: looked at the first 8 files only"]
    monkeypatch.setattr(limits, "SURVEY_FILES_MAX", 9)
    assert walked(www).complete


@pytest.fixture
def busy(www: Path) -> Iterator[Path]:
    """A root that somebody is just emptying and filling."""
    child = os.fork()
    if child == 0:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            for number in range(100):
                (www / f"{number}.html").touch()
                (www / f"{number}.link").symlink_to(f"{number}.html")
            for number in range(100):
                (www / f"{number}.link").unlink()
                (www / f"{number}.html").unlink()
        os._exit(0)
    yield www
    os.kill(child, 9)
    os.waitpid(child, 0)


def test_files_that_come_and_go_are_no_findings(busy: Path) -> None:
    for _ in range(50):
        assert told(busy) == []


def test_a_folder_deeper_than_any_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(20):
        Path("d" * 250).mkdir()
        os.chdir("d" * 250)
    lines = told(tmp_path)
    assert len(lines) == 1
    assert lines[0].endswith("/: cannot be looked into: file name too long")


def test_every_kind_has_its_words() -> None:
    assert all(KINDS.values())
