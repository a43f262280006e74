"use strict";
// Samples come once a second; charts keep the last five minutes of them.
const KEPT = 300;
const $ = (id) => document.getElementById(id);
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const COLOURS = ["#2f7ed8", "#e0862c", "#2ca25f", "#c0392b", "#8e5bd0", "#16a3b0"];

const short = (value) => {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  if (size >= 1e9) return (value / 1e9).toFixed(1) + " G";
  if (size >= 1e6) return (value / 1e6).toFixed(1) + " M";
  if (size >= 1e4) return (value / 1e3).toFixed(1) + " k";
  if (size >= 100 || Number.isInteger(value)) return Math.round(value).toString();
  return value.toFixed(size >= 1 ? 1 : 2);
};
const bytes = (value) => (value === null || value === undefined ? "–" : short(value / 1048576) + " MiB");
const milli = (value) => (value === null || value === undefined ? "–" : short(value * 1000) + " ms");

// Samples, and what lies between two of them.
const samples = [];
const now = () => samples[samples.length - 1];
const metric = (sample, name) => sample.metrics?.[name] ?? null;
const part = (sample, name, want) => {
  const by = sample.metrics?.[name];
  if (!by) return null;
  return Object.entries(by).reduce((sum, [label, value]) => (want(label) ? sum + value : sum), 0);
};
// Counters begin anew with a process: then there is no rate for a moment.
const between = (read) => (sample, before) => {
  if (!before) return null;
  const [from, to] = [read(before), read(sample)];
  return from === null || to === null || to < from ? null : (to - from) / (sample.at - before.at);
};
const rate = (name) => between((sample) => metric(sample, name));
const mean = (name) => (sample, before) => {
  const [sum, count] = [rate(name + "_sum")(sample, before), rate(name + "_count")(sample, before)];
  return count ? sum / count : null;
};
const level = (name) => (sample) => metric(sample, name);
const requests = (want) => between((sample) => part(sample, "gateway_http_requests_total by status", want));
const limited = (want) => between((sample) => part(sample, "gateway_ratelimit_decisions_total by policy, decision", want));

const CHARTS = [
  ["Requests a second", short, [["all", requests(() => true)], ["4xx", requests((s) => s[0] === "4")], ["5xx", requests((s) => s[0] === "5")]]],
  ["Mean time of a request", milli, [["time", mean("gateway_http_request_duration_seconds")]]],
  ["Clients", short, [["clients", level("gateway_clients")], ["users", level("gateway_users")], ["sessions", level("gateway_sessions")]]],
  ["Publications and deliveries a second", short, [["publications", rate("gateway_publications_total")], ["deliveries", rate("gateway_deliveries_total")]]],
  ["Mean time of a delivery", milli, [["time", mean("gateway_delivery_duration_seconds")]]],
  ["Commands a second", short, [["commands", rate("gateway_commands_total")]]],
  ["Limits a second", short, [["let pass", limited((l) => !l.endsWith("refused"))], ["refused", limited((l) => l.endsWith("refused"))]]],
  ["Processors busy", short, [["CPU", rate("process_cpu_seconds_total")]]],
  ["How late the reactor is", milli, [["mean", mean("gateway_reactor_lag_seconds")]]],
  ["Memory", bytes, [["resident", level("process_resident_memory_bytes")]]],
  ["Slow clients", short, [["clients", level("gateway_clients_slow")]]],
  ["Events that wait", short, [["events", level("gateway_events_waiting")]]],
];
const NUMBERS = [
  ["clients", (s) => short(metric(s, "gateway_clients"))],
  ["users", (s) => short(metric(s, "gateway_users"))],
  ["channels", (s) => short(metric(s, "gateway_channels"))],
  ["subscriptions", (s) => short(metric(s, "gateway_subscriptions"))],
  ["requests under way", (s) => short(metric(s, "gateway_http_active_requests"))],
  ["connections", (s) => short(metric(s, "gateway_connections"))],
  ["wait for slow clients", (s) => bytes(metric(s, "gateway_outbox_bytes"))],
  ["ready", (s) => (s.ready ? "yes" : "no"), (s) => !s.ready],
  ["Redis", (s) => ({1: "there", 0: "away"})[metric(s, "gateway_store_up")] ?? "not used", (s) => metric(s, "gateway_store_up") === 0],
  ["new work refused", (s) => short(100 * (metric(s, "gateway_shed_share") ?? 0)) + " %", (s) => metric(s, "gateway_shed_share") > 0],
  ["log lines dropped", (s) => short(metric(s, "gateway_log_dropped_total")), (s) => metric(s, "gateway_log_dropped_total") > 0],
];

const drawn = [];
const element = (name, text, kind) => {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
};

function build() {
  for (const [title, , read] of NUMBERS) {
    const card = element("div", undefined, "card");
    card.append(element("b", "–"), element("span", title));
    $("numbers").append(card);
  }
  for (const [title, unit, lines] of CHARTS) {
    const card = element("div", undefined, "card");
    card.append(element("h2", title));
    $("charts").append(card);
    const axis = {stroke: css("--faint"), grid: {stroke: css("--line"), width: 1}, ticks: {show: false}, font: "12px system-ui"};
    const options = {
      width: card.clientWidth - 34, height: 150, cursor: {y: false}, scales: {y: {range: (_, low, high) => [0, Math.max(high || 0, unit === short ? 1 : 1e-3) * 1.1]}},
      axes: [{...axis, space: 70}, {...axis, size: 58, values: (_, ticks) => ticks.map(unit)}],
      series: [{value: (_, at) => (at ? new Date(at * 1000).toLocaleTimeString() : "–")}, ...lines.map(([label], index) => ({label, stroke: COLOURS[index], width: 1.5, points: {show: false}, value: (_, value) => unit(value)}))],
    };
    drawn.push({card, lines, plot: new uPlot(options, [[], ...lines.map(() => [])], card)});
  }
  new ResizeObserver(() => drawn.forEach(({card, plot}) => plot.setSize({width: card.clientWidth - 34, height: 150}))).observe($("charts"));
}

function table(title, heads, rows) {
  const card = element("div", undefined, "card");
  card.append(element("h2", title));
  if (!rows.length) card.append(element("p", "None.", "none"));
  else {
    const made = element("table"), head = element("tr");
    heads.forEach((text, index) => head.append(element("th", text, index ? "number" : "")));
    made.append(head);
    for (const row of rows) {
      const line = element("tr");
      row.forEach((cell, index) => {
        const [text, kind] = Array.isArray(cell) ? cell : [cell, ""];
        line.append(element("td", text, (index ? "number " : "") + kind));
      });
      made.append(line);
    }
    card.append(made);
  }
  return card;
}

function tables(sample, before) {
  const rated = (name) => (label) => between((s) => part(s, name, (l) => l === label))(sample, before);
  const labels = (name) => Object.keys(sample.metrics?.[name] ?? {}).sort();
  const seldom = samples.findLast((each) => each.instances) ?? {};
  const patterns = new Set([...labels("gateway_publications_total by channels"), ...labels("gateway_deliveries_total by channels")]);
  const targets = (seldom.upstreams ?? []).flatMap((up) => (up.targets ?? []).map((target) => [up, target]));
  $("tables").replaceChildren(
    table("Instances", ["instance", "clients", "users", "channels", "up"], (seldom.instances ?? []).map((node) => [
      node.name ?? node.uid, short(node.num_clients), short(node.num_users), short(node.num_channels), Math.round((node.uptime ?? 0) / 60) + " min"])),
    table("Backends", ["target", "upstream", "under way", "state"], targets.map(([up, target]) => [
      target.target, up.upstream + (up.breaker === "closed" ? "" : ` (breaker ${up.breaker.replace("_", " ")})`), short(target.in_flight),
      target.healthy && !target.ejected_s ? ["used", "good"] : ["left out", "bad"]])),
    table("Channels a second", ["pattern", "publications", "deliveries"], [...patterns].map((label) => [
      label, short(rated("gateway_publications_total by channels")(label)), short(rated("gateway_deliveries_total by channels")(label))])),
    table("Limits a second", ["policy", "rate"], labels("gateway_ratelimit_decisions_total by policy, decision").map((label) => [
      label, short(rated("gateway_ratelimit_decisions_total by policy, decision")(label))])),
    table("Events of sessions", ["", ""], [
      ["wait", short(metric(sample, "gateway_events_waiting"))],
      ["the oldest has waited", short(metric(sample, "gateway_events_oldest_age_seconds")) + " s"],
      ["found no room", short(metric(sample, "gateway_events_overflow"))]]),
  );
}

function show() {
  const sample = now(), before = samples[samples.length - 2];
  NUMBERS.forEach(([, read, bad], index) => {
    const card = $("numbers").children[index];
    card.firstChild.textContent = read(sample);
    card.classList.toggle("bad", Boolean(bad?.(sample)));
  });
  const times = samples.map((each) => each.at);
  for (const {lines, plot} of drawn) {
    plot.setData([times, ...lines.map(([, read]) => samples.map((each, at) => read(each, samples[at - 1])))]);
    if (plot.cursor.idx === null || plot.cursor.left < 0) plot.setLegend({idx: times.length - 1});
  }
  tables(sample, before);
}

function state(text, bad = false) {
  $("state").textContent = text;
  $("state").classList.toggle("bad", bad);
}

let key = "";
const asked = (path, options = {}) => fetch(path, {...options, headers: {Authorization: `Bearer ${key}`}});

const heard = {
  hello(hello) {
    state(`Live, as ${hello.key}.`);
    $("orders").hidden = !(hello.may.reload || hello.may.disconnect);
    $("reload").hidden = !hello.may.reload;
    $("disconnect").hidden = !hello.may.disconnect;
  },
  sample(sample) {
    if (sample.failed) return state(`Something could not be asked: ${sample.failed}`, true);
    if (samples.length && sample.at <= now().at) return;
    samples.push(sample);
    if (samples.length > KEPT) samples.shift();
    show();
  },
};

async function follow() {
  const answer = await asked("/live/samples");
  if (!answer.ok) {
    const problem = await answer.json().catch(() => ({}));
    throw Object.assign(new Error(problem.detail || problem.title || answer.statusText), {refused: answer.status < 500});
  }
  $("ask").hidden = true;
  $("main").hidden = false;
  if (!drawn.length) build();
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const {value, done} = await reader.read();
    if (done) return;
    text += value;
    const events = text.split("\n\n");
    text = events.pop();
    for (const event of events) {
      const [, name, data] = /^event: (\w+)\ndata: (.*)$/s.exec(event) ?? [];
      heard[name]?.(JSON.parse(data));
    }
  }
}

$("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  key = $("key").value;
  for (let wait = 1; ; wait = Math.min(wait * 2, 15)) {
    try {
      await follow();
      wait = 1;
    } catch (error) {
      if (error.refused) return state(error.message, true);
    }
    state("Not connected; trying again.", true);
    await new Promise((resolve) => setTimeout(resolve, wait * 1000));
  }
});

async function order(path, body, told) {
  const answer = await asked(path, {method: "POST", body: body && JSON.stringify(body)}).catch((error) => ({ok: false, statusText: error.message, json: async () => ({})}));
  const said = await answer.json().catch(() => ({}));
  $("said").textContent = answer.ok && !said.error ? told(said) : said.error?.message || said.faults?.join("; ") || said.detail || said.title || answer.statusText;
}
$("disconnect").addEventListener("submit", (event) => {
  event.preventDefault();
  const user = $("user").value;
  order("/api/disconnect", {user}, () => `Every connection of ${user} is closed.`);
});
$("reload").addEventListener("submit", (event) => {
  event.preventDefault();
  order("/reload", undefined, () => "The configuration is in force.");
});
