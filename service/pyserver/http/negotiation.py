"""Which content coding a client is sent (RFC 9110 12.5.3), a function of plain values.

Owns:    the reading of Accept-Encoding.
Never:   knows what codings are; `available` names those that there are, the best one first.
Fails:   never: a field that cannot be read, or is too long to be, is one that asks for nothing.
Used by: handlers.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

from pyserver import limits
from pyserver.http import grammar

# RFC 9110 12.4.2   weight = OWS ";" OWS "q=" qvalue      "q" in either case (RFC 5234 2.3)
#                   qvalue = ( "0" [ "." 0*3DIGIT ] ) / ( "1" [ "." 0*3("0") ] )
_WEIGHT = rb"[ \t]*+;[ \t]*+[qQ]=(%b)"
_QVALUE = rb"0(?:\.[0-9]{0,3}+)?|1(?:\.0{0,3}+)?"

# RFC 9110 12.5.3   Accept-Encoding = #( codings [ weight ] ) ; codings = content-coding / "identity" / "*"
# RFC 9110 8.4.1    content-coding = token, of which "*" is one
_MEMBER: Final = re.compile(rb"(%b++)(?:%b)?" % (grammar.TCHAR, _WEIGHT % _QVALUE))
_ONE = rb"%b++(?:%b)?" % (grammar.TCHAR, _WEIGHT % (b"?:" + _QVALUE))

# Empty members are parsed and ignored (5.6.1.2). So is an empty field, which the RFC gives a meaning: nothing but
# identity. It has the same effect here.
ACCEPT_ENCODING: Final = re.compile(rb"(?:[ \t]*+,)*[ \t]*+(?:%b(?:[ \t]*+,(?:[ \t]*+%b)?)*[ \t]*+)?" % (_ONE, _ONE))

# RFC 9110 8.4.1.1, 8.4.1.3: a recipient SHOULD consider these to be the same.
_SYNONYMS: Final = {b"x-gzip": b"gzip", b"x-compress": b"compress"}

# Weights are thousandths: digits only, no rounding (T-34).
_FULL: Final = 1000

# Of identity, where the field does not name it: acceptable (12.5.3, rule 2), and less wanted than whatever is named.
_UNNAMED: Final = 0


def choose(value: bytes | None, available: Sequence[bytes]) -> bytes | None:
    """Return the coding in which to send a representation that there is in these codings, None for identity.

    `value` is that of Accept-Encoding, None where there is none: then any coding would do (12.5.3, rule 1), but who
    does not say that it can decode often cannot. `available` is in our order of preference, in lower case; it decides
    between codings of equal weight, and for a coding where identity weighs as much.

    NOT ACCEPTABLE, that is `identity;q=0` with none of ours beside it, is identity all the same, and never 406: we may
    disregard the field (12.4.1) and be unwilling to refuse (15.5.7 is for servers unwilling to serve a default). A
    person who gets the file is helped more than one who is told that there are other forms of it.
    """
    if value is None or len(value) > limits.WISH_MAX_BYTES or not available:
        return None
    weights = parse(value)
    if not weights:
        return None
    chosen, most = None, weights.get(b"identity", weights.get(b"*", _UNNAMED))
    for coding in available:
        weight = weights.get(coding, weights.get(b"*", 0))
        # The first of ours takes a tie from identity; a later one does not take it from the first.
        if weight and (weight > most or (weight == most and chosen is None)):
            chosen, most = coding, weight
    return chosen


@lru_cache(1)  # the choice for one request may take several askings
def parse(value: bytes) -> Mapping[bytes, int]:
    """Return the codings that the field names, in lower case, with their weights in thousandths; malformed: none.

    Of a coding that is named twice the least counts: somebody on the way may have added what the client refuses.
    """
    if ACCEPT_ENCODING.fullmatch(value) is None:
        return {}
    weights: dict[bytes, int] = {}
    for name, qvalue in _MEMBER.findall(value):
        coding = name.lower()
        coding = _SYNONYMS.get(coding, coding)
        weights[coding] = min(weights.get(coding, _FULL), _thousandths(qvalue) if qvalue else _FULL)
    return weights


def _thousandths(qvalue: bytes) -> int:
    whole, _, decimals = qvalue.partition(b".")
    return int(whole) * _FULL + int(decimals.ljust(3, b"0"))
