"""The `Idempotency-Key` request header: one structured-field string, or a bare token as many clients send it. Pure.

The IETF draft (draft-ietf-httpapi-idempotency-key-header) makes the value a String of RFC 8941/9651, in quotes:
``Idempotency-Key: "8e03978e-40d5-43dd-bc93-6894a57f9324"``. Most clients in the field send it without quotes. Both
are read here, and both forms of one key are one key. A key is judged before anything is looked up under it, and no
message repeats it: keys end up in nobody's log.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..errors import BadIdempotencyKey

HEADER = "Idempotency-Key"
MAX_KEY_LENGTH = 255

# RFC 8941, section 3.3.3. `\Z` and `[ -~]` instead of `$` and `.`: neither a line end nor a control may pass.
_STRING = re.compile(rb'"((?:[ !#-\[\]-~]|\\["\\])*)"')
# RFC 8941, section 3.1.2 and RFC 9651, section 3.3: any bare item may follow the name of a parameter.
_PARAMETERS = re.compile(
    rb"""(?:;[ ]*[a-z*][a-z0-9_.*-]*
        (?:=(?:
            -?[0-9]{1,15}(?:\.[0-9]{1,3})?          # integer or decimal
          | "(?:[ !#-\[\]-~]|\\["\\])*"             # string
          | [A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*  # token
          | :[A-Za-z0-9+/=]*:                       # bytes
          | \?[01]                                  # boolean
          | @-?[0-9]{1,15}                          # date
          | %"[ !#-~]*"                             # display string
        ))?
    )*\Z""",
    re.VERBOSE,
)
# Visible ASCII but for what delimits in structured fields: a bare `a;b` could mean the key `a`, and `a,b` two keys.
_BARE = re.compile(rb"[!#-+\--:<-\[\]-~]+\Z")
_ESCAPED = re.compile(rb'\\(["\\])')
_EXAMPLE = '"8e03978e-40d5-43dd-bc93-6894a57f9324"'


def parse_idempotency_key(
    field_lines: Sequence[bytes],
    *,
    compat: bool = True,
    most: int = MAX_KEY_LENGTH,
    pattern: re.Pattern[str] | None = None,
    header: str = HEADER,
) -> str:
    """The key that a request carries, without its quotes and escapes.

    Args:
        field_lines: The values of all lines of this header, at least one.
        compat: Whether a bare token counts, and as the same key as its quoted form. A bare token is visible ASCII
            without quotes, commas, semicolons and backslashes: UUIDs, ULIDs, base64 and dotted names pass.
        most: Characters the key may have, counted without quotes and escapes.
        pattern: What the whole key must match, besides all this.
        header: The header's name, for messages.

    Raises:
        BadIdempotencyKey: What is wrong, and an example of what is right. It never repeats the key.
    """
    if len(field_lines) != 1:
        raise BadIdempotencyKey(header, f"must be sent once, not {len(field_lines)} times; {_right(header)}")
    key = _decoded(field_lines[0].strip(b" \t"), header, compat=compat)
    if not key:
        raise BadIdempotencyKey(header, f"is empty; {_right(header)}")
    if len(key) > most:
        raise BadIdempotencyKey(header, f"has {len(key)} characters and may have {most}; {_right(header)}")
    if pattern is not None and not pattern.fullmatch(key):
        raise BadIdempotencyKey(header, f"does not match {pattern.pattern}, which this application asks for")
    return key


def _decoded(value: bytes, header: str, *, compat: bool) -> str:
    if not value.startswith(b'"'):
        if not value or (compat and _BARE.match(value)):
            return value.decode("ascii")
        raise BadIdempotencyKey(header, f"{_fault_of_bare(value)}; {_right(header)}")
    string = _STRING.match(value)
    if string is None:
        raise BadIdempotencyKey(header, f"{_fault_of_string(value)}; {_right(header)}")
    rest = value[string.end() :].lstrip(b" ")
    if rest and not _PARAMETERS.match(rest):
        fault = "is a list; one key is meant" if rest.startswith(b",") else "goes on after its closing quote"
        raise BadIdempotencyKey(header, f"{fault}; {_right(header)}")
    key = string[1]
    return (_ESCAPED.sub(rb"\1", key) if b"\\" in key else key).decode("ascii")


def _fault_of_bare(value: bytes) -> str:
    if not _is_visible(value):
        return "has characters other than visible ASCII"
    if b"," in value:
        return "is a list; one key is meant"
    return "must stand in double quotes"


def _fault_of_string(value: bytes) -> str:
    if not _is_visible(value):
        return "has characters other than visible ASCII and spaces"
    if re.search(rb'(?<!\\)(?:\\\\)*\\[^"\\]', value):
        return 'has a backslash before something else than \\ or "'
    return "has no closing quote"


def _is_visible(value: bytes) -> bool:
    return value.isascii() and value.decode("ascii").isprintable()


def _right(header: str) -> str:
    return f"right would be {header}: {_EXAMPLE}"
