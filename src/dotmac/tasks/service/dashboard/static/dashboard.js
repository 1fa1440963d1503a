// Keeps the region #live fresh: fetches the page that is open and takes the region out of it.
// Everything works without this script; the page is then as fresh as its loading.
"use strict";

(() => {
  const region = () => document.getElementById("live");
  const bar = document.querySelector("[data-live-bar]");
  const status = document.querySelector("[data-live-status]");
  const toggle = document.querySelector("[data-live-toggle]");
  let paused = false;
  let busy = false;
  let timer = 0;

  const retry = document.querySelector("[data-retry]");
  if (retry) setTimeout(() => location.reload(), 1000 * Number(retry.dataset.retry));

  const first = region();
  if (!first || !first.dataset.live) return;
  bar.hidden = false;
  toggle.addEventListener("click", () => {
    paused = !paused;
    toggle.setAttribute("aria-pressed", String(paused));
    toggle.textContent = paused ? "Resume updates" : "Pause updates";
    if (!paused) refresh();
  });
  document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
  schedule();

  function schedule() {
    clearTimeout(timer);
    timer = setTimeout(refresh, 1000 * Number(region().dataset.live || 5));
  }

  async function refresh() {
    if (busy || paused || document.hidden || selecting()) return schedule();
    busy = true;
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
