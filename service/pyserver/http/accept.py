"""Which media type a client is sent (RFC 9110 12.5.1), a function of plain values.

Owns:    the reading of Accept.
Never:   knows what there is: `offered` names the media types, the one for who has no wish first.
Fails:   never: a field that cannot be read, or is too long to be, is one that asks for nothing.
Used by: handlers.listing.
"""

import re
from collections.abc import Sequence
from typing import Final

from pyserver import limits
from pyserver.http import grammar

# RFC 9110 5.6.6    parameters = *( OWS ";" OWS [ parameter ] ) ; parameter = token "=" ( token / quoted-string )
_PARAMETER = rb"%b++=(?:%b++|%b)" % (grammar.TCHAR, grammar.TCHAR, grammar.QUOTED_STRING)

# RFC 9110 12.5.1   Accept = #( media-range [ weight ] )
#                   media-range = ( "*/*" / ( type "/" "*" ) / ( type "/" subtype ) ) parameters
# "*" is a tchar, so a range is two tokens. RFC 7231 had further parameters behind the weight; they are read over.
_RANGE = rb"%b++/%b++(?:[ \t]*+;(?:[ \t]*+%b)?)*" % (grammar.TCHAR, grammar.TCHAR, _PARAMETER)
ACCEPT: Final = re.compile(rb"(?:[ \t]*+,)*[ \t]*+(?:%b(?:[ \t]*+,(?:[ \t]*+%b)?)*[ \t]*+)?" % (_RANGE, _RANGE))
_MEMBER: Final = re.compile(rb"(%b++/%b++)((?:[ \t]*+;(?:[ \t]*+%b)?)*)" % (grammar.TCHAR, grammar.TCHAR, _PARAMETER))
_EACH_PARAMETER: Final = re.compile(_PARAMETER)

# RFC 9110 12.4.2   weight = OWS ";" OWS "q=" qvalue ; qvalue = ( "0" [ "." 0*3DIGIT ] ) / ( "1" [ "." 0*3("0") ] )
_WEIGHT: Final = re.compile(rb"[qQ]=(?:(0)(?:\.([0-9]{0,3}+))?|1(?:\.0{0,3}+)?)")

# Weights are thousandths: digits only, no rounding (T-34).
_FULL: Final = 1000


def choose(value: bytes | None, offered: Sequence[bytes]) -> bytes:
    """Return which of the media types `offered` (lower case, no parameters) the client wants most.

    `value` is that of Accept, None where there is none. Of equal weights the first is taken, and also where none is
    acceptable: a person who gets what we have is helped more than one who gets 406 (12.4.1 allows it).
    """
    ranges = () if value is None or len(value) > limits.WISH_MAX_BYTES else parse(value)
    return max(offered, key=lambda media_type: _weight(media_type, ranges))  # the first of several


def parse(value: bytes) -> tuple[tuple[bytes, int], ...]:
    """Return the media ranges that the field names, in lower case, with their weights; malformed: none.

    A range with parameters of its own, such as `text/html;level=1`, is for a variety that we do not have.
    """
    if ACCEPT.fullmatch(value) is None:
        return ()
    members = ((name.lower(), _own_weight(parameters)) for name, parameters in _MEMBER.findall(value))
    return tuple((name, weight) for name, weight in members if weight is not None)


def _own_weight(parameters: bytes) -> int | None:
    """Return the weight of a range with these parameters, None where it holds nothing of ours."""
    for parameter in _EACH_PARAMETER.findall(parameters):
        if parameter[:2].lower() == b"q=":
            found = _WEIGHT.fullmatch(parameter)
            if found is None:
                return None
            return _FULL if found[1] is None else int((found[2] or b"").ljust(3, b"0"))
        if not _means_nothing(parameter):
            return None
    return _FULL


def _means_nothing(parameter: bytes) -> bool:
    """Tell whether a parameter leaves a type what it is: all that we offer is UTF-8."""
    return parameter.lower().replace(b'"', b"") == b"charset=utf-8"


def _weight(media_type: bytes, ranges: Sequence[tuple[bytes, int]]) -> int:
    """Return the weight of the most specific range that holds `media_type`; of one that comes twice, the last."""
    weights = dict(ranges)
    for name in (media_type, media_type.partition(b"/")[0] + b"/*", b"*/*"):
        if name in weights:
            return weights[name]
    return 0
