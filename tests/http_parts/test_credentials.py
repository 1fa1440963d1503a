"""Credentials and cookies: what counts, and that its value cannot be read from a digest."""

from __future__ import annotations

from typing import Any

import pytest

from dotmac.tasks.http.credentials import (
    CREDENTIAL_HEADERS,
    certificate_lines,
    cookie_digests,
    credentials_digest,
    given_cookies,
    is_same_sender,
    sender_digests,
    signature_digests,
    with_cookies,
)

Lines = list[tuple[bytes, bytes]]


def lines(*headers: tuple[str, str]) -> Lines:
    return [(name.encode(), value.encode("latin-1")) for name, value in headers]


def digest(*headers: tuple[str, str], **more: Any) -> str | None:
    return credentials_digest(lines(*headers), **more)


def cookies(*values: str, session: Any = None) -> tuple[str, ...]:
    return cookie_digests(lines(*(("cookie", value) for value in values)), session)


def test_credentials_are_told_apart_without_being_readable() -> None:
    assert digest() is None
    assert digest(("accept", "*/*")) is None
    one, other = digest(("authorization", "Bearer one")), digest(("authorization", "Bearer two"))
    assert one is not None
    assert "one" not in one
    assert one != other
    assert digest(("authorization", "a")) != digest(("x-api-key", "a"))
    assert digest(("authorization", "a"), ("x-api-key", "b")) != digest(("authorization", "a"))


@pytest.mark.parametrize("name", CREDENTIAL_HEADERS)
def test_each_credential_header_tells_users_apart(name: str) -> None:
    assert None is not digest((name.lower(), "alice")) != digest((name.lower(), "bob"))


def test_cookies_count_as_credentials_once_they_are_named() -> None:
    assert digest(("cookie", "sid=1")) is None
    one = digest(("cookie", "sid=1; seen=1"), cookies={b"sid"})
    assert one == digest(("cookie", "seen=2"), ("cookie", "sid=1"), cookies={b"sid"})
    assert one != digest(("cookie", "sid=2"), cookies={b"sid"})
    assert digest(("cookie", "seen=2"), cookies={b"sid"}) is None
    assert one != digest(("cookie", "sid=1"), ("authorization", "a"), cookies={b"sid"})


@pytest.mark.parametrize("none", [[], [""], [" ; "], [";;"], ["_ga=1; _ga_X=2", "AWSALB=a"]])
def test_no_cookies_say_nothing(none: list[str]) -> None:
    assert cookies(*none) == ()
    assert cookies(*none, session={}) == ()


def test_the_spelling_of_cookies_makes_no_difference() -> None:
    assert cookies("a=1; b=2") == cookies('b="2";a = 1') == cookies("b=2", "a=1")
    assert cookies("a=1; b=2") != cookies("a=2; b=1")
    assert cookies("a") != cookies("b")


def test_the_content_of_a_session_counts_in_place_of_its_cookie() -> None:
    ann = cookies("session=signed-1; seen=1", session={"login": "ann"})
    assert ann == cookies("session=signed-2; seen=1", session={"login": "ann"})
    assert ann != cookies("session=signed-1; seen=1", session={"login": "bob"})
    assert ann != cookies("session=signed-1; seen=2", session={"login": "ann"})
    assert cookies("session=1", session=object()) == cookies("session=1")


def test_many_cookies_take_the_room_of_one() -> None:
    many = "; ".join(f"c{number}={number}" for number in range(100))
    assert len(cookies(many)) == 1
    assert cookies(many) != cookies(many.replace("c7=7", "c7=8"))


@pytest.mark.parametrize(
    ("first", "given", "repetition", "same"),
    [
        ("", [], "", True),
        ("", [], "a=1", False),
        ("", ["a=1; Path=/; HttpOnly"], "a=1", True),
        ("", ["a=1"], "a=2", False),
        ("", ["a=1"], "", True),
        ("a=1", [], "a=1", True),
        ("a=1", [], "a=1; b=2", False),
        ("a=1", ["b=2"], "a=1; b=2", True),
        ("a=1", ["b=2"], "b=2", False),
        ("a=1", ["a=2; Secure"], "a=2", True),
        ("a=1", ["a=2"], "a=1", True),
        ("a=1", ["a=2"], "", False),
        ("a=1; b=1", ["a=2"], "a=2; b=1", True),
        ("a=1; b=1", ["a=2"], "a=2", False),
    ],
)
def test_a_repetition_has_the_cookies_that_the_first_exchange_left(
    first: str, given: list[str], repetition: str, same: bool
) -> None:
    set_by_it = given_cookies(lines(("etag", "x"), *(("set-cookie", value) for value in given)))
    one, other = with_cookies("f", cookies(first)), with_cookies("f", cookies(repetition))
    assert is_same_sender(one, set_by_it, other) is same
    assert not is_same_sender(one, set_by_it, with_cookies("g", cookies(repetition)))


def test_a_session_that_the_first_exchange_changed_is_known() -> None:
    first, changed = {"login": "ann"}, {"login": "ann", "cart": 1}
    one, other = (with_cookies("f", cookies("session=1", session=content)) for content in (first, changed))
    assert is_same_sender(one, given_cookies([], changed), other)
    assert not is_same_sender(one, given_cookies([], first), other)


def test_a_line_of_a_hundred_thousand_cookies_is_compared_whole() -> None:
    line = "a=1;" * 100_000
    assert cookies(line) == cookies(line) != cookies(line + "b=2")


@pytest.mark.parametrize(
    "name",
    [
        "x-user", "x-ssl-client-s-dn", "x-ssl-client-cert", "x-amzn-mtls-clientcert", "x-amzn-oidc-data", "token",
        "x-goog-iap-jwt-assertion", "x-consumer-username", "x-functions-key", "tailscale-user-login", "session_id",
        "x-goog-authenticated-user-email", "x-agent-token",
    ],
)  # fmt: skip
def test_a_name_says_that_its_value_is_about_the_sender(name: str) -> None:
    assert sender_digests(lines((name, "a"))) != sender_digests(lines((name, "b"))) != ()


@pytest.mark.parametrize(
    "name",
    [
        "accept", "user-agent", "sec-fetch-user", "x-csrf-token", "cf-turnstile-token", "x-auth-timestamp",
        "x-signature", "x-request-id", "traceparent", "x-forwarded-for", "custom-idempotency-key", "x-tenant-id",
        "content-type", "date", "x-author", "cookie", "origin", "referer", "x-requested-with",
    ],
)  # fmt: skip
def test_a_name_says_nothing_about_the_sender(name: str) -> None:
    assert sender_digests(lines((name, "a"))) == ()


@pytest.mark.parametrize("scheme", ["Digest", " hawk", "MAC", "Signature", "AWS4-HMAC-SHA256", "EG1-HMAC-SHA256"])
def test_of_a_signature_the_scheme_is_the_credential(scheme: str) -> None:
    one, other = (("authorization", f"{scheme} id=a, mac={count}") for count in "12")
    assert digest(one) == digest(other) is not None
    assert signature_digests(lines(one)) != signature_digests(lines(other)) != ()
    assert signature_digests(lines(one, ("x-api-key", "a"))) == ()


@pytest.mark.parametrize("value", ["Bearer a", "Basic a", "OAuth a", "Digestive", "Negotiate a", ""])
def test_lasting_credentials_are_no_signature(value: str) -> None:
    assert signature_digests(lines(("authorization", value))) == ()
    assert signature_digests(lines(("authorization", f'OAuth realm="", oauth_nonce="{value}"'))) != ()


@pytest.mark.parametrize("scope", [{}, {"extensions": None}, {"extensions": {"tls": {"client_cert_chain": ()}}}])
def test_without_a_certificate_there_is_no_credential(scope: dict[str, Any]) -> None:
    assert certificate_lines(scope) == []
