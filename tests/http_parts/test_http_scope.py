"""Who asks, and that no two who ask share a record."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dotmac.tasks.errors import InvalidInput
from dotmac.tasks.http.scope import Identity, credentials_digest, default_identity, full_path, record_key

names = st.none() | st.sampled_from(["a", "b", "ab", "a,b"])
requests = st.tuples(names, names, st.sampled_from(["POST", "PUT"]), st.text(max_size=3), st.text(max_size=3), names)


def key_of(request: tuple[Any, ...], **options: Any) -> str:
    tenant, user, method, path, key, credentials = request
    return record_key(Identity(tenant, user), method, path, key, credentials=credentials, **options)


@given(requests, requests)
def test_different_requests_have_different_records(one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    def meant(request: tuple[Any, ...]) -> tuple[Any, ...]:
        return request if request[1] is None else request[:5]  # credentials count where no user is known

    assert (key_of(one) == key_of(other)) == (meant(one) == meant(other))


def test_the_key_cannot_be_read_from_the_record() -> None:
    name = record_key(Identity("t", "u"), "POST", "/payments", "my-secret-key")
    assert len(name) == 64
    assert set(name) <= set("0123456789abcdef")


def test_a_renewed_token_does_not_part_a_user_from_what_he_began() -> None:
    user, tenant_only, nobody = Identity("t", "u"), Identity("t"), Identity()

    def under(identity: Identity, token: str) -> str:
        return record_key(identity, "POST", "/", "k", credentials=token)

    assert under(user, "one") == under(user, "two")
    assert under(tenant_only, "one") != under(tenant_only, "two")
    assert under(nobody, "one") != under(nobody, "two")


def test_strict_scope_finds_one_record_under_any_method_and_path() -> None:
    one, other = (None, "u", "POST", "/a", "k", None), (None, "u", "PUT", "/b", "k", None)
    assert key_of(one, strict=True) == key_of(other, strict=True)
    assert key_of(one, strict=True) != key_of(one)
    assert key_of(one, strict=True) != key_of((None, "u", "POST", "/a", "other", None), strict=True)


def test_a_path_that_is_no_utf8_has_a_record_of_its_own() -> None:
    assert record_key(Identity(), "POST", "/\udcff", "k") != record_key(Identity(), "POST", "/\udcfe", "k")


def scope(*headers: tuple[str, str], **more: Any) -> dict[str, Any]:
    return {"headers": [(name.encode(), value.encode("latin-1")) for name, value in headers], **more}


FROM_HEADERS = [("x-tenant-id", "ht"), ("x-user-id", "hu")]
FROM_PATH = {"tenant_id": "pt", "user_id": 7}


@pytest.mark.parametrize(
    ("request_scope", "identity"),
    [
        ({}, Identity()),
        (scope(), Identity()),
        (scope(*FROM_HEADERS), Identity("ht", "hu")),
        (scope(path_params=FROM_PATH), Identity("pt", "7")),
        (scope(*FROM_HEADERS, path_params=FROM_PATH), Identity("ht", "hu")),
        (scope(*FROM_HEADERS, state={"tenant_id": "st", "user_id": "su"}), Identity("st", "su")),
        (scope(*FROM_HEADERS, state=SimpleNamespace(user_id="su")), Identity("ht", "su")),
        (scope(*FROM_HEADERS, state={"tenant_id": None, "user_id": ""}), Identity("ht", "hu")),
        (scope(("x-tenant-id", " "), ("x-user-id", "é"), path_params=None), Identity(None, "é")),
        (scope(state={"user_id": UUID(int=1)}), Identity(None, str(UUID(int=1)))),
        (scope(state={"user_id": 0}), Identity(None, "0")),
    ],
)
def test_the_first_place_that_knows_decides(request_scope: dict[str, Any], identity: Identity) -> None:
    assert default_identity(request_scope) == identity


@pytest.mark.parametrize(
    ("request_scope", "field"),
    [
        (scope(("x-user-id", "a"), ("x-user-id", "a")), "X-User-Id"),
        (scope(("x-tenant-id", "a" * 256)), "tenant_id"),
        (scope(("x-user-id", "a\x00b")), "user_id"),
        (scope(state={"user_id": object()}), "user_id"),
        (scope(state={"user_id": ["a"]}), "user_id"),
        (scope(state={"user_id": True}), "user_id"),
    ],
)
def test_what_is_no_name_is_refused(request_scope: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        default_identity(request_scope)
    assert refused.value.field == field


def digest(*headers: tuple[str, str]) -> str | None:
    return credentials_digest(scope(*headers)["headers"])


def test_credentials_are_told_apart_without_being_readable() -> None:
    assert digest() is None
    assert digest(("accept", "*/*")) is None
    one, other = digest(("authorization", "Bearer one")), digest(("authorization", "Bearer two"))
    assert one is not None
    assert "one" not in one
    assert one != other
    assert digest(("authorization", "a")) != digest(("x-api-key", "a"))
    assert digest(("authorization", "a"), ("x-api-key", "b")) != digest(("authorization", "a"))


def test_cookies_tell_nobody_apart() -> None:
    """A site changes them between a request and its repetition, which would then be carried out twice."""
    assert digest(("cookie", "session=1")) is None
    assert digest(("cookie", "session=1"), ("authorization", "a")) == digest(("authorization", "a"))


@pytest.mark.parametrize(
    ("path", "root_path", "full"),
    [
        ("/a", "", "/a"),
        ("/a", "/root", "/root/a"),
        ("/root/a", "/root", "/root/a"),
        ("/root", "/root", "/root"),
        ("/rooted", "/root/", "/root/rooted"),
        ("/", "/root", "/root/"),
        ("/a", None, "/a"),
        ("", "", ""),
    ],
)
def test_the_path_is_that_of_the_client(path: str, root_path: str | None, full: str) -> None:
    assert full_path({"path": path, "root_path": root_path}) == full
