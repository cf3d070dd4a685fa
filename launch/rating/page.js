"use strict";

// ---- what was rated: knows nothing of the page ----------------------------------------------------------------------

// The same ids in another order for each rater: Fisher and Yates, with mulberry32 started by the FNV-1a of the name.
function shuffled(ids, rater) {
  let state = 2166136261;
  for (const letter of rater) state = Math.imul(state ^ letter.charCodeAt(0), 16777619);
  const random = () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
  const order = [...ids];
  for (let last = order.length - 1; last > 0; last--) {
    const other = Math.floor(random() * (last + 1));
    [order[last], order[other]] = [order[other], order[last]];
  }
  return order;
}

function newRater() {
  return [...crypto.getRandomValues(new Uint8Array(8))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

class Session {
  // `stored` is what text() gave, or anything else: then the session starts anew.
  constructor(page, ids, stored = null) {
    let found = null;
    try { found = JSON.parse(stored); } catch { /* damaged: as if there were none */ }
    const usable = found && typeof found.rater === "string" && found.given && typeof found.given === "object";
    this.page = page;
    this.rater = usable ? found.rater : newRater();
    this.name = usable && typeof found.name === "string" ? found.name : "";
    this.saved = Boolean(usable && found.saved);
    this.order = shuffled(ids, this.rater);
    const scored = usable ? ids.filter((id) => [1, 2, 3, 4, 5].includes(found.given[id]?.score)) : [];
    this.given = new Map(scored.map((id) => [id, { score: found.given[id].score, seconds: found.given[id].seconds }]));
    this.position = this.reach();
  }

  // How far one may go: the first picture without a score, or the end.
  reach() {
    const open = this.order.findIndex((id) => !this.given.has(id));
    return open < 0 ? this.order.length : open;
  }

  get id() { return this.order[this.position]; }
  get finished() { return this.position === this.order.length; }

  give(score, seconds) {
    this.given.set(this.id, { score, seconds: Math.round(seconds * 10) / 10 });
    this.saved = false;
    this.position = this.reach();
  }

  // Whether there was anywhere to go.
  move(step) {
    const before = this.position;
    this.position = Math.max(0, Math.min(before + step, this.reach()));
    return this.position !== before;
  }

  text() {
    const { rater, name, saved } = this;
    return JSON.stringify({ rater, name, saved, given: Object.fromEntries(this.given) });
  }

  // The file for whoever made the page.
  sheet(moment) {
    const { page, rater, name } = this;
    const scores = this.order.filter((id) => this.given.has(id)).map((id) => ({ id, ...this.given.get(id) }));
    return { page, rater, name, saved: moment.toISOString(), scores };
  }
}

// Seconds since the last restart, without those in which nobody saw the page.
function stopwatch(clock) {
  let spent = 0;
  let since = clock();
  return {
    restart() { spent = 0; since = clock(); },
    pause() { if (since !== null) { spent += clock() - since; since = null; } },
    resume() { since ??= clock(); },
    seconds: () => (spent + (since === null ? 0 : clock() - since)) / 1000,
  };
}

// ---- the page -------------------------------------------------------------------------------------------------------

// Two clicks in quick succession are one: nobody has seen the next picture yet.
const BLINK = 0.25;

function start(document, window, clock = () => performance.now()) {
  const part = (id) => document.getElementById(id);
  const { page, pictures, items } = JSON.parse(part("data").textContent);
  const shown = new Map(items.map((item) => [item.id, item]));
  const place = `gesso rating ${page}`;
  const watch = stopwatch(clock);

  // A browser may refuse to keep anything (private windows, files): the page works all the same, until it is closed.
  let keeps = true;
  const kept = (action) => {
    try { return action(window.localStorage); } catch { keeps = false; return null; }
  };
  let session = new Session(page, [...shown.keys()], kept((storage) => storage.getItem(place)));
  const keep = () => kept((storage) => storage.setItem(place, session.text()));

  function show() {
    const { order, position, given, finished } = session;
    const total = order.length;
    part("progress").textContent = finished ? `${total} of ${total} rated` : `${position + 1} of ${total}`;
    part("bar").max = total;
    part("bar").value = given.size;
    part("rating").hidden = part("question").hidden = finished;
    part("end").hidden = !finished;
    part("another").hidden = !finished;
    part("back").disabled = position === 0;
    part("forward").disabled = position === session.reach();
    part("save").disabled = given.size === 0;
    part("note").textContent = keeps ? "" : "This browser keeps nothing: save your scores before you close the page.";
    if (finished) part("end").focus();
    else present(shown.get(session.id), given.get(session.id));
    watch.restart();
  }

  function present(item, answer) {
    for (const role of ["content", "style", "result"]) {
      const there = item[role] !== null;
      part(`${role}-figure`).hidden = !there;
      if (there) part(role).src = pictures[item[role]];
    }
    for (let score = 1; score <= 5; score++) {
      part(`score-${score}`).setAttribute("aria-pressed", String(answer !== undefined && answer.score === score));
    }
  }

  function give(score) {
    if (session.finished || watch.seconds() < BLINK) return;
    session.give(score, watch.seconds());
    keep();
    show();
  }

  function move(step) {
    if (session.move(step)) show();
  }

  function save() {
    const sheet = new Blob([JSON.stringify(session.sheet(new Date()), null, 1)], { type: "application/json" });
    const link = document.createElement("a");
    link.href = URL.createObjectURL(sheet);
    link.download = `scores-${session.page.slice(0, 8)}-${session.rater.slice(0, 8)}.json`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    session.saved = true;
    keep();
    part("note").textContent = `Saved as ${link.download}, where your browser puts downloads.`;
  }

  function another() {
    if (!session.saved && !window.confirm("These scores are not saved yet. Start anew without them?")) return;
    session = new Session(page, [...shown.keys()]);
    part("name").value = "";
    keep();
    show();
  }

  for (let score = 1; score <= 5; score++) part(`score-${score}`).addEventListener("click", () => give(score));
  part("back").addEventListener("click", () => move(-1));
  part("forward").addEventListener("click", () => move(1));
  part("save").addEventListener("click", save);
  part("another").addEventListener("click", another);
  part("name").addEventListener("input", () => { session.name = part("name").value; session.saved = false; keep(); });
  document.addEventListener("keydown", (event) => {
    if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || event.target.id === "name") return;
    if (/^[1-5]$/.test(event.key)) give(Number(event.key));
    else if (event.key === "ArrowLeft") move(-1);
    else if (event.key === "ArrowRight") move(1);
  });
  document.addEventListener("visibilitychange", () => { if (document.hidden) watch.pause(); else watch.resume(); });
  window.addEventListener("beforeunload", (event) => {
    if (!keeps && !session.saved && session.given.size) event.preventDefault();
  });
  part("name").value = session.name;
  // Kept from the start: the order is the rater's, and a reload must not make another of them.
  keep();
  show();
}

// Tests load this file without a page.
if (typeof module === "object") module.exports = { shuffled, Session, stopwatch, start };
else start(document, window);
