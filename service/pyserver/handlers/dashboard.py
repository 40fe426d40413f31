"""The page for a person at the listener for administrators: it shows /status.json, and asks for it every two seconds.

Owns:    the page, and the policy that it lives with: nothing from elsewhere, no style and no script but its own.
Never:   holds a thread, or knows more than /status.json tells.
Used by: handlers.status.
"""

import base64
import hashlib
from typing import Final

from pyserver.http.fields import field_value
from pyserver.ipc.stats import COUNTERS, SERVER

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1c2024; --dim: #56606b; --line: #d9dee3; --back: #fff; --card: #f5f7f9;
  --one: #0b62b8; --two: #8a4b08; --three: #7a2a8c; --four: #5b6570; --good: #146c2e; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7eaed; --dim: #9aa5b0; --line: #343b43; --back: #14171a;
  --card: #1d2226; --one: #7db8f5; --two: #f0b26b; --three: #d79be8; --four: #a9b3bd; --good: #79d191;
  --bad: #ff9a92; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1rem; background: var(--back); color: var(--ink);
  font: 1rem/1.45 system-ui, sans-serif; font-variant-numeric: tabular-nums; }
header { display: flex; flex-wrap: wrap; gap: .25rem 1rem; align-items: baseline; margin-bottom: 1rem; }
h1 { font-size: 1.25rem; margin: 0; }
h2 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
button { font: inherit; color: inherit; background: var(--card); border: 1px solid var(--line); border-radius: .4rem;
  padding: .15rem .7rem; margin-left: auto; }
#state { font-weight: 600; }
.good { color: var(--good); } .bad { color: var(--bad); }
.dim, dt, th, figcaption span, time { color: var(--dim); }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .75rem; margin: 0; }
dl div, figure { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .6rem .75rem; }
dt { font-size: .85rem; } dd { margin: 0; font-size: 1.35rem; overflow-wrap: anywhere; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: .75rem;
  margin-top: .75rem; }
figure { margin: 0; }
figcaption { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 1rem; font-size: .85rem; }
svg { display: block; width: 100%; height: 6.5rem; margin-top: .25rem; }
path { fill: none; stroke: var(--one); stroke-width: 1.5; stroke-linecap: round; vector-effect: non-scaling-stroke; }
.l1 { stroke: var(--two); stroke-dasharray: 7 3; } .l2 { stroke: var(--three); stroke-dasharray: 2 4; }
.l3 { stroke: var(--four); stroke-dasharray: 9 3 2 3; }
.grid { stroke: var(--line); stroke-width: 1; stroke-linecap: butt; }
.died { stroke: var(--bad); }
.legend { display: flex; flex-wrap: wrap; gap: 0 1rem; margin: 0; padding: 0; list-style: none; font-size: .85rem; }
.legend svg { display: inline-block; width: 2rem; height: .6rem; margin: 0 .3rem 0 0; }
.lanes, .events { list-style: none; margin: 0; padding: 0; }
.lanes li { display: grid; grid-template-columns: 15rem 1fr 11rem; gap: 0 .75rem; align-items: center;
  border-bottom: 1px solid var(--line); padding: .2rem 0; font-size: .9rem; }
.lanes svg { height: 2rem; margin: 0; }
.lanes li :last-child { text-align: right; }
.events li { padding: .15rem 0; overflow-wrap: anywhere; font-size: .9rem; }
.wide { overflow-x: auto; }
.all th { white-space: normal; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: right; padding: .35rem .6rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 500; font-size: .85rem; }
th:first-child, td:first-child, .all th, .text th:last-child, .text td:last-child { text-align: left; }
th:first-child, td:first-child { padding-left: 0; }
@media (max-width: 40rem) { th, td { padding: .35rem .3rem; font-size: .85rem; }
  .lanes li { grid-template-columns: 1fr auto; } .lanes svg { grid-row: 2; grid-column: 1 / 3; } }
:focus-visible { outline: 2px solid var(--one); outline-offset: 2px; }
"""

_SCRIPT: Final = """
"use strict";
const LOOK = "/status.json?requests", PERIOD = 2000, POINTS = 90, HALF_BUCKET = 2 ** (-1 / 16);
const at = id => document.getElementById(id), SVG = at("took").namespaceURI;
const count = n => n < 1e4 ? String(Math.round(n)) : Intl.NumberFormat("en", {notation: "compact",
  maximumFractionDigits: 1}).format(n);
const persecond = n => count(n) + " /s";
function seconds(s) {
  if (s === null) return "-";
  for (const [limit, factor, unit] of [[1e-3, 1e6, "µs"], [1, 1e3, "ms"]])
    if (s < limit) return Number((s * factor).toPrecision(3)) + " " + unit;
  return Number(s.toPrecision(3)) + " s";
}
function bytes(n) {
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (n < 1024) return n.toFixed(unit === "B" ? 0 : 1) + " " + unit;
    n /= 1024;
  }
  return n.toFixed(1) + " TiB";
}
function age(s) {
  for (const [limit, size, unit] of [[120, 1, "s"], [7200, 60, "min"], [172800, 3600, "h"]])
    if (s < limit) return Math.floor(s / size) + " " + unit;
  return Math.floor(s / 86400) + " d";
}
const share = (part, whole) => whole ? Number((100 * Math.max(0, part) / whole).toFixed(1)) + " %" : "-";

// -- what happened between two looks --------------------------------------------------------------
function between(now, then) {
  const earlier = new Map(then);
  return now.map(([end, n]) => [end, Math.max(0, n - (earlier.get(end) || 0))]);
}
function quantile(buckets, part) {
  const rank = part * buckets.reduce((sum, [, n]) => sum + n, 0);
  let passed = 0;
  for (const [end, n] of buckets) {
    passed += n;
    if (n && passed >= rank) return end * HALF_BUCKET;
  }
  return null;
}

// -- lines ----------------------------------------------------------------------------------------
function element(name, attributes, parent) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return parent.appendChild(made);
}
function outline(points, height) {
  let d = "", drawing = false;
  points.forEach((p, i) => {
    const here = (POINTS - points.length + i) + " " + (p === null ? 0 : height(p)).toFixed(2);
    d += p === null ? "" : drawing ? "L" + here : "M" + here + "h0";
    drawing = p !== null;
  });
  return d;
}
function scale(values, logarithmic) {
  const known = values.filter(v => v !== null && (v > 0 || !logarithmic));
  if (!logarithmic) {
    const top = Math.max(...known, 1);
    return {top, height: v => 39 - 38 * v / top, grid: ""};
  }
  const low = Math.floor(Math.log10(Math.min(...known, 1))), high = Math.ceil(Math.log10(Math.max(...known, 1e-6)));
  const span = Math.max(1, high - low), height = v => 39 - 38 * (Math.log10(v) - low) / span;
  const decades = Array.from({length: span + 1}, (_, n) => 10 ** (low + n));
  return {top: 10 ** (low + span), bottom: 10 ** low, height,
    grid: decades.map(v => "M0 " + height(v).toFixed(2) + "h89").join("")};
}
const kept = {};
function chart(id, values, show, logarithmic) {
  const lines = kept[id] = Object.entries(values).map(([name, value], n) =>
    [name, [...(kept[id] ? kept[id][n][1] : []), value].slice(-POINTS)]);
  const svg = at(id), {top, bottom, height, grid} = scale(lines.flatMap(([, points]) => points), logarithmic);
  const drawn = lines.map(([, points]) => outline(points, height));
  [grid, ...drawn].forEach((d, n) => svg.children[n].setAttribute("d", d));
  at(id + "-scale").textContent = (logarithmic ? show(bottom) : "0") + " to " + show(top);
  const told = Object.entries(values).map(([name, value]) => `${name} ${value === null ? "none" : show(value)}`);
  svg.setAttribute("aria-label", `${svg.dataset.title}, the last three minutes; now ${told.join(", ")}`);
}
const lanes = new Map();
function lane(w, rate, top) {
  let one = lanes.get(w.slot);
  if (!one) {
    const [li, who, what] = ["li", "span", "span"].map(name => document.createElement(name));
    const svg = document.createElementNS(SVG, "svg");
    element("path", {class: "died"}, svg), element("path", {}, svg);
    for (const [key, value] of [["viewBox", "0 0 89 40"], ["preserveAspectRatio", "none"], ["aria-hidden", "true"]])
      svg.setAttribute(key, value);
    li.append(who, svg, what);
    lanes.set(w.slot, one = {li, who, what, svg, points: [], deaths: [], pid: w.pid});
  }
  const died = w.pid !== one.pid && one.pid !== 0;
  one.pid = w.pid;
  one.points = [...one.points, rate].slice(-POINTS);
  one.deaths = [...one.deaths, died].slice(-POINTS);
  const x = i => POINTS - one.deaths.length + i;
  one.svg.children[0].setAttribute("d", one.deaths.map((d, i) => d ? "M" + x(i) + " 0v40" : "").join(""));
  one.svg.children[1].setAttribute("d", outline(one.points, v => 39 - 38 * v / top));
  one.who.textContent = `worker ${w.slot}, pid ${w.pid || "-"}, ${w.state}`;
  one.what.textContent = `${rate === null ? "-" : persecond(rate)}, ${w.counters.connections_open} open`;
  return one.li;
}

// -- tables ---------------------------------------------------------------------------------------
function rows(body, table, none) {
  const made = table.length || !none ? table : [[none]];
  body.replaceChildren(...made.map(cells => {
    const row = document.createElement("tr");
    row.append(...cells.map(text => {
      const cell = document.createElement("td");
      cell.textContent = text;
      return cell;
    }));
    return row;
  }));
  if (made !== table) body.firstChild.firstChild.colSpan = 20;
}
function events(list) {
  at("events").replaceChildren(...list.slice(-12).reverse().map(e => {
    const li = document.createElement("li"), when = document.createElement("time"), kind = document.createElement("b");
    when.textContent = new Date(e.at * 1000).toLocaleTimeString();
    kind.textContent = e.kind;
    kind.className = ["died", "hung", "reload failed"].includes(e.kind) ? "bad" : "";
    li.append(when, " ", kind, ": " + e.text);
    return li;
  }));
}
function say(id, text) {  // a reader of the screen hears it once
  if (at(id).textContent !== text) at(id).textContent = text;
}
function state(text, good) {
  say("state", text);
  at("state").className = good ? "good" : "bad";
}

// -- a look ---------------------------------------------------------------------------------------
let before = null, known = null;
function show(now, when) {
  const crew = now.workers.filter(w => w.crew === now.crew), t = now.totals;
  const ready = crew.filter(w => w.state === "ready").length;
  state(now.stopping ? "stopping" : `serving, ${ready} of ${crew.length} workers ready`, now.ready);
  at("since").textContent = "counted since " + new Date(now.since * 1000).toLocaleString();
  const then = before && before.since === now.since && when > before.when ? before : null;
  const grown = name => Math.max(0, t[name] - then.totals[name]), s = then ? (when - then.when) / 1000 : 0;
  if (then) {
    const rate = name => grown(name) / s, asked = grown("requests");
    at("rate").textContent = persecond(rate("requests"));
    at("sent").textContent = bytes(rate("bytes_sent")) + "/s";
    at("memo").textContent = share(asked - grown("memo_misses"), asked);
    at("disk").textContent = share(grown("file_cache_misses"), asked);
    chart("requests", {"all": rate("requests"), "errors (4xx)": rate("responses_4xx"),
      "errors of the server (5xx)": rate("responses_5xx")}, persecond, false);
    for (const [id, key] of [["took", "answer_time"], ["waited", "queue_wait"]]) {
      const lately = between(now.times[key].buckets, then.times[key].buckets);
      const [p50, p90, p99] = [.5, .9, .99].map(part => quantile(lately, part));
      chart(id, {"50 %": p50, "90 %": p90, "99 %": p99}, seconds, true);
      if (id === "took") at("slow").textContent = seconds(p99);
    }
  }
  at("open").textContent = count(t.connections_open);
  at("queue").textContent = `${count(now.filled_slots)} of ${count(now.capacity)}`;
  chart("connections", {"open": t.connections_open, "waiting in the queue": now.filled_slots}, count, false);
  const rates = new Map(now.workers.map(w => {
    const earlier = then && then.workers.find(e => e.slot === w.slot && e.pid === w.pid);
    return [w, earlier ? Math.max(0, w.counters.requests - earlier.counters.requests) / s : null];
  }));
  for (const slot of lanes.keys()) if (!now.workers.some(w => w.slot === slot)) lanes.delete(slot);
  const top = Math.max(1, ...rates.values(), ...[...lanes.values()].flatMap(one => one.points));
  at("lanes").replaceChildren(...now.workers.map(w => lane(w, rates.get(w), top)));
  rows(at("times"), [["queue", "queue_wait"], ["answer", "answer_time"]].map(([name, key]) => {
    const d = now.times[key];
    return [name, ...["p50_s", "p90_s", "p99_s", "p999_s"].map(p => seconds(d[p])), count(d.count)];
  }));
  rows(at("answers"), [["1xx", "2xx", "3xx", "4xx", "5xx"].map(c => count(t["responses_" + c]))]);
  rows(at("workers"), now.workers.map(w => [w.slot, w.state, w.pid || "-", w.generation, age(w.age_s), w.waiting,
    w.counters.connections_open, w.busy, count(w.counters.requests)]));
  const current = now.workers.flatMap(w => w.requests).filter(r => r.target !== LOOK);  // but for this one
  current.sort((a, b) => b.took_s - a.took_s);
  rows(at("current"), current.slice(0, 20).map(r => [seconds(r.took_s), r.phase, seconds(r.phase_s),
    r.all_of_it ? share(r.sent, r.all_of_it) : "-", r.client, `${r.method} ${r.target}`]),
    "no request is under way for longer than a round");
  events(now.events);
  const told = now.events.map(e => `${e.kind}: ${e.text}`);
  if (known) say("news", told.filter(text => !known.has(text)).join("; ") || at("news").textContent);
  known = new Set(told);
  at("counts").textContent = `${now.restarts} workers replaced, ${now.reloads} reloads, ` +
    `queue full ${now.saturations} times, ${now.accept_pauses} pauses without descriptors, ` +
    `${now.backlog_drops} attempts to connect at a full backlog, ` +
    `${t.connections_lost} connections lost, ${t.failures} errors of ours, ${t.deadlines} ended by a deadline, ` +
    `${t.limited_open + t.limited_connections + t.limited_requests} over a client's limit, ` +
    `${t.shed} refused after too long a wait, ${t.too_slow} ended for being too slow, ` +
    `${t.log_lines_dropped} log lines and ${t.log_records_dropped} records for the journal dropped`;
  for (const [name, n] of Object.entries({...t, restarts: now.restarts, reloads: now.reloads,
    saturations: now.saturations, accept_pauses: now.accept_pauses, backlog_drops: now.backlog_drops}))
    if (at("all-" + name)) at("all-" + name).textContent = n.toLocaleString("en");
  before = {...now, when};
}
let paused = false;
at("pause").addEventListener("click", () => {
  paused = !paused;
  at("pause").setAttribute("aria-pressed", paused);
});
async function look() {
  if (!paused && !document.hidden) try {
    const answer = await fetch(LOOK, {signal: AbortSignal.timeout(5 * PERIOD)});
    if (!answer.ok) throw new Error(answer.status);
    show(await answer.json(), performance.now());
  } catch {
    state("no answer, trying again", false);
  }
  setTimeout(look, PERIOD);
}
look();
"""


def _tile(name: str, title: str) -> str:
    return f'<div><dt>{title}</dt><dd id="{name}">-</dd></div>'


_BOX: Final = 'viewBox="0 0 89 40" preserveAspectRatio="none"'


def _chart(name: str, title: str, *lines: str) -> str:
    paths = "".join(f'<path class="l{number}"/>' for number in range(len(lines)))
    legend = "".join(
        f'<li><svg viewBox="0 0 32 10" aria-hidden="true"><path class="l{number}" d="M0 5h32"/></svg>{line}</li>'
        for number, line in enumerate(lines)
    )
    return (
        f'<figure><figcaption>{title}<span id="{name}-scale"></span></figcaption>'
        f'<svg id="{name}" role="img" data-title="{title}" {_BOX}><path class="grid"/>{paths}</svg>'
        f'<ul class="legend">{legend}</ul></figure>'
    )


def _table(name: str, title: str, *columns: str, kind: str = "") -> str:
    heads = "".join(f'<th scope="col">{column}</th>' for column in columns)
    return (
        f'<h2 id="{name}-title">{title}</h2>\n'
        f'<div class="wide{kind}" tabindex="0" role="region" aria-labelledby="{name}-title">'
        f'<table><thead><tr>{heads}</tr></thead><tbody id="{name}"></tbody></table></div>\n'
    )


_TILES: Final = "\n".join(
    _tile(name, title)
    for name, title in (
        ("rate", "requests"),
        ("slow", "99 % of answers within"),
        ("open", "open connections"),
        ("queue", "waiting in the queue"),
        ("sent", "sent"),
        ("memo", "from the memo"),
        ("disk", "looked for a file"),
    )
)
_PERCENTILES: Final = ("50 %", "90 %", "99 %")
_CHARTS: Final = "\n".join(
    (
        _chart("requests", "Requests per second", "all", "errors (4xx)", "errors of the server (5xx)"),
        _chart("took", "How long answers take", *_PERCENTILES),
        _chart("waited", "How long clients wait for a worker", *_PERCENTILES),
        _chart("connections", "Connections", "open", "waiting in the queue"),
    )
)
_CURRENT: Final = _table(
    "current",
    "Requests under way, the longest first",
    *("took", "phase", "for", "sent", "client", "request"),
    kind=" text",
)
_TABLES: Final = (
    _table(
        "workers",
        "Workers",
        *("slot", "state", "pid", "generation", "age", "waiting", "open", "busy threads", "requests"),
    )
    + _table("times", "Times, of all since the start", "time", "50 %", "90 %", "99 %", "99.9 %", "count")
    + _table("answers", "Answers by class of status", "1xx", "2xx", "3xx", "4xx", "5xx")
)

# Whatever is counted has its row, and nobody has to remember this page.
_ALL: Final = "".join(
    f'<tr><th scope="row">{counter.text}</th><td id="all-{counter.name}">-</td></tr>\n'
    for counter in (*(each for each in SERVER if not each.gauge), *COUNTERS)
    if counter.unit != "nanoseconds"
)

PAGE: Final = f"""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>pyserver</title>
<link rel="icon" href="data:,">
<style>{_STYLE}</style>
</head>
<body>
<header><h1>pyserver</h1><span id="state" role="status">asking</span><span id="since" class="dim"></span>
<button id="pause" type="button" aria-pressed="false">Pause</button></header>
<main>
<p id="news" role="status" class="unseen"></p>
<dl>
{_TILES}
</dl>
<div class="charts">
{_CHARTS}
</div>
<h2>Requests per second of each worker</h2>
<ul id="lanes" class="lanes"></ul>
{_CURRENT}<h2>What happened lately</h2>
<ul id="events" class="events"></ul>
{_TABLES}<h2>Since the start</h2>
<p id="counts"></p>
<details><summary>All counters</summary>
<table class="all"><tbody>
{_ALL}</tbody></table></details>
</main>
<noscript><p>This page needs a script to be alive; <a href="status.json">status.json</a> has the numbers.</p></noscript>
<script>{_SCRIPT}</script>
</body>
</html>
""".encode()


def _hash(text: str) -> str:
    """Return the source expression by which a policy knows this and nothing else (CSP3 2.3.1, hash-source)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


POLICY: Final = field_value(
    f"default-src 'none'; script-src {_hash(_SCRIPT)}; style-src {_hash(_STYLE)}; connect-src 'self'; img-src data:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'".encode()
)
