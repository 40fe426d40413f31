"""The grammar of a request as compiled patterns, each under the ABNF that it implements.

Owns:    patterns and the character classes they are built from; nothing here decides, raises or remembers.
Never:   backtracks into what it has read: runs of one class are possessive and alternatives disjoint, so that matching
         is linear in the bytes for every input, hostile ones included. Groups are repeated greedily, though: CPython
         before 3.11.5, Debian 12's among them, gets possessive groups wrong (cpython#106052), and giving back a
         group that ends where nothing else can begin fails at once.
Used by: http.request (a whole head), http.scanner (a head piece by piece), http.body; http.accept, http.fields,
         http.forwarded, http.negotiation, http.response (values).
"""

import re
from typing import Final

from pyserver import limits

# -- RFC 9110 5.6: what fields are made of ---------------------------------------------------

# RFC 9110 5.6.2   token = 1*tchar
#                  tchar = "!" / "#" / "$" / "%" / "&" / "'" / "*" / "+" / "-" / "." / "^" / "_" / "`" / "|" / "~"
#                        / DIGIT / ALPHA
TCHAR: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"

# RFC 9110 5.5     field-value = *field-content, where field-content holds field-vchar, SP and HTAB
#                  field-vchar = VCHAR / obs-text ; obs-text = %x80-FF
# CR, LF and NUL are what 5.5 forbids by name ("dangerous"); we refuse every other control byte with them.
FIELD_BYTE: Final = rb"[\t\x20-\x7e\x80-\xff]"

# RFC 9112 5       field-line = field-name ":" OWS field-value OWS
# No space before the colon (5.1: a server MUST reject it), no obs-fold (5.2: we reject rather than replace, since a
# proxy in front of us might have seen the end of the field elsewhere).
FIELD_LINE: Final = TCHAR + rb"++:" + FIELD_BYTE + rb"*+\r\n"

# -- RFC 9112 3: the request line ----------------------------------------------------------------

# RFC 9110 9.1     method = token
# Longer than any that is registered (the longest is UPDATEREDIRECTREF, 17) is answered by 501 (RFC 9112 3).
METHOD_MAX_BYTES: Final = 64

# RFC 9112 3.2     request-target = origin-form / absolute-form / authority-form / asterisk-form
# RFC 9112 3.2.1   origin-form = absolute-path [ "?" query ]
# Wider than RFC 3986: every visible ASCII byte but "#", since browsers send some of " < > [ \ ] ^ ` { | } as they
# were typed. A fragment is never sent (RFC 9110 4.2.5), whitespace would end the target, anything above 0x7E must be
# percent-encoded: all these are refused.
TARGET_BYTE: Final = rb'[!"$-~]'
PATH_BYTE: Final = rb'[!"$->@-~]'

# RFC 9112 2.3     HTTP-version = HTTP-name "/" DIGIT "." DIGIT ; HTTP-name = %s"HTTP", so upper case only
VERSION: Final = re.compile(rb"HTTP/([0-9])\.[0-9]")
VERSION_BYTES: Final = 8


def head(fields_max: int) -> re.Pattern[bytes]:
    """Return the whole head in one match, with so many field lines at most.

    Groups: method, target, path and query of an origin-form (path is None for the other forms), minor version.
    A head that this pattern refuses is walked by http.scanner, which knows why.
    """
    return re.compile(
        rb"(%b{1,%d}+) " % (TCHAR, METHOD_MAX_BYTES)
        + rb"((/%b*+)(?:\?(%b*+))?|%b++) " % (PATH_BYTE, TARGET_BYTE, TARGET_BYTE)
        + rb"HTTP/1\.([0-9])\r\n"
        + rb"(?:%b){0,%d}" % (FIELD_LINE, fields_max)
        + rb"\r\n"
    )


HEAD: Final = head(limits.FIELDS_MAX)

# What most heads begin with. Fields mean the same below each such line, and need not be read again (handlers.sections).
PLAIN_LINE: Final = re.compile(rb"(GET|HEAD) ((/%b*+)(?:\?(%b*+))?) HTTP/1\.1" % (PATH_BYTE, TARGET_BYTE))

# -- the fields that may change what we answer --------------------------------------------------------

# A second look at a head that HEAD has matched takes out these and leaves the rest where it is: a dictionary of all
# fields would cost three times as much. The name stands after the LF of the line before, so that no value can be
# taken for a name. The lookahead on the first letter only spares the alternatives.
DECISIVE_FIELDS: Final = (
    b"Host",
    b"Connection",
    b"Content-Length",
    b"Transfer-Encoding",
    b"Expect",
    b"Range",
    b"If-Match",
    b"If-None-Match",
    b"If-Modified-Since",
    b"If-Unmodified-Since",
    b"If-Range",
    b"Accept-Encoding",
    b"Origin",
)
FIELDS: Final = re.compile(
    rb"\n(?=[%b])((?i:%b)):[ \t]*+([^\r]*+)"
    % (
        bytes(sorted({letter for name in DECISIVE_FIELDS for letter in (name[:1] + name[:1].lower())})),
        b"|".join(DECISIVE_FIELDS),
    )
)

# -- RFC 9110 4.2, 7.2: who is asked ---------------------------------------------------------------------

# RFC 3986 3.2.2   host = IP-literal / IPv4address / reg-name ; IP-literal = "[" ( IPv6address / IPvFuture ) "]"
#                  reg-name = *( unreserved / pct-encoded / sub-delims )
# Narrower in four ways, for who compares names must not have to guess: a name is not empty (RFC 9110 4.2.1) and not
# longer than DNS has them, has no empty label, is not percent-encoded (browsers send IDNA); IPvFuture is not in use.
REG_NAME: Final = rb"(?!\.|[^:]*\.\.)[A-Za-z0-9._~!$&'()*+,;=-]{1,255}+"
HOST_NAME: Final = rb"(?:%b|\[[0-9A-Fa-f:.]{2,45}+\])" % REG_NAME

# RFC 9110 7.2     Host = uri-host [ ":" port ] ; RFC 3986 3.2.3 port = *DIGIT
HOST: Final = re.compile(rb"(%b)(?::([0-9]{0,5}+))?" % HOST_NAME)

# RFC 9112 3.2.3   authority-form = uri-host ":" port, with a port that is there (RFC 9110 9.3.6)
AUTHORITY_FORM: Final = re.compile(rb"[^/?@]+:[0-9]++")

# RFC 9112 3.2.2   absolute-form = absolute-URI, of which we serve
# RFC 9110 4.2.1   "http" "://" authority path-abempty [ "?" query ], and https alike; userinfo is refused (4.2.4)
ABSOLUTE_FORM: Final = re.compile(
    rb"(?i:https?)://([^/?@]++)(/%b*+)?(?:\?(%b*+))?" % (PATH_BYTE, TARGET_BYTE),
)

# -- RFC 9112 6, 7: where the content ends ------------------------------------------------------------------

# RFC 9110 8.6     Content-Length = 1*DIGIT. No sign, no list, no space: repeated lines become a list and fail here.
DIGITS: Final = re.compile(rb"[0-9]++")

# RFC 9112 6.1     Transfer-Encoding = #transfer-coding ; RFC 9110 10.1.4 transfer-coding = token *( OWS ";" OWS ... )
# Only a plain list of tokens is read as codings that we might merely not know; all else is bad syntax.
CODINGS: Final = re.compile(rb"%b++(?:[ \t]*+,[ \t]*+%b++)*" % (TCHAR, TCHAR))

# RFC 9110 5.6.4   quoted-string = DQUOTE *( qdtext / quoted-pair ) DQUOTE
QUOTED_STRING: Final = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\%b)*"' % FIELD_BYTE

# RFC 9112 7.1     chunk-size = 1*HEXDIG
# RFC 9112 7.1.1   chunk-ext = *( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] )
#                  chunk-ext-val = token / quoted-string
# Sixteen digits are 64 bits; more is refused whatever their value, as others overflow there.
CHUNK_LINE: Final = re.compile(
    rb"([0-9A-Fa-f]{1,16}+)((?:[ \t]*+;[ \t]*+%b++(?:[ \t]*+=[ \t]*+(?:%b++|%b))?)*)\r\n"
    % (TCHAR, TCHAR, QUOTED_STRING)
)

# RFC 9112 7.1.2   trailer-section = *( field-line CRLF )
# RFC 9110 6.5.1   a sender MUST NOT put framing or routing there. Who does wants someone to believe it: refused, though
# we would not.
TRAILER_LINE: Final = re.compile(rb"(?!(?i:Content-Length|Transfer-Encoding|Host):)" + FIELD_LINE)
