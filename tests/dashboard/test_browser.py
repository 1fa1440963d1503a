"""The dashboard in a real Chromium, beside a real `dotmac-tasks serve`: by keyboard, on a phone, in light and dark."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect, sync_playwright

from dashboard.stage import SAGAS
from support.processes import port_candidates, spawn, wait_until

TESTS = Path(__file__).parents[1]
VIEW, OPERATE = "view-token-of-the-test-0123456789", "operate-token-of-the-test-0123456789"
PATIENCE = 20.0
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
PAGES = ["/", "/sagas", "/keys", "/locks", "/workers", "/settings", "/sagas/nothing"]

PROVOKED = ("status of 403", "status of 404", "ERR_FAILED")
"""What the tests themselves make the browser complain of."""

pytestmark = pytest.mark.browser
expect.set_options(timeout=PATIENCE * 1000)


def chromium() -> str | None:
    return os.environ.get("TEST_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


@dataclass
class Service:
    """A running `dotmac-tasks serve`.

    Attributes:
        ids: Saga ids by their names in `SAGAS`.
    """

    url: str
    ids: dict[str, str] = field(default_factory=dict)

    def call(self, method: str, path: str, **options: Any) -> Any:
        headers = {"Authorization": f"Bearer {OPERATE}"}
        answer = httpx.request(method, self.url + path, headers=headers, timeout=PATIENCE, **options)
        answer.raise_for_status()
        return answer.json()

    def start(self, name: str) -> str:
        body = {"tenant_id": "acme", "workflow_type": name, "steps": SAGAS[name]}
        saga_id: str = self.call("POST", "/v1/sagas", json=body)["saga_id"]
        return saga_id

    def status(self, saga_id: str) -> str:
        status: str = self.call("GET", f"/v1/sagas/{saga_id}")["status"]
        return status

    def wait_for(self, saga_id: str, status: str) -> None:
        wait_until(lambda: self.status(saga_id) == status, seconds=PATIENCE, what=f"{saga_id} is {status}")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    tokens = folder / "tokens"
    tokens.write_text(f"view vera {VIEW}\noperate otto {OPERATE}\n")
    tokens.chmod(0o600)
    port = next(port_candidates())
    command = [
        str(Path(sys.executable).parent / "dotmac-tasks"), "serve", "dashboard.browser_app:manager",
        "--bind", f"127.0.0.1:{port}", "--token-file", str(tokens), "--log-level", "warning",
    ]  # fmt: skip
    made = Service(f"http://127.0.0.1:{port}")
    with (folder / "log").open("wb") as log:
        process = spawn(command, cwd=TESTS, stdout=log, stderr=log)
    try:
        _wait_until_it_answers(made, process, folder / "log")
        made.ids = {name: made.start(name) for name in SAGAS}
        made.wait_for(made.ids["unknown"], "failed")
        yield made
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == 0, (folder / "log").read_text()


def _wait_until_it_answers(service: Service, process: subprocess.Popen[bytes], log: Path) -> None:
    def answers() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            return httpx.get(f"{service.url}/health/ready").status_code == HTTPStatus.OK
        except httpx.TransportError:
            return False

    wait_until(answers, seconds=PATIENCE, what="the service answers")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = chromium()
    if path is None:
        pytest.skip("no chromium: apt-get install chromium, or set TEST_CHROMIUM to its path")
    # Once a test before has imported trio-asyncio, new loops are its own, and one that runs would be a trio run around
    # all tests that follow.
    plain = pytest.MonkeyPatch()
    plain.setattr(asyncio, "new_event_loop", asyncio.SelectorEventLoop)
    with sync_playwright() as playwright:
        plain.undo()
        launched = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield launched
        launched.close()


@pytest.fixture
def open_page(browser: Browser, service: Service) -> Iterator[Callable[..., Page]]:
    """Opens pages of a context of their own, signed in; fails the test for any complaint of the browser."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def opened(path: str = "/", token: str | None = OPERATE, **options: Any) -> Page:
        context = browser.new_context(base_url=service.url, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
        page.on("request", lambda call: None if call.url.startswith(service.url) else complaints.append(call.url))
        if token is not None:
            page.goto(f"/login?next={path}")
            page.get_by_label("Token").fill(token)
            page.get_by_role("button", name="Sign in").click()
        else:
            page.goto(path)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert [line for line in complaints if not any(known in line for known in PROVOKED)] == []


def test_the_keyboard_is_enough_to_sign_in_and_to_walk_about(open_page: Callable[..., Page]) -> None:
    page = open_page("/sagas?status=failed", token=None)
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    expect(page.get_by_label("Token")).to_be_focused()
    page.keyboard.type("wrong-token-of-the-test-000000000")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("not known")
    expect(page.get_by_label("Token")).to_be_focused()
    page.keyboard.type(OPERATE)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Sagas", level=1)).to_be_visible()
    assert page.url.endswith("/sagas?status=failed")
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to content")
    expect(skip).to_be_focused()
    assert skip.evaluate("link => getComputedStyle(link).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")  # into what is on the page, past its head
    assert page.evaluate("document.getElementById('main').contains(document.activeElement)")


def test_the_overview_renews_itself_and_can_be_paused(open_page: Callable[..., Page], service: Service) -> None:
    page = open_page("/")
    first = service.start("completed")
    expect(page.get_by_role("link", name=first)).to_be_visible()
    page.get_by_role("button", name="Pause updates").click()
    resume = page.get_by_role("button", name="Resume updates")
    expect(resume).to_have_attribute("aria-pressed", "true")
    second = service.start("completed")
    service.wait_for(second, "completed")
    page.wait_for_timeout(3500)  # longer than a page waits between two looks
    assert page.get_by_role("link", name=second).count() == 0
    resume.click()
    expect(page.get_by_role("link", name=second)).to_be_visible()


def test_a_saga_is_live_by_its_stream_which_is_asked_for_again(
    open_page: Callable[..., Page], service: Service
) -> None:
    saga_id = service.start("running")
    page = open_page("/")
    asked: list[str] = []

    def never(route: Route) -> None:
        """The page without its intervals, so that nothing but the stream can renew it."""
        answer = route.fetch()
        route.fulfill(response=answer, body=answer.text().replace('data-live="2"', 'data-live="3600"'))

    def stream(route: Route) -> None:
        asked.append(route.request.headers.get("last-event-id", ""))
        if len(asked) == 1:
            route.fulfill(status=200, content_type="text/event-stream", body="retry: 2000\n\nid: 5\n")
        else:
            route.continue_()

    page.route(f"**/sagas/{saga_id}", never)
    page.route(f"**/v1/sagas/{saga_id}/events", stream)
    with page.expect_request(lambda call: call.url.endswith("/events") and bool(asked)):  # the second one
        page.goto(f"/sagas/{saga_id}")
    service.call("POST", f"/v1/sagas/{saga_id}/cancel", json={})
    expect(page.locator("h1 .badge")).to_have_text("compensated")
    assert len(asked) == 2
    assert asked[0] == asked[1]
    assert asked[0].startswith("3-")  # all that the page shows already; half an event is none
    assert page.locator("#live[data-events]").count() == 0


def test_without_its_stream_a_saga_is_looked_at_at_intervals(open_page: Callable[..., Page], service: Service) -> None:
    saga_id = service.start("running")
    page = open_page("/")
    page.route("**/v1/**", lambda route: route.abort())
    page.goto(f"/sagas/{saga_id}")
    expect(page.locator("h1 .badge")).to_have_text("in progress")
    service.call("POST", f"/v1/sagas/{saga_id}/cancel", json={})
    expect(page.locator("h1 .badge")).to_have_text("compensated")


def test_what_is_old_says_so_and_focus_survives_a_renewal(open_page: Callable[..., Page], service: Service) -> None:
    page = open_page(f"/sagas/{service.ids['running']}")
    journal = page.locator("#journal > summary")
    journal.focus()
    page.keyboard.press("Enter")
    page.evaluate("document.getElementById('live').dataset.mark = 'old'")
    expect(page.locator("#live[data-mark]")).to_have_count(0)  # it was replaced
    expect(journal).to_be_focused()
    expect(page.locator("#journal[open]")).to_have_count(1)
    page.route("**/*", lambda route: route.abort())
    expect(page.get_by_role("status")).to_contain_text("may be old")
    page.unroute("**/*")
    expect(page.get_by_role("status")).to_have_text("")


def test_a_running_saga_is_cancelled_after_a_question(open_page: Callable[..., Page], service: Service) -> None:
    saga_id = service.start("running")
    page = open_page(f"/sagas/{saga_id}")
    expect(page.locator(".timeline .running")).to_contain_text("attempt 1")
    page.get_by_role("link", name="Cancel…").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Cancel this saga?")).to_be_visible()
    page.get_by_role("link", name="Leave it as it is").click()
    assert service.status(saga_id) == "in_progress"
    page.get_by_role("link", name="Cancel…").click()
    expect(page.get_by_label("Reason")).to_be_focused()
    page.keyboard.type("no longer <b>wanted</b>")
    page.keyboard.press("Enter")
    expect(page.locator("h1 .badge")).to_have_text("compensated")
    expect(page.locator(".timeline .operator")).to_contain_text("cancel, asked for by otto")
    expect(page.locator(".timeline .operator .note")).to_have_text("no longer <b>wanted</b>")


def test_a_parked_saga_is_retried_without_scripts(open_page: Callable[..., Page], service: Service) -> None:
    saga_id = service.start("unknown")
    service.wait_for(saga_id, "failed")
    page = open_page("/sagas?status=failed", java_script_enabled=False)
    page.get_by_role("link", name=saga_id).click()
    expect(page.get_by_text("Failed: an operator decides.")).to_be_visible()
    page.get_by_role("link", name="Retry…").click()
    page.get_by_label("Reason").fill("mended")
    page.get_by_role("button", name="Retry the saga").click()
    expect(page.get_by_text("The saga goes on.")).to_be_visible()
    service.wait_for(saga_id, "failed")
    page.reload()
    expect(page.locator(".timeline").get_by_text("retry, asked for by otto")).to_be_visible()
    expect(page.locator(".timeline").get_by_text("resumed by an operator")).to_be_visible()


def test_a_viewer_sees_no_buttons(open_page: Callable[..., Page], service: Service) -> None:
    page = open_page(f"/sagas/{service.ids['unknown']}", token=VIEW)
    expect(page.get_by_text("(view only)")).to_be_visible()
    assert page.get_by_role("link", name="Retry…").count() == 0


CONTRAST = """() => {
  const channel = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const back = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const weak = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.getClientRects().length || element.closest("svg, .skip, .unseen, option")) continue;
    const pair = [light(parse(getComputedStyle(element).color)), light(back(element))].sort((a, b) => b - a);
    const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
    if (ratio < 4.5) weak.push(`${element.tagName}.${element.className} ${ratio.toFixed(2)}`);
  }
  return weak;
}"""


# What is too wide depends on the width alone, what is too faint on the scheme: two of the four pairs show both.
@pytest.mark.parametrize(("scheme", "width", "height"), [("light", 1280, 900), ("dark", 360, 740)])
def test_every_page_can_be_read_on_every_screen(
    open_page: Callable[..., Page], service: Service, scheme: str, width: int, height: int
) -> None:
    page = open_page("/", viewport={"width": width, "height": height}, color_scheme=scheme)
    sagas = [f"/sagas/{saga_id}" for saga_id in service.ids.values()]
    for path in [*PAGES, *sagas, f"{sagas[3]}/retry", "/login"]:
        page.goto(path)
        for summary in page.locator("summary").all():
            summary.click()
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{path} is {wide} pixels too wide"
        assert page.evaluate(CONTRAST) == [], path
