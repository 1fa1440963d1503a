"""Every page in every role, without a browser: what it shows, what it hides, what it refuses."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from typing import Any
from urllib.parse import quote

import pytest
import trio

from dashboard.stage import HOSTILE, OPERATOR, SECRET, VIEWER, Stage, stage, step
from dotmac.tasks import (
    BackgroundOperationsManager,
    Finding,
    MemoryStorage,
    OperationStatus,
    StorageUnavailable,
    Verdict,
)
from dotmac.tasks.service.dashboard.site import Visitor
from dotmac.tasks.service.dashboard.values import LARGEST_VALUE
from dotmac.tasks.service.redaction import HIDDEN, Redaction
from dotmac.tasks.storage.history import HistoryPosition

PAGES = ["/", "/sagas", "/sagas?status=failed&tenant_id=acme", "/keys", "/locks", "/workers", "/settings"]


@pytest.fixture
async def full() -> AsyncIterator[Stage]:
    async with stage() as made:
        yield made


@pytest.fixture
async def empty() -> AsyncIterator[Stage]:
    async with stage(sagas=False) as made:
        yield made


class Outline(HTMLParser):
    """What tags a page has, and which attributes that a policy without inline code would block."""

    VOID = frozenset({"meta", "link", "img", "input", "br", "wbr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inline: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
        self.inline += [name for name, _ in attrs if name == "style" or name.startswith("on")]
        if tag == "style" or (tag == "script" and "src" not in dict(attrs)):
            self.inline.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def check(text: str) -> None:
    """What holds for each page: its outline is sound, nothing inline, nothing from elsewhere, headings in order."""
    outline = Outline(text)
    assert outline.inline == []
    for tag in ("header", "main", "footer", "h1", "title"):
        assert outline.count(tag) == 1, tag
    ids = [attrs["id"] for _, attrs in outline.tags if "id" in attrs]
    assert len(set(ids)) == len(ids)
    for tag, attrs in outline.tags:
        for name in ("href", "src", "action"):
            assert not (attrs.get(name) or "").startswith(("http:", "https:", "//", "javascript:")), (tag, attrs)
        if tag == "th":
            assert attrs.get("scope") in ("col", "row")
        for reference in (attrs.get("aria-labelledby") or "").split():
            assert reference in ids
    assert outline.count("table") == outline.count("caption") == outline.count("thead")
    levels = [int(tag[1]) for tag, _ in outline.tags if re.fullmatch(r"h\d", tag)]
    assert all(after <= before + 1 for before, after in zip([0, *levels], levels, strict=False))


async def test_a_large_value_is_shown_as_its_size(full: Stage) -> None:
    results = {"large": LARGEST_VALUE + 1, "small": 100}
    steps = [step(name, result=f"{name}-" + "x" * size) for name, size in results.items()]
    handle = await full.manager.start_saga(tenant_id="t", workflow_type="w", steps=steps)
    await handle.result()
    page = await full.get(f"/sagas/{handle.saga_id}")
    check(page)
    assert ("small-xxx" in page, "large-xxx" in page) == (True, False)
    assert f"{LARGEST_VALUE + 9:,} bytes of JSON, too many for this page" in page


async def test_many_values_are_shown_up_to_a_bound(full: Stage) -> None:
    steps = [step(f"s{number}", result=f"value{number}-" + "x" * 60_000) for number in range(15)]
    handle = await full.manager.start_saga(tenant_id="t", workflow_type="w", steps=steps)
    await handle.result()
    assert len(await full.get(f"/sagas/{handle.saga_id}")) < 2_000_000


async def test_a_page_tells_its_stream_which_entries_it_shows(full: Stage) -> None:
    full.site.streams = True
    page = await full.get(f"/sagas/{full.ids['running']}")
    found = re.search(r'data-seen="([^"]+)"', page)
    assert found is not None
    history = await full.manager.get_saga_history(full.ids["running"])
    assert HistoryPosition.parse(found[1]) == HistoryPosition.end_of(history)


@pytest.mark.parametrize("visitor", [VIEWER, OPERATOR, Visitor("<b>", may_operate=True, can_leave=True)])
async def test_every_page_renders_for_every_role(full: Stage, visitor: Visitor) -> None:
    full.visitor = visitor
    async with full.manager.lock("invoice:42"):
        for address in [*PAGES, *(f"/sagas/{saga_id}" for saga_id in full.ids.values())]:
            check(await full.get(address))
    assert ("Sign out" in await full.get("/")) is visitor.can_leave


async def test_pages_have_words_for_nothing(empty: Stage) -> None:
    for address in PAGES:
        check(await empty.get(address))
    assert "There are no sagas yet" in await empty.get("/")
    assert "No saga matches" in await empty.get("/sagas?tenant_id=nobody")
    assert "No lock is held" in await empty.get("/locks")


async def test_the_overview_tells_what_needs_attention(full: Stage) -> None:
    page = await full.get("/")
    assert "<strong>2 failed.</strong>" in page
    assert full.ids["parked"] in page
    uninstall = full.site.activity.install()
    await (
        await full.manager.start_saga(tenant_id="t", workflow_type="w", steps=[{"name": "a", "operation": "do"}])
    ).result()
    uninstall()
    assert "Attempts per five seconds" in await full.get("/")


async def test_a_list_is_filtered_and_has_pages(full: Stage) -> None:
    parked = await full.get("/sagas?status=failed")
    assert (full.ids["parked"] in parked, full.ids["completed"] in parked) == (True, False)
    assert '<option value="failed" selected>failed</option>' in parked
    for _ in range(60):
        await full.manager.create_saga_workflow("pager", "many", [{"name": "a", "operation": "do"}])
    first = await full.get("/sagas?tenant_id=pager")
    older = re.search(r'rel="next" href="([^"]+)"', first)
    assert older is not None
    second = await full.get(older[1].replace("&amp;", "&"))
    ids = [set(re.findall(r'href="/sagas/([0-9a-f-]+)"', page)) for page in (first, second)]
    assert [len(page) for page in ids] == [50, 10]
    assert not ids[0] & ids[1]
    assert "data-live" not in re.sub(r"data-live-\w+", "", second)  # a page of the past stays as it is
    assert "No saga matches" in await full.get("/sagas?created_before=2000-01-01T00:00")
    assert full.ids["parked"] in await full.get("/sagas?created_after=2000-01-01T00:00&status=failed")
    assert "must be a time such as" in await full.get("/sagas?created_after=yesterday", 400)
    answer = await full.client.get("/sagas?saga_id=%20some/id%20")
    assert (answer.status_code, answer.headers["location"]) == (303, "/sagas/some%2Fid")
    assert "there is no status &#39;nonsense&#39;" in await full.get("/sagas?status=nonsense", 400)


async def test_a_saga_is_shown_with_its_timeline(full: Stage) -> None:
    page = await full.get(f"/sagas/{full.ids['completed']}")
    for words in ("attempt 1: failed", "ValueError: busy", "waits for its next attempt", "attempt 2: completed"):
        assert words in page
    assert "undo, attempt 1: completed" in await full.get(f"/sagas/{full.ids['compensated']}")
    parked = await full.get(f"/sagas/{full.ids['parked']}")
    assert "compensation of step &#39;charge&#39; did not succeed: NonRetryableError: refund refused" in parked


async def test_hostile_values_are_text(full: Stage) -> None:
    quoted = quote(HOSTILE, safe="")
    for address in ("/sagas", "/", f"/sagas/{full.ids['hostile']}", f"/sagas?tenant_id={quoted}", f"/sagas/{quoted}"):
        answer = await full.client.get(address)
        check(answer.text)
        assert "<script>alert" not in answer.text
        assert "&lt;script&gt;alert(1)&lt;/script&gt;&#34;&#39;&gt;&amp;" in answer.text


async def test_secrets_are_hidden_in_parameters_results_and_history(full: Stage) -> None:
    for name in ("completed", "compensated"):
        page = await full.get(f"/sagas/{full.ids[name]}")
        assert SECRET not in page
        assert page.count(HIDDEN) >= 1
    full.site.redaction = Redaction([])
    assert SECRET in await full.get(f"/sagas/{full.ids['completed']}")


async def test_an_operator_retries_a_parked_saga_and_it_stands_in_its_history(
    full: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    saga_id = full.ids["unknown"]
    page = await full.get(f"/sagas/{saga_id}")
    assert f'href="/sagas/{saga_id}/retry"' in page
    check(await full.get(f"/sagas/{saga_id}/retry"))
    assert (await full.manager.get_saga(saga_id)).status is OperationStatus.FAILED  # asking changes nothing
    with caplog.at_level(logging.INFO, "dotmac.tasks.audit"):
        answer = await full.client.post(f"/sagas/{saga_id}/retry", data={"reason": "  bank\nanswers again "})
    assert (answer.status_code, answer.headers["location"]) == (303, f"/sagas/{saga_id}?done=retry")
    assert "The saga goes on" in await full.get(answer.headers["location"])
    history = await full.manager.get_saga_history(saga_id)
    (note,) = [line for line in history if line.event == "operator_retry"]
    assert note.details == {"who": "otto", "reason": "bank answers again"}
    assert any(line.event == "saga_resumed" for line in history)
    (record,) = [record for record in caplog.records if record.name == "dotmac.tasks.audit"]
    assert (vars(record)["saga_id"], vars(record)["who"]) == (saga_id, "otto")
    page = await full.get(f"/sagas/{saga_id}")
    assert "retry, asked for by otto" in page


async def test_an_operator_chooses_the_step_that_a_parked_saga_goes_on_from(full: Stage) -> None:
    saga_id = full.ids["parked"]
    offered = await full.get(f"/sagas/{saga_id}/retry")
    assert '<option value="ship">step 2: ship</option>' in offered
    assert "step 1: charge" not in offered  # it was not undone, so it would be done twice
    answer = await full.client.post(f"/sagas/{saga_id}/retry", data={"from_step": "charge", "reason": "r"})
    assert (answer.status_code, "is not undone" in answer.text) == (409, True)
    answer = await full.client.post(f"/sagas/{saga_id}/retry", data={"from_step": "ship", "reason": "r"})
    assert answer.status_code == 303
    history = await full.manager.get_saga_history(saga_id)
    (resumed,) = [line for line in history if line.event == "saga_resumed"]
    assert resumed.details == {"reason": "r", "from_step": "ship"}
    assert "forward again from step ship; r" in await full.get(f"/sagas/{saga_id}")


async def test_an_operator_cancels_a_running_saga_and_turns_an_unknown_pivot_back(full: Stage) -> None:
    for name, action in (("running", "cancel"), ("unknown", "turn-back")):
        saga_id = full.ids[name]
        check(await full.get(f"/sagas/{saga_id}/{action}"))
        answer = await full.client.post(f"/sagas/{saga_id}/{action}", data={"reason": "r"})
        assert answer.status_code == 303
        with trio.fail_after(10):
            assert (await full.manager.saga_handle(saga_id).result()).status is OperationStatus.COMPENSATED
        assert "The saga was asked to turn back" in await full.get(answer.headers["location"])


async def test_what_means_nothing_is_refused_and_the_refusal_is_noted(full: Stage) -> None:
    saga_id = full.ids["completed"]
    assert "there is nothing to retry now" in await full.get(f"/sagas/{saga_id}/retry", 409)
    answer = await full.client.post(f"/sagas/{saga_id}/retry", data={"reason": "r"})
    assert answer.status_code == 409
    answer = await full.client.post(f"/sagas/{saga_id}/retry", data={"reason": "  "})
    assert (answer.status_code, "reason: is required" in answer.text) == (400, True)
    events = [line.event for line in await full.manager.get_saga_history(saga_id)]
    assert events[-2:] == ["operator_retry", "operator_retry_refused"]
    for data, words in (({"reason": "x" * 501}, "at most 500"), ({"reason": "x" * 20_000}, "more than 16384 bytes")):
        answer = await full.client.post(f"/sagas/{full.ids['unknown']}/retry", data=data)
        assert (answer.status_code, words in answer.text) == (400, True)
    assert (await full.manager.get_saga(full.ids["unknown"])).status is OperationStatus.FAILED


async def test_who_may_only_view_cannot_operate(full: Stage) -> None:
    full.visitor = VIEWER
    saga_id = full.ids["parked"]
    assert f"/sagas/{saga_id}/retry" not in await full.get(f"/sagas/{saga_id}")
    assert "Your role is to view" in await full.get(f"/sagas/{saga_id}/retry", 403)
    assert (await full.client.post(f"/sagas/{saga_id}/retry", data={})).status_code == 403
    assert (await full.manager.get_saga(saga_id)).status is OperationStatus.FAILED
    events = [line.event for line in await full.manager.get_saga_history(saga_id)]
    assert "operator_retry" not in events


async def test_a_filter_that_a_page_does_not_have_is_refused(full: Stage) -> None:
    for address, named in (
        ("/sagas?tenant=acme", "tenant: this page has no such filter"),
        ("/keys?status=x", "status:"),
    ):
        page = await full.get(address, 400)
        assert named in page
    assert "tenant_id" in await full.get("/sagas?tenant_id=acme")


async def test_a_step_that_never_ran_in_a_saga_that_ended_is_not_pending(full: Stage) -> None:
    handle = await full.manager.start_saga(
        tenant_id="acme", workflow_type="order", steps=[step("a", fails="no", final=True), step("b")]
    )
    assert (await handle.result()).status is OperationStatus.COMPENSATED
    page = await full.get(f"/sagas/{handle.saga_id}")
    assert "not run" in page
    assert "pending" not in page.partition("Steps")[2].partition("History")[0]


async def test_the_key_of_a_failed_saga_is_told_as_such(full: Stage) -> None:
    handle = await full.manager.start_saga(
        tenant_id="acme", workflow_type="order", steps=[step("pay", kind="pivot", fails="unknown")], idempotency_key="k"
    )
    assert (await handle.result()).status is OperationStatus.FAILED
    page = await full.get("/keys")
    assert '<span class="badge failed">saga failed</span>' in page
    assert "in progress" not in page


async def test_what_is_not_there_has_a_page(full: Stage) -> None:
    for address in ("/nothing", "/sagas/nothing", f"/sagas/{full.ids['parked']}/explode"):
        page = await full.get(address, 404)
        check(page)
        assert "Not found" in page


async def test_a_storage_that_is_away_is_told_and_looked_at_again(full: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_args: Any, **_kwargs: Any) -> Any:
        raise StorageUnavailable("redis:6379 did not answer")

    monkeypatch.setattr(MemoryStorage, "count_sagas", away)
    page = await full.get("/", 503)
    check(page)
    assert "redis:6379 did not answer" in page
    assert 'data-retry="5"' in page
    check(await full.get("/settings"))  # it tells what is wrong, so it needs no storage


async def test_the_settings_show_findings_with_their_remedies(full: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    async def examine(_storage: Any) -> list[Finding]:
        return [
            Finding("version", Verdict.OK, "Valkey 8", "h:1"),
            Finding("eviction", Verdict.PROBLEM, "may throw <away>", "h:1", "redis-cli CONFIG SET x y"),
        ]

    monkeypatch.setattr(MemoryStorage, "examine", examine)
    page = await full.get("/settings")
    check(page)
    assert "<code>redis-cli CONFIG SET x y</code>" in page
    assert "may throw &lt;away&gt;" in page
    assert "DOTMAC_TASKS_WORKER_LEASE" in page
    assert "REDIS_URL" not in page


async def test_workers_are_listed_with_what_delays_their_handlers(full: Stage) -> None:
    await full.manager.storage.register_worker("busy", 10, {"troubles": "charge is full: <2> run\n3 threads"})
    page = await full.get("/workers")
    check(page)
    assert "charge is full: &lt;2&gt; run" in page
    assert "3 threads" in page


async def test_a_worker_that_stops_is_shown_as_draining(full: Stage) -> None:
    await full.manager.storage.register_worker("stopping", 10, {"state": "draining"})
    assert '<span class="badge warn">draining</span>' in await full.get("/workers")


async def test_idempotency_keys_are_listed_without_what_they_hold(full: Stage) -> None:
    assert "No idempotency key." in await full.get("/keys")
    for number in range(60):
        await full.manager.create_idempotency_key("acme", None, "charge", f"key-{number}", {"password": SECRET})
    steps = [{"name": "a", "operation": "do"}]
    handle = await full.manager.start_saga(tenant_id="shop", workflow_type="w", steps=steps, idempotency_key="k")
    await handle.result()
    page = await full.get("/keys")
    check(page)
    assert SECRET not in page
    further = re.search(r'rel="next" href="([^"]+)"', page)
    assert further is not None
    second = await full.get(further[1].replace("&amp;", "&"))
    pattern = r'class="id whole"><span>([0-9a-f]{32}<wbr>[0-9a-f]{32})<'
    keys = [set(re.findall(pattern, each)) for each in (page, second)]
    assert [len(each) for each in keys] == [50, 11]
    assert not keys[0] & keys[1]
    of_shop = await full.get("/keys?tenant_id=shop")
    assert f'href="/sagas/{handle.saga_id}"' in of_shop
    assert "charge" not in of_shop


async def test_locks_and_workers_are_listed(full: Stage) -> None:
    async with full.manager.lock("invoice:<42>"):
        page = await full.get("/locks")
        one = await full.get("/locks/invoice%3A%3C42%3E")
        check(one)
        assert "Nobody waits for it" in one
    assert "invoice:&lt;42&gt;" in page
    assert 'href="/locks/invoice%3A%3C42%3E"' in page
    free = await full.get("/locks/a/b")
    check(free)
    assert "Nobody holds it" in free
    (worker,) = await full.manager.list_workers()
    page = await full.get("/workers")
    assert worker.worker_id in page
    assert ">alive</span>" in page


async def test_a_lock_is_shown_with_its_queue(full: Stage) -> None:
    other = BackgroundOperationsManager(full.manager.storage, works=False)

    async def hold() -> None:
        async with other.lock("invoice"):
            await trio.sleep_forever()

    async with other, full.manager.lock("invoice"), trio.open_nursery() as nursery:
        nursery.start_soon(hold)
        with trio.fail_after(10):
            while not (await full.manager.inspect_lock("invoice")).queue:  # noqa: ASYNC110 - nothing tells of it
                await trio.sleep(0.01)
        page = await full.get("/locks/invoice")
        check(page)
        (lock,) = await full.manager.list_locks()
        assert page.count(lock.owner) == 2
        assert "1 waiting" in await full.get("/locks")
        nursery.cancel_scope.cancel()


async def test_what_pages_are_drawn_with_is_served_from_here(full: Stage) -> None:
    page = await full.get("/")
    for _, attrs in Outline(page).tags:
        address = attrs.get("src") or attrs.get("href") or ""
        if address.startswith("/static/"):
            assert (await full.client.get(address)).status_code == 200
