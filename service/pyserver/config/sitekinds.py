"""The kinds of value that only sites have: hosts, paths and patterns of requests, origins, response fields.

Owns:    one reader per kind, from what TOML holds to what handlers compare with; what is compared is lower case and
         clean already.
Never:   knows two values together; config.sites does.
Fails:   Refused.
Used by: config.options.
"""

import ipaddress
import posixpath
import re
import urllib.parse
from typing import Final

from pyserver.config.errors import Refused, literal, nearest
from pyserver.config.kinds import Kind, is_a


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise Refused(is_a(value))
    return value


def _list(value: object) -> list[object]:
    if isinstance(value, str):
        raise Refused(is_a(value), f"write [{literal(value)}]")
    if not isinstance(value, list):
        raise Refused(is_a(value))
    return value


# -- choices ---------------------------------------------------------------------------------------


def _flag(value: object, _base: str) -> bool:
    if type(value) is not bool:
        raise Refused(is_a(value))
    return value


def words(*known: str) -> Kind:
    """Return the kind that is one of these words."""

    def read(value: object, _base: str) -> str:
        word = _text(value)
        if word not in known:
            close = nearest(word.lower(), known)
            raise Refused("is not known", f"write {literal(close)}" if close else None)
        return word

    return Kind(_either([literal(word) for word in known]), read)


# RFC 9110 15.4: moved for good, moved for now; 307 and 308 keep the method, which for GET and HEAD is all the same.
_REDIRECTIONS: Final = (301, 302, 307, 308)


def _redirection(value: object, _base: str) -> int:
    if type(value) is not int:
        raise Refused(is_a(value))
    if value not in _REDIRECTIONS:
        raise Refused("is not the status of a redirect")
    return value


def _either(choices: list[str]) -> str:
    return f"{', '.join(choices[:-1])} or {choices[-1]}"


# -- hosts and origins -----------------------------------------------------------------------------

# RFC 1123 2.1 with the "_" that is found in practice; lower case, as http.request compares (T-47).
_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME: Final = re.compile(rf"(?!.{{254}}){_LABEL}(?:\.{_LABEL})*")

_AUTHORITY: Final = re.compile(r"(?P<host>\[[^\]]*\]|[^:\[\]]*)(?::(?P<port>[0-9]{1,5}))?")


def _hosts(value: object, _base: str) -> tuple[str, ...]:
    return tuple(_host(item) for item in _list(value))


def _host(value: object) -> str:
    """Return a host as it is compared: `example.org`, `*.example.org`, `192.0.2.1` or `[2001:db8::1]`."""
    if not isinstance(value, str):
        raise Refused(f"has {literal(value)}, which is not a host")
    name = value.lower().removesuffix(".")
    if name in ("", "*"):
        raise Refused(f"has {literal(value)}", "leave hosts out: the site without them answers for all other hosts")
    if _is_host(name.removeprefix("*.")) and not name.startswith("*.["):
        return str(_ipv6(name)) if name.startswith("[") else name
    raise Refused(f"has {literal(value)}, which is not a host", _host_instead(name))


def _is_host(name: str) -> bool:
    return (_ipv6(name) if name.startswith("[") else _NAME.fullmatch(name)) is not None


def _ipv6(name: str) -> str | None:
    try:
        return f"[{ipaddress.IPv6Address(name[1:-1])}]" if name.endswith("]") and "%" not in name else None
    except ValueError:
        return None


def _host_instead(name: str) -> str | None:
    """Return what was meant: a URL, a port and an address without brackets are what people write."""
    if "*" in name.removeprefix("*."):
        return 'write "*" only in front, as in "*.example.org"'
    authority = re.sub(r"\A[a-z]+://|/.*\Z", "", name)
    found = _AUTHORITY.fullmatch(authority)
    meant = found["host"] if found else f"[{authority}]"
    try:
        meant = meant if meant.isascii() else meant.encode("idna").decode()
    except UnicodeError:
        return None
    return f"write {literal(meant)}" if meant != name and _is_host(meant) else None


def _origins(value: object, _base: str) -> tuple[str, ...]:
    if value == "*":
        return ("*",)
    origins = tuple(_origin(item) for item in _list(value))
    if "*" in origins and len(origins) > 1:
        raise Refused('has "*" and others', 'write "*" alone, or leave it out')
    return origins


# RFC 6454 6.2: scheme, "://", host, and the port unless it is the scheme's own; as browsers send it, so lower case.
_OWN_PORT: Final = {"http": "80", "https": "443"}


def _origin(value: object) -> str:
    if value == "*":
        return "*"
    if not isinstance(value, str):
        raise Refused(f"has {literal(value)}, which is not an origin")
    scheme, _, rest = value.lower().partition("://")
    found = _AUTHORITY.fullmatch(rest.partition("/")[0])
    if scheme not in _OWN_PORT or not found or not _is_host(found["host"]):
        raise Refused(f"has {literal(value)}, which is not an origin")
    port = "" if found["port"] in (None, _OWN_PORT[scheme]) else f":{found['port']}"
    origin = f"{scheme}://{found['host']}{port}"
    if value != origin:
        raise Refused(f"has {literal(value)}, which no browser sends as an origin", f"write {literal(origin)}")
    return origin


# -- paths of requests, decoded ------------------------------------------------------------------------

_ESCAPE: Final = re.compile(r"%[0-9A-Fa-f]{2}")
_NO_PATH: Final = re.compile(r"[\x00-\x1f\x7f\\]")  # what http.target refuses (T-7, T-8)


def _check_path(path: str) -> None:
    """Refuse what no cleaned path of a request can be: it would never match."""
    if not path.startswith("/"):
        raise Refused('does not begin with "/"', f"write {literal(f'/{path}')}" if path else None)
    if _NO_PATH.search(path):
        raise Refused("has a control byte or a backslash, which no request may have", "write it without")
    if "?" in path or "#" in path:
        raise Refused("is more than a path", f"write {literal(re.sub('[?#].*', '', path, flags=re.DOTALL))}")
    if _ESCAPE.search(path):
        raise Refused("is percent-encoded", f"write {literal(urllib.parse.unquote(path))}")
    clean = _cleaned(path)
    if clean != path:
        raise Refused("has empty or dot segments", f"write {literal(clean)}")


def _cleaned(path: str) -> str:
    clean = "/" + posixpath.normpath(path).strip("/")
    return f"{clean}/" if path.endswith(("/", "/.", "/..")) and clean != "/" else clean


def _folder_path(value: object, _base: str) -> str:
    path = _text(value)
    if path.endswith("*"):
        raise Refused('needs no "*"', f"write {literal(path.rstrip('*'))}")
    _check_path(path)
    if path == "/":
        raise Refused("is the whole site", "write root in [[site]]")
    if not path.endswith("/"):
        raise Refused('does not end with "/"', f"write {literal(f'{path}/')}")
    return path


def _page(value: object, _base: str) -> str:
    path = _text(value)
    if path:
        _check_page(path)
    return path


def _check_page(path: str) -> None:
    _check_path(path)
    if path.endswith("/"):
        raise Refused("is a folder", f"write {literal(f'{path}index.html')}")


def _pages(value: object, _base: str) -> dict[int, str]:
    if not isinstance(value, dict):
        raise Refused(is_a(value))
    return {_error_status(key): _error_page(key, path) for key, path in value.items()}


def _error_status(key: str) -> int:
    if not re.fullmatch("[45][0-9][0-9]", key, re.ASCII):
        raise Refused(f"has {literal(key)}, which is not the status of an error", within=(key,))
    return int(key)


def _error_page(key: str, path: object) -> str:
    try:
        page = _text(path)
        _check_page(page)
    except Refused as refused:
        what = f"has for {key} {literal(path)}, which {refused.what}"
        raise Refused(what, refused.instead, within=(key,)) from None
    return page


# -- redirects -------------------------------------------------------------------------------------------


def _from(value: object, _base: str) -> str:
    path = _text(value)
    _check_star(path)
    _check_path(path.removesuffix("*"))
    return path


def _check_star(path: str) -> None:
    if "*" in path[:-1]:
        raise Refused('has "*" before its end', 'write "*" as the last thing, as in "/old/*"')
    if path.endswith("*") and not path.endswith("/*"):
        raise Refused('has "*" within a name', f"write {literal(f'{path[:-1]}/*')}")


# RFC 3986 4.1: what a Location may hold, as it goes out. "*" is ours, and at the end only.
_REFERENCE: Final = re.compile(
    r"(?:[A-Za-z0-9._~!$&'()+,;=:@/?-]|%[0-9A-Fa-f]{2})*(?:#[A-Za-z0-9._~!$&'()+,;=:@/?%-]*)?\*?"
)
_ABSOLUTE: Final = re.compile(r"https?://([^/?#]*)(?:[/?#].*)?", re.DOTALL)


def _to(value: object, _base: str) -> str:
    to = _text(value)
    _check_star(to)
    if to.startswith("//"):
        raise Refused("leaves the scheme open", f"write {literal(f'https:{to}')}")
    rest = to
    if not to.startswith("/"):
        found = _ABSOLUTE.fullmatch(to)
        authority = _AUTHORITY.fullmatch(found[1].lower()) if found else None
        if not found or not authority or not _is_host(authority["host"]):
            raise Refused("is neither a path nor an http or https URL")
        rest = to[found.end(1) :]
    if not _REFERENCE.fullmatch(rest) or not rest.isascii():
        encoded = urllib.parse.quote(re.sub("%(?![0-9A-Fa-f]{2})", "%25", to), safe="%/:@!$&'()*+,;=?#[]~")
        raise Refused("is not percent-encoded", f"write {literal(encoded)}")
    return to


# -- fields of answers -------------------------------------------------------------------------------------

# RFC 9110 5.1      field-name = token (5.6.2)
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# RFC 9110 5.5      field-value without obs-text: "SHOULD limit [...] to US-ASCII octets"; CR, LF, NUL and every other
# control byte would let a value become two (T-42).
_VALUE: Final = re.compile(r"(?:[!-~](?:[\t -~]*[!-~])?)?")

# What the server says by itself because only it knows: written twice, or wrongly, clients would misread the answer.
_FRAMING: Final = "Connection Content-Length Keep-Alive TE Trailer Transfer-Encoding Upgrade"
_OF_THE_FILE: Final = "Accept-Ranges Content-Encoding Content-Range ETag Last-Modified"
_OF_THE_ANSWER: Final = "Allow Date Location Retry-After Server WWW-Authenticate"
_OURS: Final = {
    **dict.fromkeys(_FRAMING.lower().split(), "frames the message"),
    **dict.fromkeys(_OF_THE_FILE.lower().split(), "tells of the file that is sent"),
    **dict.fromkeys(_OF_THE_ANSWER.lower().split(), "tells of this very answer"),
    "content-type": "follows from the name of the file",
}


def _fields(value: object, _base: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise Refused(is_a(value))
    if not value:
        raise Refused("is empty")
    seen: set[str] = set()
    for name, field in value.items():
        _check_name(name)
        if name.lower() in seen:  # RFC 9110 5.1: names are case-insensitive
            raise Refused(f"has {literal(name)} twice", "write it once", within=(name,))
        seen.add(name.lower())
        _check_value(name, field)
    return dict(value)


def _check_name(name: str) -> None:
    if not _TOKEN.fullmatch(name):
        what = f"has {literal(name)}, which is not the name of a field"
        raise Refused(what, 'write letters, digits and "-", as in "Cache-Control"', within=(name,))
    if why := _OURS.get(name.lower()):
        raise Refused(f"has {literal(name)}, which {why}", "leave it to the server", within=(name,))


def _check_value(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise Refused(f"has {literal(name)}, which {is_a(value)}", "write a string", within=(name,))
    if value != value.strip(" \t"):
        what = f"has for {literal(name)} {literal(value)}, which begins or ends with space"
        raise Refused(what, f"write {literal(value.strip())}", within=(name,))
    if not _VALUE.fullmatch(value):
        what = f"has for {literal(name)} {literal(value)}, which is not one line of ASCII"
        raise Refused(what, "write visible characters and spaces", within=(name,))


# -- patterns --------------------------------------------------------------------------------------------------


def _pattern(value: object, _base: str) -> str:
    """Return a pattern: `*` is any part of a name, `?` one character, `**` any number of whole names."""
    pattern = _text(value)
    if not pattern:
        raise Refused("is empty")
    if unknown := re.search(r"[\[\]{}\\]", pattern):
        raise Refused(f"has {literal(unknown[0])}, which means nothing here", 'write "*", "**" and "?" only')
    if "**" in re.sub(r"(?:(?<=/)|\A)\*\*(?=/|\Z)", "", pattern):
        raise Refused('has "**" within a name', 'write "*" for a part of a name, "/**" for all below a folder')
    if "/" in pattern and not pattern.startswith("/"):
        raise Refused('has a slash and does not begin with "/"', f"write {literal(f'/{pattern}')}")
    if "/" in pattern:
        _check_path(pattern.replace("?", "x"))
    if _NO_PATH.search(pattern):
        raise Refused("has a control byte, which no request may have", "write it without")
    return pattern


FLAG: Final = Kind("true or false", _flag)
HOSTS: Final = Kind('a list of hosts, like ["example.org", "*.example.org"]', _hosts)
ORIGINS: Final = Kind('"*" or a list of origins, like ["https://example.org"]', _origins)
FOLDER_PATH: Final = Kind('a path with a slash at both ends, like "/static/"', _folder_path, '"/static/"')
PAGE: Final = Kind('a path like "/index.html", or ""', _page)
PAGES: Final = Kind('statuses from 400 to 599 with a path each, like { 404 = "/404.html" }', _pages)
MOVED_FROM: Final = Kind('a path, or all below one, like "/old/*"', _from, '"/old/*"')
MOVED_TO: Final = Kind('a path like "/new/*" or a URL like "https://example.org/*"', _to, '"/new/*"')
MOVED_STATUS: Final = Kind(_either([str(status) for status in _REDIRECTIONS]), _redirection)
PATTERN: Final = Kind('a pattern like "*.html" or "/assets/**"', _pattern, '"/assets/**"')
FIELDS: Final = Kind('fields like { "Cache-Control" = "no-cache" }', _fields, '{ "Cache-Control" = "no-cache" }')
