// The pings that arrived on this page with the time each took, and the server's own account.

import { el, keyed, setAttr, setText, show, svg } from "../dom.js";
import { count, dayUnlessToday, duration, timeOfDay } from "../format.js";
import { median } from "../pings.js";

const SPARKS = 20;
const SPARK_HEIGHT = 36;
const SCALE_FLOOR_MS = 10;

/** The last pings and their latencies. */
export function pingsCard(store) {
  const middle = el("span", { class: "big", data: { testid: "latency-median" } });
  const figure = el("p", { class: "figure" }, middle, " ", el("span", { class: "muted", text: "median, change to ping" }));
  const spark = sparkline();
  const list = el("ol", { class: "ping-list", tabindex: "0", "aria-label": "Last pings" });
  const empty = el("p", { class: "hint", text: "No ping yet. Flip a flag, here or in another window, and watch it arrive." });
  store.watch((s) => [s.log.pings], (pings) => {
    const ms = median(pings);
    setText(middle, ms === null ? "–" : duration(ms));
    show(figure, pings.length > 0);
    show(empty, pings.length === 0);
    spark.update(pings);
    keyed(list, pings, (ping) => ping.revision, pingItem);
    show(list, pings.length > 0);
  });
  return el("section", { class: "card pings", "aria-labelledby": "pings-title" },
    el("div", { class: "card-head" }, el("h2", { id: "pings-title", text: "Last pings" })),
    el("div", { class: "pings-top" }, figure, spark.node), empty, list);
}

function pingItem({ revision }) {
  const what = el("span", { class: "ping-what" });
  const latency = el("span", { class: "ping-latency mono" });
  const how = el("span", { class: "ping-how" });
  const time = el("time", { class: "mono" });
  const server = el("span", { class: "ping-server" });
  const node = el("li", { data: { testid: "ping-item", revision } },
    el("span", { class: "ping-revision mono", text: revision, title: "Revision" }), what, latency,
    el("span", { class: "ping-when" }, time, server), how);
  function update(ping) {
    setText(what, changesText(ping));
    setAttr(what, "title", changesText(ping));
    setAttr(node, "data-source", ping.source);
    setText(latency, latencyText(ping));
    setText(how, howText(ping));
    setText(time, timeOfDay(ping.wallAt));
    setAttr(time, "datetime", new Date(ping.wallAt).toISOString());
    setText(server, ping.serverMs === null ? "" : ` · server ${duration(ping.serverMs)}`);
  }
  return { node, update };
}

function changesText({ changes, kind }) {
  if (changes.length === 0) return kind === "catch-up" ? "caught up after a pause" : "";
  const [first, ...others] = changes;
  const text = `${first.key} ${first.text}`;
  return others.length ? `${text}, ${others.length} more` : text;
}

function latencyText({ latencyMs, source }) {
  if (latencyMs === null) return "";
  return source === "clock" ? `≈ ${duration(latencyMs)}` : duration(latencyMs);
}

function howText({ source, kind }) {
  if (source === "click") return "click → ping";
  if (source === "clock") return "commit → ping";
  return kind === "catch-up" ? "on reconnect" : "from elsewhere";
}

// Bars of the last latencies, the newest on the right. Timed clicks are solid, the others lighter.
function sparkline() {
  const bars = Array.from({ length: SPARKS }, (_, i) =>
    svg("rect", { x: i * 6, width: 4, rx: 1, y: SPARK_HEIGHT, height: 0 }));
  const node = svg("svg", { class: "spark", viewBox: `0 0 ${SPARKS * 6 - 2} ${SPARK_HEIGHT}`, role: "img" }, ...bars);
  function update(pings) {
    const known = pings.filter((ping) => ping.latencyMs !== null).slice(0, SPARKS).reverse();
    const most = Math.max(SCALE_FLOOR_MS, ...known.map((ping) => ping.latencyMs));
    bars.forEach((bar, i) => {
      const ping = known[i - (SPARKS - known.length)];
      const height = ping ? Math.max(2, (SPARK_HEIGHT * Math.max(0, ping.latencyMs)) / most) : 2;
      setAttr(bar, "height", height);
      setAttr(bar, "y", SPARK_HEIGHT - height);
      setAttr(bar, "class", ping ? ping.source : "none");
    });
    setAttr(node, "aria-label", `Last ${count(known.length, "latency").replace("latencys", "latencies")}, at most ${duration(most)}`);
    node.toggleAttribute("hidden", pings.length === 0);
  }
  return { node, update };
}

/** What the server knows of its last pings; for the live view, where there is room. */
export function serverPingsCard(store) {
  const body = el("tbody");
  const table = el("table", {},
    el("thead", {}, el("tr", {}, ...["Revision", "Committed", "Change → ping", "Streams"].map((text) => el("th", { scope: "col", text })))),
    body);
  const empty = el("p", { class: "hint", text: "None since the server started." });
  store.watch((s) => [s.streams], (streams) => {
    const pings = streams?.pings ?? [];
    keyed(body, pings, (ping) => ping.revision, serverRow);
    show(table, pings.length > 0);
    show(empty, pings.length === 0);
  });
  return el("section", { class: "card server-pings", "aria-labelledby": "server-pings-title" },
    el("div", { class: "card-head" }, el("h2", { id: "server-pings-title", text: "Pings as the server sent them" })),
    table, empty);
}

function serverRow(ping) {
  const cells = Array.from({ length: 4 }, () => el("td", { class: "mono" }));
  const node = el("tr", {}, ...cells);
  function update({ revision, committed_at: at, change_to_ping_ms: ms, streams }) {
    setText(cells[0], revision);
    setText(cells[1], at ? `${dayUnlessToday(at)} ${timeOfDay(at)}`.trim() : "");
    setText(cells[2], ms === null || ms === undefined ? "" : duration(ms));
    setText(cells[3], streams);
  }
  return { node, update };
}
