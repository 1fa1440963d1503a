"""Who asks, and that no two who ask share a record."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.authentication import SimpleUser, UnauthenticatedUser

from dotmac.tasks.errors import InvalidInput
from dotmac.tasks.http.scope import Identity, Target, default_identity, full_path, record_key

names = st.none() | st.sampled_from(["a", "b", "ab", "a,b"])
origins = st.sampled_from(["http://a", "https://a", "http://"])
targets = st.builds(Target, origins, st.sampled_from(["POST", "PUT"]), st.text(max_size=3))
requests = st.tuples(names, names, targets, st.text(max_size=3), names)


def key_of(request: tuple[Any, ...], **options: Any) -> str:
    tenant, user, target, key, credentials = request
    return record_key(Identity(tenant, user), target, key, credentials=credentials, **options)


@given(requests, requests)
def test_different_requests_have_different_records(one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    def meant(request: tuple[Any, ...]) -> tuple[Any, ...]:
        return request if request[1] is None else request[:4]  # credentials count where no user is known

    assert (key_of(one) == key_of(other)) == (meant(one) == meant(other))


def test_the_key_cannot_be_read_from_the_record() -> None:
    name = record_key(Identity("t", "u"), Target("http://a", "POST", "/payments"), "my-secret-key")
    assert len(name) == 64
    assert set(name) <= set("0123456789abcdef")


def test_a_renewed_token_does_not_part_a_user_from_what_he_began() -> None:
    user, tenant_only, nobody = Identity("t", "u"), Identity("t"), Identity()

    def under(identity: Identity, token: str) -> str:
        return record_key(identity, Target("", "POST", "/"), "k", credentials=token)

    assert under(user, "one") == under(user, "two")
    assert under(tenant_only, "one") != under(tenant_only, "two")
    assert under(nobody, "one") != under(nobody, "two")


def test_strict_scope_finds_one_record_under_any_method_and_path() -> None:
    one, other = [(None, "u", Target("http://a", *end), "k", None) for end in (("POST", "/a"), ("PUT", "/b"))]
    assert key_of(one, strict=True) == key_of(other, strict=True)
    assert key_of(one, strict=True) != key_of(one)
    assert key_of(one, strict=True) != key_of((None, "u", one[2], "other", None), strict=True)
    assert key_of(one, strict=True) != key_of((None, "u", Target("http://b", "POST", "/a"), "k", None), strict=True)


def test_a_path_that_is_no_utf8_has_a_record_of_its_own() -> None:
    one, other = (record_key(Identity(), Target("", "POST", path), "k") for path in ("/\udcff", "/\udcfe"))
    assert one != other


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
        (scope(path_params=FROM_PATH), Identity("pt", None)),
        (scope(*FROM_HEADERS, path_params=FROM_PATH), Identity("ht", "hu")),
        (scope(*FROM_HEADERS, state={"tenant_id": "st", "user_id": "su"}), Identity("st", "su")),
        (scope(*FROM_HEADERS, state=SimpleNamespace(user_id="su")), Identity("ht", "su")),
        (scope(*FROM_HEADERS, state={"tenant_id": None, "user_id": ""}), Identity("ht", "hu")),
        (scope(("x-tenant-id", " "), ("x-user-id", "é"), path_params=None), Identity(None, "é")),
        (scope(state={"user_id": UUID(int=1)}), Identity(None, str(UUID(int=1)))),
        (scope(state={"user_id": 0}), Identity(None, "0")),
        (scope(*FROM_HEADERS, user=SimpleUser("ann")), Identity("ht", "ann")),
        (scope(*FROM_HEADERS, user=UnauthenticatedUser()), Identity("ht", "hu")),
        (scope(user=SimpleNamespace(is_authenticated=True, identity="i", username="n")), Identity(None, "i")),
        (scope(user=SimpleNamespace(id=5)), Identity(None, "5")),
        (scope(user="ann"), Identity(None, "ann")),
        (scope(user={"sub": "ann", "name": "Ann"}), Identity(None, "ann")),
        (scope(user="ann", state={"user_id": "su"}), Identity(None, "su")),
        (scope(*FROM_HEADERS, session={"user_id": 7, "tenant_id": "t"}), Identity("t", "7")),
        (scope(session={"user": "ann"}), Identity(None, "ann")),
        (scope(session={"user": {"id": UUID(int=2), "cart": []}}), Identity(None, str(UUID(int=2)))),
        (scope(*FROM_HEADERS, session={"user": {"name": "ann"}, "user_id": None}), Identity("ht", "hu")),
        (scope(*FROM_HEADERS, session=None), Identity("ht", "hu")),
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
        (scope(user=SimpleNamespace(name="ann")), "user"),
        (scope(user=SimpleNamespace(identity=object())), "user_id"),
        (scope(user={"name": "ann"}), "user"),
    ],
)
def test_what_is_no_name_is_refused(request_scope: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        default_identity(request_scope)
    assert refused.value.field == field


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
