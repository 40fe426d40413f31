"""The media type of a file, by its name alone, and whether content of that type shrinks.

Owns:    one table, media type to extensions. It is ours: what /etc/mime.types says differs from host to host.
Never:   looks into a file, guesses, or calls the unknown text: what is not in the table is application/octet-stream,
         and handlers.static adds nosniff, so that browsers do not guess either (T-46).
Used by: files.look, files.survey, handlers.static and compress (what shrinks); handlers.entries (what it is).

Names are the registered ones (IANA media types registry, RFC 6838). The last group has no registration; there the name
is the one that browsers and other programs know.

`.gz`, `.br`, `.zst` are types of their own here: `x.html.gz` asked for by that name is an archive, not a coded page
(RFC 9110 8.4: a content coding is a property of the representation, never of its name).
"""

from typing import Final

UNKNOWN: Final = b"application/octet-stream"

_EXTENSIONS: Final = {
    # -- pages and what they load (HTML standard; RFC 9239 for JavaScript) ----------------
    "text/html": "html htm",
    "application/xhtml+xml": "xhtml xht",
    "text/css": "css",
    "text/javascript": "js mjs",
    "application/json": "json map",  # map: source maps, ECMA-426
    "application/manifest+json": "webmanifest",
    "application/wasm": "wasm",
    "text/vtt": "vtt",
    # -- pictures ---------------------------------------------------------------------------
    "image/svg+xml": "svg",  # not svgz: it is only right together with Content-Encoding: gzip
    "image/png": "png",
    "image/apng": "apng",
    "image/jpeg": "jpg jpeg jpe jfif",
    "image/gif": "gif",
    "image/webp": "webp",
    "image/avif": "avif",
    "image/heic": "heic",
    "image/heif": "heif",
    "image/jxl": "jxl",
    "image/jp2": "jp2",
    "image/bmp": "bmp",
    "image/tiff": "tif tiff",
    "image/vnd.microsoft.icon": "ico cur",
    "image/vnd.djvu": "djvu djv",
    "image/vnd.adobe.photoshop": "psd",
    # -- fonts (RFC 8081) -------------------------------------------------------------------
    "font/woff": "woff",
    "font/woff2": "woff2",
    "font/ttf": "ttf",
    "font/otf": "otf",
    "font/collection": "ttc",
    "application/vnd.ms-fontobject": "eot",
    # -- sound and film ---------------------------------------------------------------------
    "audio/mpeg": "mp3",
    "audio/mp4": "m4a m4b",
    "audio/aac": "aac",
    "audio/ogg": "ogg oga opus spx",  # opus: RFC 7845 section 9
    "audio/flac": "flac",  # RFC 9639
    "audio/matroska": "mka",  # RFC 9559
    "video/matroska": "mkv",
    "video/mp4": "mp4 m4v",
    "video/mpeg": "mpg mpeg mpe",
    "video/ogg": "ogv",
    "video/quicktime": "mov qt",
    "video/webm": "webm",
    "video/3gpp": "3gp",
    "video/mp2t": "ts",  # RFC 8216: the segments of a playlist. TypeScript has no registration and no browser runs it
    "video/iso.segment": "m4s",
    "application/vnd.apple.mpegurl": "m3u8",
    "application/dash+xml": "mpd",
    # -- plain text and data ----------------------------------------------------------------
    "text/plain": "txt text log",
    "text/markdown": "md markdown",  # RFC 7763
    "text/csv": "csv",
    "text/tab-separated-values": "tsv",
    "text/calendar": "ics ifb",
    "text/vcard": "vcf vcard",
    "text/turtle": "ttl",
    "text/n3": "n3",
    "application/n-triples": "nt",
    "application/n-quads": "nq",
    "application/trig": "trig",
    "application/yaml": "yaml yml",  # RFC 9512
    "application/toml": "toml",
    "application/sql": "sql",
    "application/cbor": "cbor",
    "application/ld+json": "jsonld",
    "application/geo+json": "geojson",
    "application/vnd.mapbox-vector-tile": "mvt",
    "application/vnd.apache.parquet": "parquet",
    "application/vnd.apache.arrow.file": "arrow",
    "application/vnd.sqlite3": "sqlite sqlite3",
    "application/geopackage+sqlite3": "gpkg",
    # -- XML (RFC 7303: application/xml, and no charset: the document says it itself) -----------
    "application/xml": "xml xsd",
    "application/xml-dtd": "dtd",
    "application/xslt+xml": "xsl xslt",
    "application/atom+xml": "atom",
    "application/rdf+xml": "rdf",
    "application/mathml+xml": "mml",
    "application/xspf+xml": "xspf",
    "application/vnd.google-earth.kml+xml": "kml",
    "application/vnd.google-earth.kmz": "kmz",
    # -- documents --------------------------------------------------------------------------
    "application/pdf": "pdf",
    "application/postscript": "ps eps ai",
    "application/rtf": "rtf",
    "application/epub+zip": "epub",
    "application/vnd.amazon.mobi8-ebook": "azw3",
    "application/vnd.comicbook+zip": "cbz",
    "application/msword": "doc dot",
    "application/vnd.ms-excel": "xls xlt",
    "application/vnd.ms-powerpoint": "ppt pps pot",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.template": "dotx",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.template": "xltx",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": "pptx",
    "application/vnd.openxmlformats-officedocument.presentationml.slideshow": "ppsx",
    "application/vnd.openxmlformats-officedocument.presentationml.template": "potx",
    "application/vnd.oasis.opendocument.text": "odt",
    "application/vnd.oasis.opendocument.text-template": "ott",
    "application/vnd.oasis.opendocument.spreadsheet": "ods",
    "application/vnd.oasis.opendocument.spreadsheet-template": "ots",
    "application/vnd.oasis.opendocument.presentation": "odp",
    "application/vnd.oasis.opendocument.presentation-template": "otp",
    "application/vnd.oasis.opendocument.graphics": "odg",
    "application/vnd.oasis.opendocument.formula": "odf",
    "message/rfc822": "eml",
    "application/mbox": "mbox",
    # -- three dimensions ---------------------------------------------------------------------
    "model/gltf-binary": "glb",
    "model/gltf+json": "gltf",
    "model/obj": "obj",
    "model/mtl": "mtl",
    "model/stl": "stl",
    "model/3mf": "3mf",
    "model/step": "step stp",
    "model/vnd.usdz+zip": "usdz",
    # -- archives and packages ------------------------------------------------------------------
    "application/zip": "zip",
    "application/gzip": "gz tgz",  # RFC 6713
    "application/zstd": "zst",  # RFC 8878
    "application/vnd.rar": "rar",
    "application/java-archive": "jar",
    "application/vnd.debian.binary-package": "deb udeb ddeb",
    "application/vnd.android.package-archive": "apk",
    "application/vnd.efi.iso": "iso",
    "application/vnd.microsoft.portable-executable": "exe dll",
    # -- keys and certificates (RFC 5280 4.2.1.13, RFC 8555 9.1, RFC 3156, RFC 7292) --------------
    "application/pkix-cert": "cer",
    "application/pkix-crl": "crl",
    "application/pkcs7-mime": "p7m p7c",
    "application/pem-certificate-chain": "pem",
    "application/pkcs12": "p12 pfx",
    "application/pgp-signature": "sig",
    # -- without a registration -------------------------------------------------------------------
    "application/rss+xml": "rss",  # what feed readers and autodiscovery look for
    "audio/wav": "wav",  # the browsers' name; RFC 2361's audio/vnd.wave is unknown to some of them
    "audio/webm": "weba",  # the webm project's name
    "audio/midi": "mid midi",
    "video/x-msvideo": "avi",
    "application/x-tar": "tar",
    "application/x-7z-compressed": "7z",
    "application/x-xz": "xz txz",
    "application/x-bzip2": "bz2 tbz2",
    "application/x-rpm": "rpm",
    "application/vnd.flatpak": "flatpak",
    "application/vnd.flatpak.ref": "flatpakref",
    "application/x-ndjson": "ndjson jsonl",
    "application/x-bittorrent": "torrent",
    "application/x-mobipocket-ebook": "mobi",
    # br: a content coding (RFC 7932) without a file format; octet-stream like everything unknown
}


def _by_extension() -> dict[bytes, bytes]:
    """Turn the table round. Text says that it is UTF-8: without that, browsers guess by the reader's language."""
    return {
        extension.encode(): (media_type + ("; charset=utf-8" if media_type.startswith("text/") else "")).encode()
        for media_type, extensions in _EXTENSIONS.items()
        for extension in extensions.split()
    }


_BY_EXTENSION: Final = _by_extension()


def media_type(name: bytes) -> bytes:
    """Return the Content-Type of the file `name` (a path or its last segment)."""
    _, dot, extension = name.rpartition(b".")
    return _BY_EXTENSION.get(extension.lower(), UNKNOWN) if dot else UNKNOWN


# -- what shrinks ------------------------------------------------------------------------------

# Text, whatever its name: worth coding while somebody waits for other things. Beside these, all of text/ and all that
# is written in XML or JSON (RFC 6839).
_TEXT: Final = frozenset(
    (
        b"application/json",
        b"application/xml",
        b"application/xml-dtd",
        b"application/yaml",
        b"application/toml",
        b"application/sql",
        b"application/n-triples",
        b"application/n-quads",
        b"application/trig",
        b"application/x-ndjson",
        b"application/postscript",
        b"application/rtf",
        b"application/vnd.apple.mpegurl",
        b"application/wasm",  # no text, and shrinks like it; the same for the fonts below
        b"application/vnd.ms-fontobject",
        b"font/ttf",
        b"font/otf",
        b"model/obj",
        b"model/mtl",
    )
)
_TEXT_SUFFIXES: Final = (b"+xml", b"+json")

# Compressed by what they are: another coding makes them larger, or smaller by nothing worth the trouble (T-38).
_PACKED: Final = frozenset(
    (
        *(b"font/woff", b"font/woff2", b"application/pdf", b"application/epub+zip", b"application/vnd.comicbook+zip"),
        *(b"application/vnd.google-earth.kmz", b"application/zip", b"application/gzip", b"application/zstd"),
        *(b"application/vnd.rar", b"application/java-archive", b"application/vnd.debian.binary-package"),
        *(b"application/vnd.android.package-archive", b"application/x-7z-compressed", b"application/x-xz"),
        *(b"application/x-bzip2", b"application/x-rpm", b"application/vnd.flatpak", b"application/vnd.apache.parquet"),
        *(b"model/3mf", b"model/vnd.usdz+zip"),
    )
)
_PACKED_PREFIXES: Final = (
    *(b"image/", b"audio/", b"video/"),
    *(b"application/vnd.openxmlformats-", b"application/vnd.oasis.opendocument."),
)
_UNPACKED: Final = frozenset(
    (b"image/bmp", b"image/vnd.microsoft.icon", b"image/vnd.adobe.photoshop", b"audio/wav", b"audio/midi")
)


def is_text(content_type: bytes) -> bool:
    """Tell whether content of this type is worth coding when it is asked for."""
    essence = content_type.partition(b";")[0]
    return essence.startswith(b"text/") or essence.endswith(_TEXT_SUFFIXES) or essence in _TEXT


def is_packed(content_type: bytes) -> bool:
    """Tell whether content of this type is compressed already, so that nobody need look for a coded variant of it."""
    essence = content_type.partition(b";")[0]
    if essence in _PACKED:
        return True
    return essence.startswith(_PACKED_PREFIXES) and not essence.endswith(_TEXT_SUFFIXES) and essence not in _UNPACKED
