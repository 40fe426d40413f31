"""What this system has to say about a configuration: folders that are missing, closed, or too open.

Owns:    the questions to the file system, asked with the rights this process has.
Never:   creates anything; an answer may be outdated when the server opens the path, which then fails by itself.
Fails:   ConfigError.
Used by: config.reading.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from pyserver.config.errors import literal, printable, strerror, whoever_we_are
from pyserver.config.sources import Setting, Source


def check_root(root: Setting) -> None:
    """Refuse a root that cannot be served."""
    shown = f"root {literal(root.value)}"
    try:
        mode = Path(root.value).stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        if _has_own_root():
            instead = "create the folder, or show it to the service: BindReadOnlyPaths= in a drop-in of its unit"
            raise root.error(f"{shown} is not among what the service can see", instead) from None
        raise root.error(f"{shown} does not exist", "create the folder, or write another") from None
    except OSError as error:
        instead = f"let {whoever_we_are()} search the folders above it"
        raise root.error(f"{shown} cannot be reached: {strerror(error)}", instead) from None
    if not stat.S_ISDIR(mode):
        raise root.error(f"{shown} is not a folder", "write the folder that the file is in")
    if not os.access(root.value, os.R_OK | os.X_OK, effective_ids=True):
        raise root.error(f"{shown} is closed to {whoever_we_are()}", "give read and search permission")


def _has_own_root() -> bool:
    """Tell whether our root is one that was made for us (RootDirectory=): a system always has this file."""
    return not Path("/etc/passwd").exists()


def check_log(access: Setting) -> None:
    """Refuse an access log that cannot be written."""
    if access.value in ("off", "-"):
        return
    shown, path = f"access log {literal(access.value)}", Path(access.value)
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        _check_folder_of(access, shown, path.parent)
        return
    except OSError as error:
        instead = f"let {whoever_we_are()} search the folders above it"
        raise access.error(f"{shown} cannot be reached: {strerror(error)}", instead) from None
    if stat.S_ISDIR(mode):
        raise access.error(f"{shown} is a folder", "write the path of a file in it")
    if not os.access(path, os.W_OK, effective_ids=True):
        raise access.error(f"{shown} is closed to {whoever_we_are()}", "give write permission")


def _check_folder_of(access: Setting, shown: str, folder: Path) -> None:
    if not folder.is_dir():
        raise access.error(f"{shown} is in a folder that does not exist", f"create {folder}, or write another")
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
        raise access.error(
            f"{shown} is in a folder closed to {whoever_we_are()}", f"give write permission for {folder}"
        )


def exposed(root: Setting, files: Sequence[Source], log: Setting | None) -> Iterator[str]:
    """Tell what lies below the root and was hardly meant to be served (T-15): worth a warning, no more."""
    private = [("the configuration", file.name) for file in files]
    if log is not None and log.value not in ("off", "-"):
        private.append(("the access log", log.value))
    top = os.path.realpath(root.value)
    for what, path in private:
        if Path(os.path.realpath(path)).is_relative_to(top):
            fact = f"root {literal(root.value)} contains {what} {path}, which clients can read"
            yield printable(f"{root.place}: {fact}; move one of them")
