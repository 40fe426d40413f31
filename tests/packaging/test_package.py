"""The package as a file: its form, its bytes, and what lies where in it."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from tests.packaging.builds import TREE, Builds, copy_tree, need_tools, said
from tests.packaging.conftest import required

pytestmark = pytest.mark.timeout(600)  # the first one builds the packages


def contents(builds: Builds) -> dict[str, str]:
    """Return what is in the package of this tree: names, each with owner and mode."""
    lines = said("dpkg-deb", "--contents", str(builds.folder / builds.deb(builds.this))).splitlines()
    return {line.split()[5].removeprefix("."): " ".join(line.split()[:2]) for line in lines}


def test_lintian_finds_no_error_and_no_warning(builds: Builds) -> None:
    with required():
        need_tools("lintian")
    changes = str(builds.folder / builds.deb(builds.this).replace(".deb", ".changes"))
    assert said("lintian", "--allow-root", "--fail-on=error,warning", changes) == ""


def test_the_same_tree_gives_the_same_bytes(builds: Builds, tmp_path: Path) -> None:
    """Elsewhere, with other times, another umask and another language."""
    tree = copy_tree(tmp_path / "elsewhere")
    name = builds.deb(builds.this)
    first = (builds.folder / name).read_bytes()
    extracted = f"dpkg-deb --fsys-tarfile {builds.folder / name} | tar -xO ./usr/share/doc/pyserver/changelog.gz"
    epoch = said("sh", "-c", f"{extracted} | gunzip | dpkg-parsechangelog -l- -S Timestamp").strip()
    for path in tree.rglob("*"):
        os.utime(path, (1_800_000_000, 1_800_000_000))
    subprocess.run(
        ["sh", "-c", 'umask 077; exec "$0" "$1"', str(tree / "packaging/build-deb"), str(tmp_path / "out")],
        check=True,
        env={**os.environ, "LC_ALL": "C", "TZ": "Pacific/Auckland", "SOURCE_DATE_EPOCH": epoch},
        capture_output=True,
    )
    assert (tmp_path / "out" / name).read_bytes() == first


def test_everything_of_the_server_is_in_it(builds: Builds) -> None:
    names = contents(builds)
    modules = {str(path.relative_to(TREE / "service")) for path in (TREE / "service").rglob("*.py")}
    assert {f"/usr/lib/pyserver/{module}" for module in modules} <= set(names)
    units = [path.name for path in (TREE / "systemd").iterdir() if path.suffix in {".service", ".socket"}]
    assert {f"/usr/lib/systemd/system/{unit}" for unit in units} <= set(names)
    pages = {path.name for path in (TREE / "www").iterdir()}
    assert {f"/usr/share/pyserver/www/{page}" for page in pages} <= set(names)


def test_an_administrator_finds_it_where_he_looks(builds: Builds) -> None:
    assert {
        "/usr/bin/pyserver",
        "/etc/pyserver/pyserver.toml",
        "/etc/pyserver/conf.d/",
        "/etc/ufw/applications.d/pyserver",
        "/usr/lib/sysusers.d/pyserver.conf",
        "/usr/share/man/man8/pyserver.8.gz",
        "/usr/share/man/man5/pyserver.toml.5.gz",
        "/usr/share/bash-completion/completions/pyserver",
        "/usr/share/zsh/vendor-completions/_pyserver",
        "/usr/share/fish/vendor_completions.d/pyserver.fish",
        "/usr/share/doc/pyserver/examples/pyserver.toml",
        "/usr/share/doc/pyserver/examples/monitoring/alerts.yml",
        "/usr/share/doc/pyserver/README.Debian",
        "/usr/share/doc/pyserver/copyright",
        "/usr/share/doc/pyserver/changelog.gz",
    } <= set(contents(builds))


def test_the_pages_are_there_to_be_read_and_lead_to_each_other(builds: Builds) -> None:
    names, folder = contents(builds), "/usr/share/doc/pyserver/"
    written = {path.name for path in (TREE / "docs").glob("*.md")}
    assert written == {name.removeprefix(folder) for name in names if re.fullmatch(rf"{folder}[a-z-]+\.md", name)}
    package = builds.folder / builds.deb(builds.this)
    text = said("sh", "-c", f"dpkg-deb --fsys-tarfile {package} | tar -xO --wildcards '.{folder}*.md'")
    links = set(re.findall(r"\]\(([a-z/-]+(?i:readme)?\.md)\)", text))
    assert len(links) > 5
    assert {f"{folder}{link}" for link in links} <= set(names)


@pytest.mark.parametrize("page", ["README.md", "docs/packaging.md"])
def test_it_is_about_as_large_as_is_said(builds: Builds, page: str) -> None:
    told = [float(size) for size in re.findall(r"about ([0-9.]+) MB", (TREE / page).read_text())]
    size = (builds.folder / builds.deb(builds.this)).stat().st_size / 1_000_000
    assert told
    assert all(abs(each - size) < 0.1 for each in told), size


def test_all_of_it_is_roots_and_for_everyone_to_read(builds: Builds) -> None:
    names = contents(builds)
    programs = {name for name, kind in names.items() if kind == "-rwxr-xr-x root/root"}
    assert programs == {
        "/usr/bin/pyserver",
        "/usr/lib/pyserver/follow",
        "/usr/share/python3/runtime.d/pyserver.rtupdate",
    }
    assert set(names.values()) == {"drwxr-xr-x root/root", "-rw-r--r-- root/root", "-rwxr-xr-x root/root"}


def test_one_package_serves_each_python_that_it_allows(builds: Builds) -> None:
    modules = [name for name in contents(builds) if "/posix_ipc" in name]
    pythons = [re.sub(r".*cpython-3(\d+)-.*", r"\1", name) for name in modules]
    depends = said("dpkg-deb", "--field", str(builds.folder / builds.deb(builds.this)), "Depends")
    low, high = re.search(r">= 3\.(\d+)~", depends), re.search(r"<< 3\.(\d+)", depends)
    assert low
    assert high
    assert sorted(map(int, pythons)) == list(range(int(low[1]), int(high[1])))


def test_a_wheel_that_was_changed_is_refused(builds: Builds, tmp_path: Path) -> None:
    tree = copy_tree(tmp_path / "tree")
    wheel = next((tree / ".cache/vendor").glob("*.whl"))
    wheel.write_bytes(wheel.read_bytes() + b"\0")
    answer = said(str(tree / "packaging/build-deb"), str(tmp_path / "out"), status=1)
    assert "FAILED" in answer
    assert not (tmp_path / "out").exists()


def test_a_file_for_systemd_that_has_no_place_is_refused(tmp_path: Path) -> None:
    tree = copy_tree(tmp_path / "tree")
    (tree / "systemd/pyserver.unheard-of").touch()
    answer = said(str(tree / "packaging/install"), str(tmp_path / "root"), status=1)
    assert "systemd/pyserver.unheard-of: say here where it belongs" in answer


@pytest.mark.parametrize("form", ["deb", "rpm"])
def test_the_changelog_of_a_distribution_is_ours(form: str) -> None:
    entries = said(str(TREE / "packaging/changelog"), form)
    written = (TREE / "CHANGELOG.md").read_text()
    changes = len(re.findall(r"^- ", written, re.MULTILINE))
    assert changes == len(re.findall(r"^  \* " if form == "deb" else r"^- ", entries, re.MULTILINE)) > 10
    assert max(len(line) for line in entries.splitlines() if "@" not in line) <= 79
