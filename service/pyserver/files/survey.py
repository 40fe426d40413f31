"""Walk a root and tell what in it clients will not get, or hardly should.

Owns:    the walk, its bounds, and one line for each finding: where, what, what to do.
Never:   opens a device or a FIFO, follows a link to a folder (what is beneath the root is walked by its own name), or
         judges by other rules than those that serve: names by files.policy, links and rights by Root.open.
Fails:   never: what cannot be looked at is a finding.
Used by: cli, for `pyserver check`.
"""

import errno
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final, NamedTuple, TypeAlias

from pyserver import limits
from pyserver.files.codings import EXTENSIONS
from pyserver.files.mediatypes import is_packed, media_type
from pyserver.files.policy import hidden
from pyserver.files.resolve import OpenFile, Root
from pyserver.files.variants import is_fresh

# -- the kinds of finding --------------------------------------------------------------------------

# Kind -> what the others of that kind have in common, after "and 312 more".
KINDS: Final = {
    "page": "pages that are missing",
    "closed": "that cannot be read",
    "special": "that are neither files nor folders",
    "link": "links that lead nowhere",
    "taken": "that an alias or a redirect hides",
    "stale": "compressed that are not sent",
    "private": "folders and files that begin with a dot",
    "backup": "backups",
    "name": "names that are hard to ask for",
    "twin": "names that differ in case only",
}


class Finding(NamedTuple):
    """Something to tell: a path in the root, and what about it."""

    kind: str
    path: bytes
    what: str


class Policy(NamedTuple):
    """What of a site's options decides which findings there are."""

    dot_files: bool = False  # names with a dot in front are served
    precompressed: bool = True  # variants beside a file are sent
    indexes: tuple[bytes, ...] = ()  # names of what a folder is answered with
    clean_urls: bool = False  # /a.html is asked for as /a
    taken_by: Callable[[bytes], str | None] = lambda _path: None  # who else has a path: an alias, or a redirect


class Survey(NamedTuple):
    """What a walk found."""

    root: str
    findings: list[Finding]  # of each kind at most limits.SURVEY_SHOWN_MAX, in the order of the walk
    counts: Counter[str]  # kind -> how many there were
    files: int  # that were looked at, folders included
    complete: bool  # and not ended by limits.SURVEY_FILES_MAX

    def lines(self) -> Iterator[str]:
        """Yield the findings as they are printed, one kind after the other."""
        for kind, others in KINDS.items():
            for finding in self.findings:
                if finding.kind == kind:
                    yield f"{self.root}{os.fsdecode(finding.path)}: {finding.what}"
            if self.counts[kind] > limits.SURVEY_SHOWN_MAX:
                yield f"{self.root}: and {self.counts[kind] - limits.SURVEY_SHOWN_MAX} more {others}"
        if not self.complete:
            yield f"{self.root}: looked at the first {self.files} files only"


def survey(root: Root, policy: Policy, pages: Iterable[bytes] = ()) -> Survey:
    """Walk all below `root`; `pages` are paths that the configuration names."""
    pages = frozenset(pages)
    walk = _Walk(root, policy, pages)
    walk.look_for(sorted(pages))
    walk.run()
    return Survey(os.fsdecode(root.path).rstrip("/"), walk.findings, walk.counts, walk.files, walk.complete)


# -- the walk ----------------------------------------------------------------------------------------

# What holds a history or secrets, and is told also where dot files are served. Other dot files are common and harmless.
_SECRET: Final = re.compile(
    rb"\.(?:git|hg|svn|bzr|ssh|aws|gnupg|env(?:\..*)?|htpasswd|netrc|npmrc|pypirc|pgpass|git-credentials|.*_history)"
)

_PAGE: Final = b".html"

# No rule is written for such a name: who has it has all that a folder holds.
_ANY: Final = b"\0"

# What http.target refuses in a path (T-8): a name with one of these cannot be asked for.
_NEVER_ASKED: Final = re.compile(rb"[\x00-\x1f\x7f\\]")

_SPECIAL: Final = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}

_Entries: TypeAlias = dict[bytes, "os.DirEntry[str]"]


class _Walk:
    def __init__(self, root: Root, policy: Policy, pages: frozenset[bytes]) -> None:
        self._root = root
        self._policy = policy
        self._pages = pages  # are sent wherever they lie
        # Folders, each with its final slash. Who has redirected everything knows that nothing is sent.
        self._waiting = [] if policy.taken_by(b"/" + _ANY) is not None else [b"/"]
        self.findings: list[Finding] = []
        self.counts: Counter[str] = Counter()
        self.files = 0
        self.complete = True

    def look_for(self, pages: Iterable[bytes]) -> None:
        """Tell which of the pages that the configuration names are not there."""
        for page in pages:
            try:
                os.close(self._root.open(page, cached_only=False))
            except OSError as error:
                self._tell("page", page, f"is named in the configuration: {_reason(error)}")

    def run(self) -> None:
        """Look into one folder after the other, depth first and by name."""
        while self._waiting and self.complete:
            folder = self._waiting.pop()
            try:
                fd = self._root.open(folder, cached_only=False)
                try:
                    self._look_into(folder, fd)
                finally:
                    os.close(fd)
            except OSError as error:
                self._tell("closed", folder, f"cannot be looked into: {_reason(error)}")

    def _look_into(self, folder: bytes, fd: int) -> None:
        room = limits.SURVEY_FILES_MAX - self.files
        with os.scandir(fd) as found:
            entries = {os.fsencode(entry.name): entry for entry in islice(found, room + 1)}
        self.complete = len(entries) <= room
        self.files += min(len(entries), room)
        inner = []
        for name, entry in sorted(islice(entries.items(), room)):
            path = folder + name
            try:
                if self._served(path, name, entry):
                    self._judge_name(path, name)
                    if entry.is_dir(follow_symlinks=False):
                        if not self._taken(path, path + b"/" + _ANY):
                            inner.append(path + b"/")
                    elif not self._unreachable(folder, name, entries):
                        self._judge(path, entry, fd)
                        self._judge_variant(path, name, entries)
            except FileNotFoundError:
                continue  # deleted meanwhile
            except OSError as error:
                self._tell("closed", path, f"cannot be looked at: {_reason(error)}")
        self._judge_twins(folder, entries)
        self._waiting.extend(reversed(inner))

    # -- one entry of a folder

    def _served(self, path: bytes, name: bytes, entry: "os.DirEntry[str]") -> bool:
        """Tell what is hidden, or should be; return whether it is served."""
        secret = _SECRET.fullmatch(name) is not None
        if secret and self._policy.dot_files:
            self._tell("private", path, 'is served to clients by dot_files = "allow"; move it out of the root')
            return False  # its content would be told file by file
        if not hidden(path, dot_files=self._policy.dot_files):
            return True
        if not name.startswith(b"."):
            self._tell("backup", path, "looks like a backup, which clients do not get; delete it")
        elif secret or entry.is_dir(follow_symlinks=False):
            self._tell("private", path, "clients do not get it; move it out of the root")
        return False

    def _judge_name(self, path: bytes, name: bytes) -> None:
        if _NEVER_ASKED.search(name):
            self._tell("name", path, "has a control byte or a backslash, which no request may have; rename it")
            return
        try:
            name.decode()
        except UnicodeDecodeError:
            self._tell("name", path, "is not UTF-8, as links to it will be; rename it")

    def _unreachable(self, folder: bytes, name: bytes, entries: _Entries) -> bool:
        """Tell of a file that is sent for no path, since others have all those that it could be asked for by."""
        path, policy = folder + name, self._policy
        if path in self._pages:
            return False
        if name in policy.indexes and policy.taken_by(folder) is None:
            return False
        cleaner = path
        if policy.clean_urls:
            if name in policy.indexes:
                cleaner = folder
            elif name != _PAGE and name.removesuffix(_PAGE) not in entries:
                cleaner = path.removesuffix(_PAGE)
        return self._taken(path, cleaner)

    def _taken(self, path: bytes, asked_for: bytes) -> bool:
        """Tell of `path` that others have what it would be asked for by; return whether that is so."""
        who = self._policy.taken_by(asked_for)
        if who is not None:
            as_ = "" if asked_for.startswith(path) else f" as {os.fsdecode(asked_for)} (clean_urls)"
            self._tell(
                "taken", path, f"clients do not get it{as_}, {who} comes first; delete one of them, or rename it"
            )
        return who is not None

    def _judge(self, path: bytes, entry: "os.DirEntry[str]", folder: int) -> None:
        """Open it as the server would. Not what is special by itself: opening a device may do something."""
        is_link = entry.is_symlink()
        if not is_link and not entry.is_file(follow_symlinks=False):
            special = _SPECIAL[stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode)]
            self._tell("special", path, f"is {special}, which clients do not get")
            return
        try:
            os.close(self._root.open(path, cached_only=False))
        except OSError as error:
            if is_link and error.errno in _LINK_ERRORS:
                self._tell("link", path, self._about_link(os.fsencode(os.readlink(entry.name, dir_fd=folder)), error))
            elif error.errno != errno.ENOENT:
                self._tell("closed", path, f"cannot be read: {_reason(error)}")

    def _about_link(self, target: bytes, error: OSError) -> str:
        why = _LINK_ERRORS[error.errno or 0] or _NOT_FOLLOWED[self._root.links]
        if error.errno == errno.EXDEV and target.startswith(b"/") and self._root.holds(os.fsdecode(target)):
            why = "is absolute, so it is not followed although it ends in the root; make it relative"
        return f"is a link to {os.fsdecode(target)}, which {why}"

    def _judge_variant(self, path: bytes, name: bytes, entries: _Entries) -> None:
        """Tell of a variant beside a file that the server would pass over (files.variants)."""
        stem, dot, extension = name.rpartition(b".")
        is_variant = dot + extension in EXTENSIONS and stem in entries and not is_packed(media_type(stem))
        if not is_variant or not self._policy.precompressed:
            return
        try:
            if not entries[name].is_file() or not entries[stem].is_file():
                return
            variant = OpenFile(self._root.open(path, cached_only=False))
            source = OpenFile(self._root.open(path[: -len(dot + extension)], cached_only=False))
        except OSError:  # told as a finding of its own
            return
        if is_fresh(variant, source):
            return
        why = "is older than its file" if variant.modified_ns < source.modified_ns else "saves nothing"
        self._tell("stale", path, f"{why}, so it is not sent; run pyserver compress, or delete it")

    def _judge_twins(self, folder: bytes, entries: _Entries) -> None:
        seen: dict[str, bytes] = {}
        for name in sorted(entries):
            other = seen.setdefault(os.fsdecode(name).casefold(), name)
            if other != name:
                what = f"differs from {os.fsdecode(other)} in case only; elsewhere both are one file"
                self._tell("twin", folder + name, what)

    def _tell(self, kind: str, path: bytes, what: str) -> None:
        self.counts[kind] += 1
        if self.counts[kind] <= limits.SURVEY_SHOWN_MAX:
            self.findings.append(Finding(kind, path, what))


_LINK_ERRORS: Final = {
    errno.ENOENT: "is not there",
    errno.ENOTDIR: "is not there",
    errno.EXDEV: "lies outside of the root; copy the file, or write a [[site.alias]] for the folder",
    errno.ELOOP: "",  # it depends
}
_NOT_FOLLOWED: Final = {
    "beneath": "is a ring of links",
    "owner": 'is a ring, or some link on the way belongs to another user than its target, by symlinks = "owner"',
    "none": 'is not followed by symlinks = "none"',
}


def _reason(error: OSError) -> str:
    return os.strerror(error.errno or 0).lower()
