"""Who may reach the service: every refusal, and what is let through."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.datastructures import URL
from starlette.requests import HTTPConnection
from starlette.routing import Mount

from dotmac.tasks import InvalidInput
from dotmac.tasks.service.access import Access, access_for
from dotmac.tasks.service.callers import Caller, Role
from dotmac.tasks.service.guard import SECURITY_HEADERS
from dotmac.tasks.service.redaction import HIDDEN
from dotmac.tasks.service.sessions import COOKIE, EndedSessions
from dotmac.tasks.service.tokens import Tokens
from service.house import HERE, OPERATOR, VIEWER, House, bearer, guarded_access, house, problem, saga, step, tokens

PAGE = {"Accept": "text/html"}


# --- where it listens ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bind", ["127.0.0.1:80", "127.9.9.9:80", "localhost:80", "[::1]:80", "unix:/run/tasks.sock"])
def test_loopback_needs_no_token(bind: str) -> None:
    assert access_for([bind]).is_open


@pytest.mark.parametrize("bind", ["0.0.0.0:80", "[::]:80", ":80", "192.168.0.7:80", "tasks.example.com:80", "10.1:80"])
def test_any_other_address_needs_one(bind: str) -> None:
    with pytest.raises(InvalidInput, match="--token-file") as refused:
        access_for(["127.0.0.1:80", bind])
    assert refused.value.field == "bind"
    assert not access_for([bind], tokens=tokens()).is_open
    assert not access_for([bind], authenticator=by_header).is_open


def test_a_further_host_name_needs_one_too() -> None:
    with pytest.raises(InvalidInput, match=r"host: tasks\.example\.com"):
        access_for(["127.0.0.1:80"], hosts=["tasks.example.com"])


# --- the host that a request names ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["evil.example.com", "127.0.0.1.evil.example.com", "localhost.evil.com:8080", "", "8.8.8.8"]
)
async def test_a_page_whose_name_was_pointed_at_loopback_gets_nothing(service: House, host: str) -> None:
    for path in ("/v1/sagas", "/health/live", "/login", "/static/x"):
        problem(await service.client.get(path, headers={"Host": host}), 421, "host-not-served")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8080", "127.0.0.1", "[::1]:8080", "tasks.localhost:8080"])
async def test_loopback_by_any_name_is_served(service: House, host: str) -> None:
    assert (await service.client.get("/v1/sagas", headers={"Host": host})).status_code == 200


async def test_a_name_that_was_given_is_served() -> None:
    async with house(access_for(["127.0.0.1:80"], tokens=tokens(), hosts=["Tasks.example.com"])) as service:
        for host, status in [("tasks.example.com", 200), ("other.example.com", 421)]:
            headers = {"Host": host, **bearer(VIEWER)}
            assert (await service.client.get("/v1/sagas", headers=headers)).status_code == status


# --- tokens ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer(""),
        bearer(OPERATOR[:-1]),
        bearer(f"{OPERATOR} x"),
        {"Authorization": f"Basic {OPERATOR}"},
        {"Authorization": OPERATOR},
        {"Cookie": f"{COOKIE}={OPERATOR}"},
        {"Cookie": f"{COOKIE}=otto.99999999999.00"},
        {"Cookie": f"{COOKIE}=.."},
    ],
)
async def test_without_a_token_nothing_is_told(headers: dict[str, str]) -> None:
    async with house(guarded_access()) as service:
        for path in ("/v1/sagas", "/v1/nothing", "/metrics", "/openapi.json", "/"):
            refused = await service.client.get(path, headers=headers)
            problem(refused, 401, "unauthorized")
            assert refused.headers["www-authenticate"] == "Bearer"
        assert (await service.client.post("/v1/sagas", json=saga(), headers=headers)).status_code == 401
        assert (await service.client.get("/health/ready", headers=headers)).status_code == 200


@pytest.mark.parametrize("host", ["x/static/a?", "x/login#", "127.0.0.1:80/health/live?b"])
async def test_the_host_that_is_named_opens_no_path(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # As Starlette made URLs before it looked at what the Host header holds.
    monkeypatch.setattr(HTTPConnection, "url", property(lambda self: URL(f"http://{host}{self.scope['path']}")))
    async with house(access_for(["0.0.0.0:80"], tokens=tokens())) as service:
        problem(await service.client.get("/v1/sagas", headers={"Host": host}), 401, "unauthorized")


async def test_a_viewer_gets_no_values_of_secret_fields_in_any_answer() -> None:
    async with house(guarded_access()) as at_home:
        at_home.client.headers.update(bearer(OPERATOR))
        saga_id = await at_home.run(step("a", result={"card_token": "tok-4711", "note": "visible"}))
        ask: dict[str, Any] = {"tenant_id": "acme", "operation_type": "do"}
        await at_home.manager.run_idempotent(**ask, parameters={"result": {"password": "tok-4711"}}, key="k-2")
        shown = [f"/v1/sagas/{saga_id}", f"/v1/sagas/{saga_id}/history", f"/v1/sagas/{saga_id}/events"]
        for address in (*shown, "/v1/operations/k-2?tenant_id=acme"):
            assert "tok-4711" in (await at_home.client.get(address)).text, address
            seen = (await at_home.client.get(address, headers=bearer(VIEWER))).text
            assert "tok-4711" not in seen, address
            assert HIDDEN in seen, address
        assert "visible" in (await at_home.client.get(shown[0], headers=bearer(VIEWER))).text


async def test_who_views_changes_nothing() -> None:
    async with house(guarded_access()) as service:
        assert (await service.client.get("/v1/sagas", headers=bearer(VIEWER))).status_code == 200
        refused = await service.client.post("/v1/sagas", json=saga(), headers=bearer(VIEWER))
        assert "vera" in problem(refused, 403, "role-view")["detail"]
        assert (await service.client.post("/v1/sagas", json=saga(), headers=bearer(OPERATOR))).status_code == 201


async def by_header(connection: HTTPConnection) -> Caller | None:
    name = connection.headers.get("x-forwarded-user")
    return None if name is None else Caller(name, Role.VIEW)


async def test_an_authenticator_is_asked_first_and_tokens_count_beside_it() -> None:
    access = access_for(["0.0.0.0:80"], tokens=tokens(), authenticator=by_header)
    async with house(access) as service:
        assert (await service.client.get("/v1/sagas", headers={"X-Forwarded-User": "ann"})).status_code == 200
        refused = await service.client.post("/v1/sagas", json=saga(), headers={"X-Forwarded-User": "ann"})
        assert "ann" in problem(refused, 403, "role-view")["detail"]
        assert (await service.client.post("/v1/sagas", json=saga(), headers=bearer(OPERATOR))).status_code == 201
        problem(await service.client.get("/v1/sagas"), 401, "unauthorized")


@pytest.mark.parametrize("given", [False, True, "alice", 0, ("alice", Role.OPERATE)])
async def test_what_is_no_caller_lets_nobody_in(given: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def authenticate(_connection: HTTPConnection) -> Any:
        return given

    access = access_for(["0.0.0.0:80"], tokens=tokens(), authenticator=authenticate)
    async with house(access) as service:
        calmly = httpx.ASGITransport(service.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=calmly, base_url=HERE) as client:
            for headers in ({}, bearer(OPERATOR)):
                problem(await client.get("/v1/sagas", headers=headers), 500, "internal-error")
                problem(await client.post("/v1/sagas", json=saga(), headers=headers), 500, "internal-error")
        assert not (await service.manager.list_sagas()).sagas
    assert f"the authenticator returned a {type(given).__name__}; it must return a Caller or None" in caplog.text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "holds no token"),
        ("# only a comment\n\n", "holds no token"),
        ("operate otto", "line 1: has 2 words"),
        ("\nadmin otto sixteen-characters", "line 2: begins with no role; there are: view, operate"),
        ("view vera too-short", "line 1: the token has 9 characters; at least 16"),
        ("view vera sixteen-characterß", "visible ASCII"),
        ("view ve.ra sixteen-characters", "no full stop"),
        ("view vera sixteen-characters; view vera sixteen-characterz", "line 2: the name 'vera' is used before"),
        ("view vera sixteen-characters; operate olaf sixteen-characters", "line 2: the token is that of 'vera'"),
    ],
)
def test_a_token_file_that_makes_no_sense_is_refused(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "tokens"
    file.write_text(text)
    with pytest.raises(InvalidInput) as refused:
        Tokens.load(file, None, {})
    assert told in str(refused.value)
    assert str(file) in str(refused.value)
    assert "sixteen" not in str(refused.value)


def test_tokens_come_from_a_file_and_from_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"# people\noperate otto {OPERATOR}\n")
    found = Tokens.load(file, "TASKS_TOKENS", {"TASKS_TOKENS": f"view vera {VIEWER}; view g {VIEWER}2"})
    known = {secret: found.find(secret) for secret in (OPERATOR, VIEWER, f"{VIEWER}2", "another-one-of-them")}
    assert [token and (token.caller.name, token.caller.role) for token in known.values()] == [
        ("otto", "operate"), ("vera", "view"), ("g", "view"), None,
    ]  # fmt: skip
    assert OPERATOR not in repr(list(known.values()))
    assert not Tokens.load(None, None, {})
    with pytest.raises(InvalidInput, match="variable TASKS_TOKENS: is not set"):
        Tokens.load(None, "TASKS_TOKENS", {})
    with pytest.raises(InvalidInput, match="cannot be read"):
        Tokens.load(tmp_path / "nothing", None, {})


# --- sessions of browsers -------------------------------------------------------------------------------------------


async def sign_in(client: httpx.AsyncClient, token: str = OPERATOR, **fields: str) -> httpx.Response:
    return await client.post("/login", data={"token": token, **fields}, headers={"Sec-Fetch-Site": "same-origin"})


async def test_a_token_opens_a_session_and_signing_out_ends_it() -> None:
    async with house(guarded_access()) as service, service.visitor() as browser:
        sent_away = await browser.get("/sagas?status=failed", headers=PAGE)
        assert (sent_away.status_code, sent_away.headers["location"]) == (303, "/login?next=%2Fsagas%3Fstatus%3Dfailed")
        form = await browser.get(sent_away.headers["location"])
        assert 'value="/sagas?status=failed"' in form.text
        let_in = await sign_in(browser, next="/sagas?status=failed")
        assert (let_in.status_code, let_in.headers["location"]) == (303, "/sagas?status=failed")
        cookie = let_in.headers["set-cookie"]
        assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
        assert OPERATOR not in cookie
        assert (await browser.get("/v1/sagas")).status_code == 200
        assert (await browser.post("/v1/sagas", json=saga())).status_code == 201
        left = await browser.post("/logout")
        assert (left.status_code, left.headers["location"]) == (303, "/login")
        problem(await browser.get("/v1/sagas"), 401, "unauthorized")


async def test_a_service_that_is_mounted_elsewhere_leads_to_its_own_addresses() -> None:
    async with house(guarded_access()) as service:
        whole = httpx.ASGITransport(Starlette(routes=[Mount("/tasks", app=service.app)]))
        async with httpx.AsyncClient(transport=whole, base_url=HERE) as browser:
            sent_away = await browser.get("/tasks/sagas", headers=PAGE)
            assert sent_away.headers["location"] == "/tasks/login?next=%2Fsagas"
            form = await browser.get(sent_away.headers["location"])
            assert 'action="/tasks/login"' in form.text
            fields = {"token": OPERATOR, "next": "/v1/sagas"}
            let_in = await browser.post("/tasks/login", data=fields)
            assert let_in.headers["location"] == "/tasks/v1/sagas"
            started = await browser.post("/tasks/v1/sagas", json=saga())
            assert started.json()["url"] == started.headers["location"]
            assert (await browser.get(started.headers["location"])).status_code == 200


async def test_over_tls_the_cookie_is_for_tls_only() -> None:
    async with house(guarded_access()) as service, service.visitor("https://tasks.example.com") as browser:
        assert "Secure" in (await sign_in(browser)).headers["set-cookie"].split("; ")
    async with house(guarded_access()) as service:
        for forwarded, secure in {
            "https": True,
            "https, http": True,
            "HTTPS ,http": True,
            "http, https": False,
        }.items():
            headers = {"X-Forwarded-Proto": forwarded}  # TLS ends in the outermost proxy
            answer = await service.client.post("/login", data={"token": OPERATOR}, headers=headers)
            assert ("Secure" in answer.headers["set-cookie"].split("; ")) is secure, forwarded
        assert "Secure" not in (await sign_in(service.client)).headers["set-cookie"].split("; ")


async def test_a_wrong_token_opens_nothing_and_is_not_repeated(caplog: pytest.LogCaptureFixture) -> None:
    async with house(guarded_access()) as service:
        for token in ("", "some-guess-of-somebody", "x" * 20_000):
            refused = await sign_in(service.client, token)
            assert refused.status_code == 403
            assert "set-cookie" not in refused.headers
            assert 'role="alert"' in refused.text
            assert "some-guess" not in refused.text + caplog.text


@pytest.mark.parametrize(
    "wanted", ["//evil.com", "https://evil.com", "/\\evil.com", "evil", "/a\r\nb", "", "//[", "//[::1", "//[v1.x]y"]
)
async def test_signing_in_leads_nowhere_else(wanted: str) -> None:
    async with house(guarded_access()) as service:
        form = await service.client.get("/login", params={"next": wanted})
        assert (form.status_code, 'name="next" value="/">' in form.text) == (200, True)
        assert (await sign_in(service.client, next=wanted)).headers["location"] == "/"


async def test_a_session_that_was_tampered_with_or_is_over_counts_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with house(guarded_access()) as service:
        await sign_in(service.client, VIEWER)
        value = service.client.cookies[COOKIE]
        name, until, session_id, signature = value.split(".")
        service.client.cookies.clear()
        bad = [
            f"otto.{until}.{session_id}.{signature}",
            f"{name}.{int(until) + 1}.{session_id}.{signature}",
            f"{name}.{until}.{session_id}0.{signature}",
            f"{name}.{until}.{session_id}.",
            f"{name}.{until}.{signature}",
            "é.1.2",
        ]
        for cookie in [*bad, f"{value}0", value]:
            headers = {b"Cookie": f"{COOKIE}={cookie}".encode()}
            answer = await service.client.get("/v1/sagas", headers=headers)
            assert answer.status_code == (200 if cookie == value else 401), cookie
        monkeypatch.setattr("time.time", lambda: float(until))
        assert (await service.client.get("/v1/sagas", headers={"Cookie": f"{COOKIE}={value}"})).status_code == 401


async def test_signing_out_ends_a_copy_of_the_cookie_and_no_other_session() -> None:
    async with house(guarded_access()) as service, service.visitor() as other:
        await sign_in(other)
        await sign_in(service.client)
        copied = {"Cookie": f"{COOKIE}={service.client.cookies[COOKIE]}"}
        await service.client.post("/logout")
        async with service.visitor() as thief:
            problem(await thief.get("/v1/sagas", headers=copied), 401, "unauthorized")
        assert (await other.get("/v1/sagas")).status_code == 200


def test_the_oldest_sign_out_is_forgotten_at_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1000.0)
    monkeypatch.setattr("dotmac.tasks.service.sessions._MOST_ENDED", 3)
    ended = EndedSessions()
    for session_id, until in {"a": 2000, "over": 1000, "b": 2000, "c": 2000}.items():
        ended.add(session_id, until)
    assert [name for name in ("a", "over", "b", "c") if name in ended] == ["a", "b", "c"]
    ended.add("d", 2000)
    assert [name for name in ("a", "b", "c", "d") if name in ended] == ["b", "c", "d"]


async def test_a_session_ends_with_its_token() -> None:
    async with house(guarded_access()) as service:
        await sign_in(service.client)
        cookie = {"Cookie": f"{COOKIE}={service.client.cookies[COOKIE]}"}
    other = Tokens.parse(f"operate otto {OPERATOR}-of-tomorrow", "test")
    async with house(Access(other, hosts=None)) as service:
        problem(await service.client.get("/v1/sagas", headers=cookie), 401, "unauthorized")


# --- where a change comes from ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example.com"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://127.0.0.1:8080"},
    ],
)
async def test_a_page_of_another_origin_changes_nothing(service: House, headers: dict[str, str]) -> None:
    problem(await service.client.post("/v1/sagas", json=saga(), headers=headers), 403, "cross-origin")
    async with house(guarded_access()) as guarded:
        problem(await guarded.client.post("/login", data={"token": OPERATOR}, headers=headers), 403, "cross-origin")
        await sign_in(guarded.client)
        problem(await guarded.client.post("/v1/sagas", json=saga(), headers=headers), 403, "cross-origin")
        problem(await guarded.client.post("/logout", headers=headers), 403, "cross-origin")


@pytest.mark.parametrize(
    "headers",
    [{}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}, {"Origin": "http://127.0.0.1:8080"}],
)
async def test_this_origin_and_programs_change_what_they_may(service: House, headers: dict[str, str]) -> None:
    assert (await service.client.post("/v1/sagas", json=saga(), headers=headers)).status_code == 201


async def test_an_origin_on_its_schemes_own_port_is_the_same(service: House) -> None:
    headers = {"Host": "localhost", "Origin": "http://localhost"}
    assert (await service.client.post("/v1/sagas", json=saga(), headers=headers)).status_code == 201
    headers = {"Host": "localhost:443", "Origin": "https://localhost"}
    assert (await service.client.post("/v1/sagas", json=saga(), headers=headers)).status_code == 201


async def test_a_page_that_is_refused_gets_words_and_a_program_a_document(service: House) -> None:
    refused = await service.client.post("/sagas/x/cancel", headers={**PAGE, "Sec-Fetch-Site": "cross-site"})
    assert (refused.status_code, refused.headers["content-type"]) == (403, "text/plain; charset=utf-8")


# --- what leaves ------------------------------------------------------------------------------------------------------


async def test_every_answer_carries_the_headers(service: House) -> None:
    answers = [
        await service.client.get("/v1/sagas"),
        await service.client.get("/login"),
        await service.client.get("/nothing"),
        await service.client.get("/v1/sagas", headers={"Host": "evil.example.com"}),
        await service.client.post("/v1/sagas", headers={"Origin": "https://evil.example.com"}),
    ]
    for answer in answers:
        for name, value in SECURITY_HEADERS.items():
            assert answer.headers[name] == value
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        assert "Access-Control-Allow-Origin" not in answer.headers
