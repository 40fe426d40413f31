"""The page for a person at the listener for administrators: it shows /status.json, and asks for it every two seconds.

Owns:    the page, and the policy that it lives with: nothing from elsewhere, no style and no script but its own.
Never:   holds a thread, or knows more than /status.json tells.
Used by: handlers.status.
"""

import base64
import hashlib
from typing import Final

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1c2024; --dim: #5b6570; --line: #d9dee3; --back: #fff; --card: #f5f7f9;
  --blue: #0b62b8; --good: #146c2e; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7eaed; --dim: #9aa5b0; --line: #343b43; --back: #14171a;
  --card: #1d2226; --blue: #7db8f5; --good: #79d191; --bad: #ff9a92; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1rem; background: var(--back); color: var(--ink);
  font: 1rem/1.45 system-ui, sans-serif; font-variant-numeric: tabular-nums; }
header { display: flex; flex-wrap: wrap; gap: .25rem 1rem; align-items: baseline; margin-bottom: 1rem; }
h1 { font-size: 1.25rem; margin: 0; }
h2 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
#state { font-weight: 600; }
.good { color: var(--good); } .bad { color: var(--bad); }
.dim, dt, th, caption { color: var(--dim); }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(10.5rem, 1fr)); gap: .75rem; margin: 0; }
dl div { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .6rem .75rem; }
dt { font-size: .85rem; } dd { margin: 0; font-size: 1.35rem; overflow-wrap: anywhere; }
svg { display: block; width: 100%; height: 2.25rem; margin-top: .25rem; }
polyline { fill: none; stroke: var(--blue); stroke-width: 1.5; vector-effect: non-scaling-stroke; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: right; padding: .35rem .6rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 500; font-size: .85rem; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
@media (max-width: 30rem) { th, td { padding: .35rem .3rem; font-size: .85rem; } }
:focus-visible { outline: 2px solid var(--blue); outline-offset: 2px; }
"""

_SCRIPT: Final = """
"use strict";
const PERIOD = 2000, POINTS = 90;
const at = id => document.getElementById(id);
const count = n => n < 1e4 ? String(Math.round(n)) : Intl.NumberFormat("en", {notation: "compact",
  maximumFractionDigits: 1}).format(n);
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
const lines = {};
function draw(id, value) {
  const points = lines[id] = [...(lines[id] || []), value].slice(-POINTS), top = Math.max(...points, 1e-9);
  at(id + "-line").setAttribute("points",
    points.map((p, i) => (POINTS - points.length + i) + "," + (29 - 28 * p / top).toFixed(2)).join(" "));
}
function rows(body, table) {
  body.replaceChildren(...table.map(cells => {
    const row = document.createElement("tr");
    row.append(...cells.map(text => {
      const cell = document.createElement("td");
      cell.textContent = text;
      return cell;
    }));
    return row;
  }));
}
function state(text, good) {
  const element = at("state");
  if (element.textContent !== text) element.textContent = text;
  element.className = good ? "good" : "bad";
}
let before = null;
function show(now, when) {
  const crew = now.workers.filter(w => w.crew === now.crew), t = now.totals;
  const ready = crew.filter(w => w.state === "ready").length;
  state(now.stopping ? "stopping" : `serving, ${ready} of ${crew.length} workers ready`, now.ready);
  at("since").textContent = "counted since " + new Date(now.since * 1000).toLocaleString();
  if (before && before.since === now.since && when > before.when) {
    const rate = name => Math.max(0, t[name] - before.totals[name]) / (when - before.when) * 1000;
    at("rate").textContent = count(rate("requests")) + " /s";
    at("sent").textContent = bytes(rate("bytes_sent")) + "/s";
    draw("rate", rate("requests"));
    draw("sent", rate("bytes_sent"));
  }
  at("open").textContent = count(t.connections_open);
  draw("open", t.connections_open);
  at("queue").textContent = `${count(now.filled_slots)} of ${count(now.capacity)}`;
  draw("queue", now.filled_slots);
  rows(at("times"), [["queue", "queue_wait"], ["answer", "answer_time"]].map(([name, key]) => {
    const d = now.times[key];
    return [name, ...["p50_s", "p90_s", "p99_s", "p999_s"].map(p => seconds(d[p])), count(d.count)];
  }));
  rows(at("answers"), [["1xx", "2xx", "3xx", "4xx", "5xx"].map(c => count(t["responses_" + c]))]);
  rows(at("workers"), now.workers.map(w => [w.slot, w.state, w.pid || "-", w.generation, age(w.age_s), w.waiting,
    w.counters.connections_open, w.counters.threads_busy, count(w.counters.requests)]));
  at("events").textContent = `${now.restarts} workers replaced, ${now.reloads} reloads, ` +
    `queue full ${now.saturations} times, ${t.failures} errors of ours, ${t.deadlines} ended by a deadline`;
  before = {...now, when};
}
async function look() {
  try {
    const answer = await fetch("status.json", {signal: AbortSignal.timeout(5 * PERIOD)});
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
    line = f'<svg viewBox="0 0 89 30" preserveAspectRatio="none" aria-hidden="true"><polyline id="{name}-line"/></svg>'
    return f'<div><dt>{title}</dt><dd id="{name}">-</dd>{line}</div>'


def _table(name: str, title: str, *columns: str) -> str:
    heads = "".join(f'<th scope="col">{column}</th>' for column in columns)
    return (
        f'<h2 id="{name}-title">{title}</h2>\n'
        f'<div class="wide" tabindex="0" role="region" aria-labelledby="{name}-title">'
        f'<table><thead><tr>{heads}</tr></thead><tbody id="{name}"></tbody></table></div>\n'
    )


_TILES: Final = "\n".join(
    _tile(name, title)
    for name, title in (
        ("rate", "requests"),
        ("sent", "sent"),
        ("open", "open connections"),
        ("queue", "waiting in the queue"),
    )
)
_TABLES: Final = (
    _table("times", "Times, of all since the start", "", "50 %", "90 %", "99 %", "99.9 %", "count")
    + _table("answers", "Answers by class of status", "1xx", "2xx", "3xx", "4xx", "5xx")
    + _table(
        "workers",
        "Workers",
        *("slot", "state", "pid", "generation", "age", "waiting", "open", "busy threads", "requests"),
    )
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
<header><h1>pyserver</h1><span id="state" role="status">asking</span><span id="since" class="dim"></span></header>
<main>
<dl>
{_TILES}
</dl>
{_TABLES}<h2>Since the start</h2>
<p id="events"></p>
</main>
<noscript><p>This page needs a script to be alive; <a href="status.json">status.json</a> has the numbers.</p></noscript>
<script>{_SCRIPT}</script>
</body>
</html>
""".encode()


def _hash(text: str) -> str:
    """Return the source expression by which a policy knows this and nothing else (CSP3 2.3.1, hash-source)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


POLICY: Final = (
    f"default-src 'none'; script-src {_hash(_SCRIPT)}; style-src {_hash(_STYLE)}; connect-src 'self'; img-src data:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
).encode()
