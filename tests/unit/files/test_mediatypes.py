import re

import pytest

from pyserver.files import mediatypes
from pyserver.files.mediatypes import UNKNOWN, is_packed, is_text, media_type


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"index.html", b"text/html; charset=utf-8"),
        (b"/a/b/style.css", b"text/css; charset=utf-8"),
        (b"app.js", b"text/javascript; charset=utf-8"),  # RFC 9239 6: never application/javascript again
        (b"app.mjs", b"text/javascript; charset=utf-8"),
        (b"app.js.map", b"application/json"),
        (b"data.json", b"application/json"),  # RFC 8259 11: no charset parameter exists
        (b"README.md", b"text/markdown; charset=utf-8"),  # RFC 7763: charset is required
        (b"drawing.svg", b"image/svg+xml"),
        (b"favicon.ico", b"image/vnd.microsoft.icon"),
        (b"photo.JPG", b"image/jpeg"),  # cameras write capitals
        (b"photo.JpEg", b"image/jpeg"),
        (b"font.woff2", b"font/woff2"),  # RFC 8081
        (b"module.wasm", b"application/wasm"),
        (b"feed.atom", b"application/atom+xml"),  # RFC 4287
        (b"talk.opus", b"audio/ogg"),  # RFC 7845 9
        (b"site.webmanifest", b"application/manifest+json"),
        (b"config.yml", b"application/yaml"),  # RFC 9512
        (b"calendar.ics", b"text/calendar; charset=utf-8"),
        (b"package_1.0-1_amd64.deb", b"application/vnd.debian.binary-package"),
        (b"page.html.gz", b"application/gzip"),  # T-37: asked for by this name it is an archive, not a coded page
        (b"archive.tar.gz", b"application/gzip"),
        (b"archive.tar.zst", b"application/zstd"),  # RFC 8878
        (b"archive.tar", b"application/x-tar"),
    ],
)
def test_known(name: bytes, expected: bytes) -> None:
    assert media_type(name) == expected


@pytest.mark.parametrize(
    "name",
    [
        b"unknown.xyzzy",  # T-46
        b"LICENSE",
        b"html",
        b"",
        b"name.",
        b".",
        b"page.html ",
        b"page.\xff\xfe",
        b"page.php",  # somebody's source is nobody's page
        b"page.html~",
        b"/folder.html/name",  # the dot is in the folder
        b"page.html.br",  # a coding without a file format
    ],
)
def test_unknown_is_octet_stream(name: bytes) -> None:
    assert media_type(name) == UNKNOWN == b"application/octet-stream"


def test_every_row_is_a_type_and_every_extension_stands_once() -> None:
    # RFC 6838 4.2  type-name, subtype-name = restricted-name
    name = r"[a-z0-9][a-z0-9!#$&^_.+-]{0,126}"
    extensions = []
    for row, listed in mediatypes._EXTENSIONS.items():
        assert re.fullmatch(f"{name}/{name}", row), row
        assert row.partition("/")[0] in {"application", "audio", "font", "image", "message", "model", "text", "video"}
        extensions += listed.split()
    assert len(extensions) == len(set(extensions))
    assert extensions == [extension.lower() for extension in extensions]


def test_text_says_its_charset_and_nothing_else_does() -> None:
    for value in mediatypes._BY_EXTENSION.values():
        assert value.endswith(b"; charset=utf-8") == value.startswith(b"text/")


@pytest.mark.parametrize(
    "extensions",
    [
        "html htm xhtml css js mjs json map webmanifest wasm vtt",
        "svg png apng jpg jpeg gif webp avif ico bmp tiff heic jxl",
        "woff woff2 ttf otf ttc eot",
        "txt md csv tsv xml atom rss jsonld geojson yaml toml ics vcf",
        "mp4 m4v webm ogv mov mkv ts m3u8 mpd mp3 m4a aac ogg oga opus wav flac",
        "pdf epub rtf docx xlsx pptx doc xls ppt odt ods odp",
        "zip gz tgz zst bz2 xz 7z tar jar deb rpm apk iso exe",
        "glb gltf obj stl",
    ],
)
def test_the_web_of_today_is_known(extensions: str) -> None:
    assert [name for name in extensions.split() if media_type(b"a." + name.encode()) == UNKNOWN] == []


@pytest.mark.parametrize(
    ("name", "text", "packed"),
    [
        (b"a.html", True, False),
        (b"a.js", True, False),
        (b"a.json", True, False),
        (b"a.svg", True, False),  # RFC 6839: +xml, although it is a picture
        (b"a.geojson", True, False),
        (b"a.webmanifest", True, False),
        (b"a.wasm", True, False),
        (b"a.ttf", True, False),
        (b"a.ico", False, False),  # shrinks, and is no text: a variant beside it is used
        (b"a.bmp", False, False),
        (b"a.wav", False, False),
        (b"a.tar", False, False),
        (b"a.xyzzy", False, False),
        (b"a.png", False, True),  # T-38
        (b"a.mp4", False, True),
        (b"a.woff2", False, True),
        (b"a.zip", False, True),
        (b"a.gz", False, True),
        (b"a.zst", False, True),
        (b"a.docx", False, True),
        (b"a.pdf", False, True),
    ],
)
def test_what_shrinks(name: bytes, text: bool, packed: bool) -> None:
    assert (is_text(media_type(name)), is_packed(media_type(name))) == (text, packed)


def test_every_type_that_is_told_apart_is_in_the_table() -> None:
    known = {each.partition(b";")[0] for each in mediatypes._BY_EXTENSION.values()}
    for told in (mediatypes._TEXT, mediatypes._PACKED, mediatypes._UNPACKED):
        assert told <= known
