"""Responses stay with the host and the user that they were made for, and a repetition never runs twice for it."""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from fastapi.security import APIKeyHeader
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse
from starlette.routing import Host, Mount, Route
from trio.testing import MockClock

from dotmac.tasks import BackgroundOperationsMiddleware, IdempotencyOptions, InvalidInput, MemoryStorage, RouteRule
from dotmac.tasks.http.credentials import CREDENTIAL_HEADERS
from middleware.apps import answer, app_of
from middleware.asgi_client import Client, Response
from runtime.nodes import Node


class Orders:
    """An app that answers each order with the user it is for; counts what ran."""

    def __init__(self, who: Callable[[Request], str]) -> None:
        self.ran: list[str] = []
        self.who = who

    async def serve(self, request: Request) -> JSONResponse:
        self.ran.append(self.who(request))
        return JSONResponse({"for": self.ran[-1]})

    @property
    def app(self) -> Starlette:
        return Starlette(routes=[Route("/", self.serve, methods=["POST"])])


class Sessions:
    """Reads a session from a cookie, as Starlette's `SessionMiddleware` does; each login has its own signature."""

    def __init__(self, app: Any, cookie: str = "session") -> None:
        self.app = app
        self.cookie = cookie

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            found = HTTPConnection(scope).cookies.get(self.cookie)
            scope["session"] = {} if not found else {"login": base64.b64decode(found.partition(".")[0]).decode()}
        await self.app(scope, receive, send)


def cookie(login: str, signature: int = 1, *, name: str = "session", more: str = "") -> list[tuple[str, str]]:
    return [("Cookie", f"{name}={base64.b64encode(login.encode()).decode()}.{signature}{more}")]


def of_session(request: Request) -> str:
    login: str = request.scope["session"].get("login", "anonymous")
    return login


def of_header(name: str) -> Callable[[Request], str]:
    return lambda request: request.headers.get(name, "anonymous")


async def send(app: Any, headers: Iterable[tuple[str, str]], key: str = "order-1", path: str = "/") -> Response:
    return await Client(app, tenant=None).post(path, key=key, headers=headers)


# --- hosts --------------------------------------------------------------------------------------------------------


async def test_each_host_gets_the_answer_of_its_own_app(autojump_clock: MockClock, shared: MemoryStorage) -> None:
    orders = Orders(lambda request: request.headers["host"])
    hosts = [Host(host, Mount("/", orders.app)) for host in ("a.example.org", "b.example.org")]
    async with Node(shared, lambda _: None) as node:
        app = BackgroundOperationsMiddleware(Starlette(routes=hosts), node.manager)
        for host in ("a.example.org", "b.example.org"):
            assert (await send(app, [("Host", host)])).json == {"for": host}
        again = await send(app, [("Host", "a.example.org:80")])
    assert again.replayed
    assert again.json == {"for": "a.example.org"}


@pytest.mark.parametrize(
    ("one", "other", "shares"),
    [
        ({"host": "a.example"}, {"host": "b.example"}, False),
        ({"host": "a.example"}, {"host": "a.example:8443"}, False),
        ({"host": "a.example"}, {"host": "a.example", "scheme": "https"}, False),
        ({"host": "a.example:443", "scheme": "https"}, {"host": "a.example", "scheme": "https"}, True),
        ({"host": "10.0.0.1:8000"}, {"host": "10.0.0.2:8000"}, True),
        ({"host": "a.example"}, {"host": "10.0.0.2:8000"}, False),
        ({"host": "a.example", "root_path": "/one"}, {"host": "a.example", "root_path": "/two"}, False),
    ],
)
async def test_which_origins_share_a_record(
    autojump_clock: MockClock, shared: MemoryStorage, one: dict[str, str], other: dict[str, str], shares: bool
) -> None:
    orders = Orders(of_header("host"))
    async with Node(shared, lambda _: None) as node:
        client = Client(BackgroundOperationsMiddleware(orders.app, node.manager))
        for scope in (one, other):
            rest: dict[str, Any] = {name: value for name, value in scope.items() if name != "host"}
            answered = await client.post(headers=[("Host", scope["host"])], **rest)
    assert answered.status == 200
    assert answered.replayed is shares


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("10.0.0.1", "10.0.0.2"), ("localhost", "127.0.0.1"), ("[::1]:8000", "[::2]:8000"), ("a.example.", "a.example"),
        ("a.example", ""),
    ],
)  # fmt: skip
async def test_an_address_tells_apps_apart_where_routes_do(
    autojump_clock: MockClock, shared: MemoryStorage, one: str, other: str
) -> None:
    orders = Orders(of_header("host"))
    names = ("10.0.0.1", "10.0.0.2", "localhost", "127.0.0.1", "[::1]", "[::2]", "a.example")
    hosts = [Host(name, Mount("/", orders.app)) for name in names]
    async with Node(shared, lambda _: None) as node:
        app = BackgroundOperationsMiddleware(Starlette(routes=[*hosts, Mount("/", orders.app)]), node.manager)
        for _ in range(2):
            for host in (one, other):
                answered = await send(app, [("Host", host)] if host else [])
                assert answered.json == {"for": host or "anonymous"}
    assert len(orders.ran) == 2


class ForwardedHost:
    """Puts the host that a proxy names in place of its own."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        host = dict(scope.get("headers", ())).get(b"x-forwarded-host")
        headers = [(name, host if name == b"host" and host else value) for name, value in scope.get("headers", ())]
        await self.app({**scope, "headers": headers}, receive, send)


async def test_a_host_that_a_proxy_names_behind_the_middleware_is_compared(
    autojump_clock: MockClock, shared: MemoryStorage
) -> None:
    orders = Orders(of_header("host"))
    one, other = ([("Host", "backend"), ("X-Forwarded-Host", name)] for name in ("a.example", "b.example"))
    async with Node(shared, lambda _: None) as node:
        app = BackgroundOperationsMiddleware(ForwardedHost(orders.app), node.manager)
        await send(app, one)
        assert (await send(app, one)).replayed
        assert (await send(app, other)).problem == "payload-mismatch"
        options = IdempotencyOptions(per_origin=False)
        app = BackgroundOperationsMiddleware(ForwardedHost(orders.app), node.manager, options=options)
        await send(app, one, "order-2")
        assert (await send(app, other, "order-2")).replayed
    assert orders.ran == ["a.example", "a.example"]


async def test_one_app_behind_several_names(autojump_clock: MockClock, shared: MemoryStorage) -> None:
    orders = Orders(of_header("host"))
    async with Node(shared, lambda _: None) as node:
        options = IdempotencyOptions(per_origin=False)
        app = BackgroundOperationsMiddleware(orders.app, node.manager, options=options)
        await send(app, [("Host", "shop.example")])
        assert (await send(app, [("Host", "www.shop.example")])).replayed
        assert (await send(app, [("Host", "[::1")])).replayed


@pytest.mark.parametrize("hosts", [["[::1"], [""], ["a\x00b"], ["\xff"], ["a", "a"], ["a:99999"]])
async def test_a_malformed_host_is_refused(autojump_clock: MockClock, shared: MemoryStorage, hosts: list[str]) -> None:
    orders = Orders(of_header("host"))
    async with Node(shared, lambda _: None) as node:
        app = BackgroundOperationsMiddleware(orders.app, node.manager)
        refused = await send(app, [("Host", host) for host in hosts])
    assert (refused.status, refused.problem) == (400, "host-malformed")
    assert orders.ran == []


# --- users --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CREDENTIAL_HEADERS)
async def test_credential_headers_tell_users_apart(autojump_clock: MockClock, shared: MemoryStorage, name: str) -> None:
    orders = Orders(of_header(name))
    async with Node(shared, lambda _: None) as node:
        app = BackgroundOperationsMiddleware(orders.app, node.manager)
        for user in ("alice", "bob"):
            assert (await send(app, [(name, user)])).json == {"for": user}
        assert (await send(app, [])).json == {"for": "anonymous"}
        assert (await send(app, [(name, "alice")])).replayed


@pytest.mark.parametrize("name", ["X-Webauth-User", "X-SSL-Client-Cert", "X-Consumer-Username", "Token", "X-Login"])
async def test_a_header_that_is_named_like_a_sender_is_compared(
    autojump_clock: MockClock, shared: MemoryStorage, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    orders = Orders(of_header(name))
    async with Node(shared, lambda _: None) as node:
        app = BackgroundOperationsMiddleware(orders.app, node.manager)
        with caplog.at_level(logging.WARNING):
            await send(app, [(name, "alice"), ("X-Request-Token", "1"), ("X-CSRF-Token", "1")])
            for headers in ([(name, "bob")], []):
                assert (await send(app, [*headers, ("X-Request-Token", "1")])).problem == "payload-mismatch"
            assert (await send(app, [(name, "alice"), ("X-Request-Token", "1"), ("X-CSRF-Token", "2")])).replayed
        app = BackgroundOperationsMiddleware(orders.app, node.manager, credentials=[name])
        for user in ("alice", "bob"):
            assert (await send(app, [(name, user)])).json == {"for": user}
    assert sum("give an identity" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.parametrize("scheme", ['Digest username="{}", nc={}', "AWS4-HMAC-SHA256 Credential={}, Signature={}"])
async def test_credentials_that_sign_one_request_never_run_a_repetition(
    autojump_clock: MockClock, shared: MemoryStorage, scheme: str
) -> None:
    orders = Orders(of_header("authorization"))
    async with Node(shared, lambda _: None) as node:
        app = BackgroundOperationsMiddleware(
            orders.app, node.manager, options=IdempotencyOptions(credentials_required=True)
        )
        first = [("Authorization", scheme.format("alice", 1))]
        assert (await send(app, first)).status == 200
        assert (await send(app, first)).replayed
        for user, count in (("alice", 2), ("bob", 1)):
            signed = [("Authorization", scheme.format(user, count))]
            assert (await send(app, signed)).problem == "payload-mismatch"
        for user in ("alice", "bob"):
            keyed = [("X-API-Key", user), ("Authorization", scheme.format(user, 1))]
            assert (await send(app, keyed)).status == 200
    assert len(orders.ran) == 3


@pytest.mark.parametrize("tls", ["client_cert_name", "client_cert_chain"])
async def test_a_client_certificate_is_a_credential(autojump_clock: MockClock, shared: MemoryStorage, tls: str) -> None:
    orders = Orders(lambda request: str(request.scope["extensions"]["tls"][tls]))
    async with Node(shared, lambda _: None) as node:
        client = Client(BackgroundOperationsMiddleware(orders.app, node.manager))
        for user in ("CN=alice", "CN=bob"):
            assert (await client.post(extensions={"tls": {tls: user}})).json == {"for": user}
        assert (await client.post(extensions={"tls": {tls: "CN=alice"}})).json == {"for": "CN=alice"}
    assert len(orders.ran) == 2


async def test_sessions_behind_one_authorization_are_compared(autojump_clock: MockClock, shared: MemoryStorage) -> None:
    orders = Orders(of_session)
    basic = ("Authorization", "Basic everybody")
    async with Node(shared, lambda _: None) as node:
        app = sessions_around(orders.app, node.manager, outside=True)
        await send(app, [basic, *cookie("alice")])
        assert (await send(app, [basic, *cookie("bob")])).problem == "payload-mismatch"
        assert (await send(app, [basic, *cookie("alice", signature=2)])).replayed


async def test_an_app_names_its_own_credentials(autojump_clock: MockClock, shared: MemoryStorage) -> None:
    async def of_query(scope: Any) -> bytes:
        return bytes(scope["query_string"])

    async with Node(shared, lambda _: None) as node:
        orders = Orders(of_header("x-partner"))
        rules: list[Any] = [["X-Partner"], lambda scope: dict(scope["headers"]).get(b"x-partner")]
        for number, credentials in enumerate(rules):
            app = BackgroundOperationsMiddleware(orders.app, node.manager, credentials=credentials)
            answers = [await send(app, [("X-Partner", user)], f"key-{number}") for user in ("alice", "bob")]
            assert [answer.json["for"] for answer in answers] == ["alice", "bob"]
        app = BackgroundOperationsMiddleware(orders.app, node.manager, credentials=of_query)
        assert (await send(app, [("Cookie", "a=1")], path="/?token=1")).status == 200
        assert (await send(app, [("Cookie", "a=2")], path="/?token=1")).replayed


class ByHeader(AuthenticationBackend):
    """Authenticates by a header that no default knows."""

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, SimpleUser] | None:
        name = conn.headers.get("x-login")
        return None if name is None else (AuthCredentials(["authenticated"]), SimpleUser(name))


async def test_the_user_of_an_authentication_further_out(autojump_clock: MockClock, shared: MemoryStorage) -> None:
    orders = Orders(lambda request: request.user.display_name or "anonymous")
    async with Node(shared, lambda _: None) as node:
        inner = BackgroundOperationsMiddleware(orders.app, node.manager)
        app = AuthenticationMiddleware(inner, ByHeader())
        for user in ("alice", "bob"):
            assert (await send(app, [("X-Login", user)])).json == {"for": user}
        assert (await send(app, [])).json == {"for": "anonymous"}
        renewed = [("X-Login", "alice"), ("Authorization", "renewed"), ("Cookie", "seen=9"), ("X-User-ID", "bob")]
        assert (await send(app, renewed)).json == {"for": "alice"}
    assert orders.ran == ["alice", "bob", "anonymous"]


async def test_api_keys_of_fastapi(autojump_clock: MockClock, shared: MemoryStorage) -> None:
    shop, ran = FastAPI(), []
    scheme = APIKeyHeader(name="X-API-Key")

    @shop.post("/")
    async def order(key: str = Depends(scheme)) -> dict[str, str]:
        ran.append(key)
        return {"for": key}

    async with Node(shared, lambda _: None) as node:
        app = BackgroundOperationsMiddleware(shop, node.manager)
        answers = [await send(app, [("X-API-Key", user)]) for user in ("alice", "bob", "alice")]
    assert [answer.json["for"] for answer in answers] == ["alice", "bob", "alice"]
    assert ran == ["alice", "bob"]


async def test_a_user_in_the_path_does_not_hide_the_credentials(
    autojump_clock: MockClock, shared: MemoryStorage
) -> None:
    orders = Orders(of_header("authorization"))
    shop = Starlette(routes=[Route("/users/{user_id}", orders.serve, methods=["POST"])])
    async with Node(shared, lambda _: None) as node:
        shop.add_middleware(BackgroundOperationsMiddleware, manager=node.manager)
        for token in ("alice", "eve"):
            answer = await send(shop, [("Authorization", token)], path="/users/alice")
            assert answer.json == {"for": token}


async def test_a_route_that_needs_credentials_reads_no_body_without_them(
    autojump_clock: MockClock, shared: MemoryStorage
) -> None:
    orders = Orders(of_header("authorization"))
    async with Node(shared, lambda _: None) as node:
        options = IdempotencyOptions(credentials_required=True)
        app = BackgroundOperationsMiddleware(orders.app, node.manager, options=options)
        refused = await Client(app).post(body=[b"x" * 1_000_000] * 3, headers=[("Content-Length", "3000000")])
        assert (refused.status, refused.problem) == (401, "credentials-missing")
        assert "claim_record" not in node.wire.calls
        for user in ([("Authorization", "alice")], [("X-User-ID", "alice")]):
            assert (await send(app, user)).status == 200
        assert (await send(app, [], key="")).problem == "key-malformed"


async def test_no_file_is_written_for_a_path_without_a_route(
    autojump_clock: MockClock, shared: MemoryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    files: list[Any] = []
    monkeypatch.setattr("tempfile.TemporaryFile", lambda: files.append("written"))
    orders = Orders(of_header("host"))
    async with Node(shared, lambda _: None) as node:
        shop = orders.app
        shop.add_middleware(BackgroundOperationsMiddleware, manager=node.manager)
        refused = await Client(shop).post("/nope", [b"x" * 100_000] * 3)
        assert (refused.status, refused.problem, refused.json["limit"]) == (413, "body-too-large", 262_144)
        assert (await Client(shop).post("/nope", b"x" * 100_000)).status == 404
    assert files == []


async def test_a_rule_for_a_path_without_a_route_sets_its_limit(
    autojump_clock: MockClock, shared: MemoryStorage
) -> None:
    orders = Orders(of_header("host"))
    async with Node(shared, lambda _: None) as node:
        shop, rules = orders.app, [RouteRule("/nope", body_limit=1_000_000)]
        shop.add_middleware(BackgroundOperationsMiddleware, manager=node.manager, routes=rules)
        assert (await Client(shop).post("/nope", [b"x" * 100_000] * 3)).status == 404


# --- sessions -----------------------------------------------------------------------------------------------------


def sessions_around(app: Any, manager: Any, outside: bool, **arguments: Any) -> Any:
    if outside:
        return Sessions(BackgroundOperationsMiddleware(app, manager, **arguments))
    return BackgroundOperationsMiddleware(Sessions(app), manager, **arguments)


@pytest.mark.parametrize("outside", [True, False], ids=["session outside", "session inside"])
async def test_without_a_word_of_the_app_another_session_is_refused_and_nothing_runs_twice(
    autojump_clock: MockClock, shared: MemoryStorage, caplog: pytest.LogCaptureFixture, outside: bool
) -> None:
    orders = Orders(of_session)
    async with Node(shared, lambda _: None) as node:
        app = sessions_around(orders.app, node.manager, outside)
        with caplog.at_level(logging.WARNING):
            assert (await send(app, cookie("alice"))).json == {"for": "alice"}
        for headers in (cookie("bob"), [], [("Cookie", "seen=2")], cookie("alice", more="; seen=2")):
            refused = await send(app, headers)
            assert (refused.status, refused.problem) == (422, "payload-mismatch")
            assert ("session_cookies" in refused.json["detail"]) is bool(headers)
        assert (await send(app, cookie("alice"))).replayed
        resigned = await send(app, cookie("alice", signature=2))
        assert resigned.replayed if outside else resigned.problem == "payload-mismatch"
        assert (await send(app, cookie("bob"), key="order-2")).json == {"for": "bob"}
    assert orders.ran == ["alice", "bob"]
    assert sum("session_cookies" in record.getMessage() for record in caplog.records) == 1


async def test_cookies_of_the_first_response_belong_to_its_receiver(
    autojump_clock: MockClock, shared: MemoryStorage
) -> None:
    async def order(_scope: Any, _body: bytes, send: Any) -> None:
        await answer(send, 201, {}, [(b"set-cookie", b"session=new; Path=/"), (b"set-cookie", b"seen=1")])

    async with Node(shared, lambda _: None) as node:
        app = BackgroundOperationsMiddleware(app_of(order), node.manager)
        for first in ([], [("Cookie", "session=old")]):
            key = f"order-{len(first)}"
            assert not (await send(app, first, key)).replayed
            assert (await send(app, first, key)).replayed
            assert (await send(app, [("Cookie", "session=new; seen=1")], key)).replayed
            for other in ([("Cookie", "session=bob")], [("Cookie", "seen=1; session=bob")]):
                assert (await send(app, other, key)).problem == "payload-mismatch"


async def test_a_session_that_the_handler_changed_belongs_to_its_user(
    autojump_clock: MockClock, shared: MemoryStorage
) -> None:
    async def order(scope: Any, _body: bytes, send: Any) -> None:
        scope["session"]["orders"] = scope["session"].get("orders", 0) + 1
        await answer(send, 201, {})

    async with Node(shared, lambda _: None) as node:
        client = Client(BackgroundOperationsMiddleware(app_of(order), node.manager))
        session = {"login": "alice"}
        assert not (await client.post(headers=cookie("alice"), session=session)).replayed
        assert (await client.post(headers=cookie("alice", 2), session=session)).replayed
        assert session == {"login": "alice", "orders": 1}
        refused = await client.post(headers=cookie("bob"), session={"login": "bob", "orders": 1})
        assert refused.problem == "payload-mismatch"


@pytest.mark.parametrize("outside", [True, False], ids=["session outside", "session inside"])
async def test_one_line_tells_sessions_apart(autojump_clock: MockClock, shared: MemoryStorage, outside: bool) -> None:
    orders = Orders(of_session)
    async with Node(shared, lambda _: None) as node:
        app = sessions_around(orders.app, node.manager, outside, session_cookies=["session"])
        answers = [await send(app, headers) for headers in (cookie("alice"), cookie("bob"), [("Cookie", "seen=1")])]
        assert [answer.json["for"] for answer in answers] == ["alice", "bob", "anonymous"]
        assert (await send(app, cookie("alice", more="; seen=2"))).replayed
        assert (await send(app, [("Cookie", "seen=2")])).replayed
        basic = [("Authorization", "Basic everybody")]
        answers = [await send(app, [*basic, *cookie(user)]) for user in ("alice", "bob")]
        assert [answer.json["for"] for answer in answers] == ["alice", "bob"]


async def test_the_user_of_a_session_further_out(autojump_clock: MockClock, shared: MemoryStorage) -> None:
    orders = Orders(lambda request: str(request.scope["session"]["user_id"]))
    async with Node(shared, lambda _: None) as node:
        client = Client(BackgroundOperationsMiddleware(orders.app, node.manager))
        for user in (1, 2):
            assert (await client.post(session={"user_id": user, "cart": []})).json == {"for": str(user)}
        again = await client.post(headers=cookie("alice"), session={"user_id": 1, "cart": ["tea"]})
    assert again.replayed
    assert again.json == {"for": "1"}


async def test_cookies_of_clients_with_credentials_do_not_count(
    autojump_clock: MockClock, shared: MemoryStorage
) -> None:
    orders = Orders(of_header("authorization"))
    async with Node(shared, lambda _: None) as node:
        app = BackgroundOperationsMiddleware(orders.app, node.manager)
        await send(app, [("Authorization", "alice"), ("Cookie", "balancer=1")])
        assert (await send(app, [("Authorization", "alice"), ("Cookie", "balancer=2")])).replayed


# --- what else makes another request --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["If-Match", "X-HTTP-Method-Override", "X-Account-ID", "X-Original-URL"])
async def test_headers_that_change_what_a_request_does_are_compared(
    autojump_clock: MockClock, shared: MemoryStorage, name: str
) -> None:
    orders = Orders(of_header(name))
    async with Node(shared, lambda _: None) as node:
        app = BackgroundOperationsMiddleware(orders.app, node.manager)
        await send(app, [(name, "one")])
        assert (await send(app, [(name, "one"), ("Accept", "text/html")])).replayed
        assert (await send(app, [(name, "two")])).problem == "payload-mismatch"
        options = IdempotencyOptions(fingerprint_headers=["Prefer"])
        app = BackgroundOperationsMiddleware(orders.app, node.manager, options=options, credentials=["Authorization"])
        await send(app, [(name, "one")], "order-2")
        assert (await send(app, [(name, "two")], "order-2")).replayed
        assert (await send(app, [("Prefer", "respond-async")], "order-2")).problem == "payload-mismatch"


@pytest.mark.parametrize(
    "arguments",
    [
        {"identity": "alice"},
        {"credentials": "X-Key"},
        {"credentials": [1]},
        {"session_cookies": "sid"},
        {"session_cookies": [""]},
        {"credentials": None},
    ],
)
async def test_arguments_that_make_no_sense_are_named(shared: MemoryStorage, arguments: Any) -> None:
    with pytest.raises(InvalidInput, match=next(iter(arguments))):
        BackgroundOperationsMiddleware(Orders(str).app, Node(shared, lambda _: None).manager, **arguments)


async def test_credentials_that_are_no_text_are_an_error_of_the_app(
    autojump_clock: MockClock, shared: MemoryStorage
) -> None:
    async with Node(shared, lambda _: None) as node:
        app = BackgroundOperationsMiddleware(Orders(str).app, node.manager, credentials=lambda _scope: 5)
        with pytest.raises(TypeError, match="credentials must give"):
            await send(app, [])
