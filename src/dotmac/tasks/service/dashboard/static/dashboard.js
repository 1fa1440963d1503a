// Keeps the region #live fresh: fetches the page that is open and takes the region out of it. It does so whenever the
// region's stream of events tells that something happened; without a stream, and while there is none, at intervals.
// Everything works without this script; the page is then as fresh as its loading.
"use strict";

(() => {
  const region = () => document.getElementById("live");
  const bar = document.querySelector("[data-live-bar]");
  const status = document.querySelector("[data-live-status]");
  const toggle = document.querySelector("[data-live-toggle]");
  const COMEBACK = 2000; // milliseconds until a stream that ended is asked for again
  const UNHEARD = 5000; // milliseconds between two looks while the stream tells nothing: what lasts gets longer
  const SHORTEST = 300;
  let paused = false;
  let busy = false;
  let timer = 0;
  let lookedAt = 0;
  let news = false;
  let stream = null;
  let streaming = false;

  const retry = document.querySelector("[data-retry]");
  if (retry) setTimeout(() => location.reload(), 1000 * Number(retry.dataset.retry));

  const first = region();
  if (!first || !first.dataset.live) return;
  bar.hidden = false;
  toggle.addEventListener("click", () => {
    paused = !paused;
    toggle.setAttribute("aria-pressed", String(paused));
    toggle.textContent = paused ? "Resume updates" : "Pause updates";
    wake(!paused);
  });
  // A page that nobody sees gives its stream back: browsers have but six connections for all pages of a service.
  document.addEventListener("visibilitychange", () => wake(!document.hidden));
  let seen = first.dataset.seen || "";
  schedule();
  listen();

  function wake(awake) {
    if (!awake) return stream?.abort();
    refresh();
    listen();
  }

  function schedule() {
    clearTimeout(timer);
    const { live, least } = region().dataset;
    const pause = 1000 * Number(live || 5);
    const soonest = lookedAt + Math.max(1000 * Number(least || 0), SHORTEST) - Date.now();
    timer = setTimeout(refresh, news ? Math.max(soonest, 0) : streaming ? Math.max(pause, UNHEARD) : pause);
  }

  async function listen() {
    const { events } = region().dataset;
    if (!events || stream || paused || document.hidden) return;
    const mine = stream = new AbortController();
    let again = true;
    try {
      const headers = { Accept: "text/event-stream", ...(seen && { "Last-Event-ID": seen }) };
      const answer = await fetch(events, { headers, signal: mine.signal, redirect: "error" });
      // What was refused stays refused, and 204 says that nothing more will come.
      again = answer.status === 200 || answer.status >= 500;
      if (answer.status === 200) await read(answer.body.pipeThrough(new TextDecoderStream()).getReader());
    } catch (error) {
      // The connection is gone. Until there is another one, the page is looked at at intervals.
    } finally {
      stream = null;
      streaming = false;
      schedule();
      if (again) setTimeout(listen, COMEBACK);
    }
  }

  async function read(reader) {
    streaming = true;
    let rest = "";
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      const events = (rest + part.value).split("\n\n");
      rest = events.pop();
      for (const event of events) {
        seen = /^id: (.*)$/m.exec(event)?.[1] ?? seen;
        news ||= /^event: /m.test(event);
      }
      schedule();
    }
  }

  async function refresh() {
    lookedAt = Date.now();
    if (busy || paused || document.hidden || selecting()) return schedule();
    busy = true;
    news = false;
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" }, redirect: "error" });
      if (!answer.ok) throw new Error(`${answer.status}`);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.getElementById("live");
      if (!fresh) throw new Error("not this page any more");
      if (!paused) replace(region(), fresh);
      status.textContent = "";
      document.body.classList.remove("stale");
    } catch (error) {
      status.textContent = "No answer: what you see may be old. Trying again…";
      document.body.classList.add("stale");
    } finally {
      busy = false;
      schedule();
    }
  }

  // Text that somebody is selecting must not vanish under the pointer.
  function selecting() {
    const selection = getSelection();
    return Boolean(selection && !selection.isCollapsed && region().contains(selection.anchorNode));
  }

  function replace(old, fresh) {
    if (old.innerHTML === fresh.innerHTML) return;
    for (const details of old.querySelectorAll("details[open][id]")) {
      const same = fresh.querySelector(`#${CSS.escape(details.id)}`);
      if (same) same.open = true;
    }
    const focused = old.contains(document.activeElement) ? placeOf(document.activeElement, old) : null;
    const scrolled = [...old.querySelectorAll(".scroll, pre")].map((box) => box.scrollLeft);
    old.replaceWith(document.adoptNode(fresh));
    [...fresh.querySelectorAll(".scroll, pre")].forEach((box, index) => { box.scrollLeft = scrolled[index] || 0; });
    if (focused) focused(fresh)?.focus({ preventScroll: true });
  }

  // How to find the focused element again: the same link, or the summary of the same details, or the same place.
  function placeOf(element, within) {
    if (element.matches("a[href]")) {
      const href = element.getAttribute("href");
      return (root) => root.querySelector(`a[href="${CSS.escape(href)}"]`);
    }
    const details = element.closest("details[id]");
    if (element.matches("summary") && details) {
      return (root) => root.querySelector(`#${CSS.escape(details.id)} > summary`);
    }
    const index = [...within.querySelectorAll(element.tagName)].indexOf(element);
    return (root) => root.querySelectorAll(element.tagName)[index];
  }
})();
