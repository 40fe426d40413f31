"""What was found on the disk as entries of the cache: what stays of a former look, and the fields of the answers.

Owns:    when content is read again, and what a head says about a file.
Never:   touches the disk or the cache.
Fails:   never.
Used by: handlers.static, handlers.variants (describes what it made).
"""

from collections.abc import Iterable
from typing import Final

from pyserver import limits
from pyserver.digest import blake2b
from pyserver.files.codings import BY_NAME, CAN_MAKE
from pyserver.files.content import Stamp
from pyserver.files.look import Found, Known
from pyserver.files.mediatypes import is_text, media_type
from pyserver.files.resolve import OpenFile
from pyserver.files.variants import KnownSiblings
from pyserver.handlers.cache import Entry
from pyserver.handlers.rules import Rules
from pyserver.http import validators
from pyserver.http.dates import imf_fixdate
from pyserver.http.fields import FieldValue, Lines, field_line, field_name, field_value, joined_lines, written
from pyserver.limits import NS_PER_S

_VARY: Final = (b"Accept-Encoding",)

_TYPE: Final = field_name(b"Content-Type")
_CODING: Final = field_name(b"Content-Encoding")
_TAG: Final = field_name(b"ETag")
_MODIFIED: Final = field_name(b"Last-Modified")
_RANGES: Final = written(b"Accept-Ranges: bytes\r\n")


def known(entry: Entry | None, prefix_bytes: int) -> Known | None:
    """Return what need not be read or looked for again when it is found unchanged.

    `prefix_bytes`: of the name, which the tree does not know where it hangs in the site.
    """
    if entry is None:
        return None
    stamps = {coding: each.stamp for coding, each in entry.siblings.items() if _settled_when_read(each)}
    beside = KnownSiblings(entry.folder, entry.absent, stamps)
    return Known(entry.name[prefix_bytes:], entry.stamp if _settled_when_read(entry) else None, beside)


def _settled_when_read(entry: Entry) -> bool:
    return entry.read_at - entry.changed_at >= validators.SETTLED_AFTER_S


def renewed(
    formers: Iterable[Entry | None], new: Entry, found: Found, second: int, rules: Rules, *, compress: bool
) -> Entry:
    """Return the entry for what a look begun at `second` found: one of `formers`, where it still is true, or `new`.

    `compress`: variants may be made. None of the formers is in a cache, for the weight may change.
    """
    former = [entry for entry in formers if entry is not None and entry.name == new.name]
    entry = _one(former, new, found.content, second)
    if found.siblings is not None:
        siblings = {}
        for coding, file, content in found.siblings.found:
            before = [each.siblings[coding] for each in former if coding in each.siblings]
            siblings[coding] = _one(before, Entry(new.path, new.name, file.stamp, file, coding), content, second)
        entry.siblings = siblings
        entry.absent = found.siblings.absent
        entry.folder = _quiet(found.siblings.folder, second)
    if entry is new:
        entry.makeable = CAN_MAKE if compress and is_worth_coding(entry) else ()
    entry.forget_ready()
    negotiated = bool(entry.siblings or entry.makeable)
    if entry is new or negotiated != entry.negotiated:
        entry.negotiated = negotiated
        entry.added, entry.kept = rules.lines(entry.name, vary=_VARY if negotiated else ())
        entry.settled = False  # to be described anew
        entry.forget_answers()
    for each in (entry, *entry.siblings.values(), *entry.made.values()):
        if not each.settled:  # with time, weak validators become strong
            each.added, each.kept = entry.added, entry.kept
            describe(each, second)
        each.looked_at = second
    return entry


def _one(former: Iterable[Entry], new: Entry, content: bytes | None, second: int) -> Entry:
    """Return the one of `former` that has the content that was found, or else `new`, with that content."""
    for entry in former:
        if entry.stamp == new.stamp and (content is None or entry.content == content):
            if content is not None:
                entry.read_at = second
            return entry
    if content is not None:
        new.keep_content(content, second)
    return new


def _quiet(folder: OpenFile | None, second: int) -> Stamp | None:
    """Return the stamp of a folder that cannot have changed since without showing it, as files may (T-19)."""
    if folder is None or not validators.settled(folder.modified_ns // NS_PER_S, folder.changed_at, second):
        return None
    return folder.stamp


def is_true(entry: Entry) -> bool:
    """Tell whether the validators of an entry and its variants are those of what would be sent.

    Content in memory is what it was at the look. A file that is sent from its descriptor may have been written to
    meanwhile, within the second: its new bytes under the old tag would get into somebody's half of the old file (T-30).
    """
    if entry.file is None:
        return True  # and its variants, which are smaller, have none either
    return not any(
        each.file is not None and (each.file.refresh() or each.file.stamp != each.stamp)
        for each in (entry, *entry.siblings.values())
    )


def is_quiet(entry: Entry) -> bool:
    """Tell whether an entry without siblings stays true as long as its stamp is what it was.

    That is, whether it and what was made of it have strong validators, and the content was read when no change could
    go unnoticed any more.
    """
    if not entry.settled or entry.siblings or (entry.file is None and not _settled_when_read(entry)):
        return False
    return all(each.settled for each in entry.made.values())


def is_worth_coding(entry: Entry) -> bool:
    """Tell whether variants of this content shall be made: text, in memory, and not as small as its own head."""
    return entry.content is not None and entry.size >= limits.CODED_MIN_BYTES and is_text(media_type(entry.name))


def made(source: Entry, coding: bytes, content: bytes, second: int) -> Entry:
    """Return the variant of `source` that was made of its content.

    Its tag can be told before it is made, for it says how: who has it from another worker has the same bytes.
    """
    variant = Entry(source.path, source.name, source.stamp, None, coding)
    variant.tag_coding = BY_NAME[coding].recipe
    variant.told = source.told
    variant.keep_content(content, source.read_at)
    variant.looked_at = source.looked_at
    variant.added, variant.kept = source.added, source.kept
    describe(variant, second)
    return variant


def describe(entry: Entry, second: int) -> None:
    """Write the fields of an answer that depend on the file alone, as it was found at `second`."""
    _, _, size, modified_ns, _ = entry.stamp  # a variant that was made has those of its source
    modified = modified_ns // NS_PER_S
    entry.settled = validators.settled(modified, entry.changed_at, second)
    # Times of 0 and 1 are what archives and images have instead of none, the same for all their files (T-18).
    if modified > 1:
        entry.modified = min(modified, second)  # RFC 9110 8.8.2.1: not later than Date
        if not entry.told and not validators.is_precise(modified_ns):
            entry.told = _told(entry)
        entry.etag = validators.entity_tag(modified_ns, size, entry.tag_coding, told=entry.told, strong=entry.settled)
        modified_line = field_line(_MODIFIED, imf_fixdate(entry.modified))
        entry.validators = joined_lines((modified_line, field_line(_TAG, entry.etag)))
    entry.media_type = field_value(media_type(entry.name))  # a variant has the name of its source (T-37)
    entry.fields = fields(entry.media_type, entry.validators, entry.added)
    if entry.coding:
        entry.fields = joined_lines((entry.fields, field_line(_CODING, field_value(entry.coding))))
    entry.unchanged = joined_lines((entry.validators, entry.kept))


def _told(entry: Entry) -> int:
    """Return what tells this content from another of the same time and size.

    Of content in memory a digest, so that servers with the same files have the same tags. Of a larger file the time of
    its last change, which nobody can set: another release has another one.
    """
    if entry.content is None:
        return entry.stamp[4]
    return int.from_bytes(blake2b(entry.content, digest_size=8).digest())


def fields(content_type: FieldValue, validator_lines: Lines, added: Lines) -> Lines:
    """Return the field lines of a 200 or 206, but for Content-Length and Content-Range."""
    return joined_lines((field_line(_TYPE, content_type), _RANGES, validator_lines, added))
