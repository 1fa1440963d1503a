"""Bearer tokens: who they stand for, and how they are compared.

A token file has one token a line: a role, a name and the token, with blanks between them. Empty lines and lines that
begin with ``#`` are skipped::

    # role   name     token
    operate  alice    p4W0…
    view     grafana  9xQk…

Tokens are kept as digests, compared in constant time, and stand in no message, log or page.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from ..errors import InvalidInput
from .callers import Caller, Role

SHORTEST = 16
"""Characters that a token must have; it should come from a random source, as ``secrets.token_urlsafe(32)`` does."""

_FIELDS = 3
_LONGEST_NAME = 100


@dataclass(frozen=True, slots=True)
class Token:
    """A token without the token itself."""

    caller: Caller
    digest: bytes

    @property
    def session_key(self) -> bytes:
        """What signs the sessions that were opened with this token: they end when the token is taken away."""
        return hmac.digest(self.digest, b"dotmac-tasks session", "sha256")


class Tokens:
    """All tokens that a service accepts.

    Args:
        tokens: Names must differ.
    """

    def __init__(self, tokens: Iterable[Token] = ()) -> None:
        self._tokens = tuple(tokens)
        self._by_name = {token.caller.name: token for token in self._tokens}

    def __bool__(self) -> bool:
        return bool(self._tokens)

    @classmethod
    def parse(cls, text: str, source: str) -> Tokens:
        """Read tokens as a token file has them.

        Args:
            text: Lines, or one line with ``;`` between the tokens.
            source: What to call it in errors.

        Raises:
            InvalidInput: Naming the line and what is wrong with it, never the token.
        """
        tokens: dict[str, Token] = {}
        for number, line in enumerate(text.replace(";", "\n").splitlines(), 1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            token = _parsed(words, f"{source}, line {number}")
            if token.caller.name in tokens:
                raise InvalidInput(f"{source}, line {number}", f"the name {token.caller.name!r} is used before")
            same = next((name for name, known in tokens.items() if known.digest == token.digest), None)
            if same is not None:  # whose role would count, and whose name stand in the audit?
                raise InvalidInput(f"{source}, line {number}", f"the token is that of {same!r}; names need their own")
            tokens[token.caller.name] = token
        if not tokens:
            raise InvalidInput(source, "holds no token; a line is: ROLE NAME TOKEN")
        return cls(tokens.values())

    @classmethod
    def load(cls, file: Path | None, variable: str | None, environ: Mapping[str, str]) -> Tokens:
        """Tokens from a file, from an environment variable, or from both.

        Raises:
            InvalidInput: Naming what cannot be read.
        """
        texts, sources = [], []
        if file is not None:
            sources.append(f"token file {file}")
            try:
                texts.append(file.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError) as error:
                raise InvalidInput(sources[0], f"cannot be read: {error}") from error
        if variable is not None:
            sources.append(f"token variable {variable}")
            if variable not in environ:
                raise InvalidInput(sources[-1], "is not set")
            texts.append(environ[variable])
        return cls.parse("\n".join(texts), " and ".join(sources)) if texts else cls()

    def find(self, presented: str) -> Token | None:
        """The token that was presented, if it is one. Takes as long for a wrong one as for a right one."""
        digest, found = _digest(presented), None
        for token in self._tokens:
            if hmac.compare_digest(token.digest, digest):
                found = token
        return found

    def named(self, name: str) -> Token | None:
        """The token of this name, if there is one."""
        return self._by_name.get(name)


def make_token(secret: str, name: str, role: Role) -> Token:
    """A token.

    Raises:
        InvalidInput: It is too short, or has characters that cannot be sent in a header.
    """
    if len(secret) < SHORTEST:
        raise InvalidInput("token", f"has {len(secret)} characters; at least {SHORTEST} are needed")
    if not secret.isascii() or not secret.isprintable() or " " in secret:
        raise InvalidInput("token", "may hold visible ASCII characters only")
    if not 0 < len(name) <= _LONGEST_NAME or not name.isprintable() or "." in name:
        raise InvalidInput("name", f"must have 1 to {_LONGEST_NAME} printable characters, and no full stop")
    return Token(Caller(name, role), _digest(secret))


def _parsed(words: list[str], where: str) -> Token:
    if len(words) != _FIELDS:
        raise InvalidInput(where, f"has {len(words)} words; a line is: ROLE NAME TOKEN")
    role, name, secret = words
    if role not in list(Role):
        raise InvalidInput(where, f"begins with no role; there are: {', '.join(Role)}")
    try:
        return make_token(secret, name, Role(role))
    except InvalidInput as error:
        raise InvalidInput(where, f"the {error.field} {error.reason}") from error


def _digest(secret: str) -> bytes:
    return sha256(secret.encode("utf-8", "surrogatepass")).digest()
