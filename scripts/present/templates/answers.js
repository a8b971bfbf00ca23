"use strict";
// Which questions are listed, and what the chosen one shows. `answers_page` in present/answers.py describes `data`.
const $ = (id) => document.getElementById(id);
const ITEM = 74; // pixels of one item of the list, as in the style
const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const MANY = 6; // more runs than this: answers folded, marks as a count
const narrow = matchMedia("(max-width: 860px)");
const opened = new Map(); // what a reader has opened or closed: "schema", and the answers by their run
let data;
let task;
let form; // its fields
let state; // what is set of them
let found = []; // the questions that fit
let pending;

// ---- Elements. Nothing here writes HTML: elements are made one by one, and text goes into text nodes.

// make("td.num", { colspan: 2 }, children …): what is null, true or false is left out.
function make(name, ...parts) {
  const [tag, style] = name.split(".");
  const element = document.createElement(tag);
  if (style) element.className = style;
  for (const part of parts.flat(Infinity)) {
    if (part?.constructor === Object) Object.entries(part).forEach((pair) => element.setAttribute(...pair));
    else if (part != null && typeof part !== "boolean") element.append(part);
  }
  return element;
}

// Characters that cannot be seen, or that turn the text around them: each run of the same is shown as its code. Not
// those that join and colour emoji.
const UNSEEN = /((?!\r\n|[\n\t\u200c\u200d\ufe00-\ufe0f])[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\p{DI}\ufff0-\uffff])\1*/gu;

function visible(text) {
  const parts = [];
  let end = 0;
  for (const { 0: all, 1: one, index } of text.matchAll(UNSEEN)) {
    const code = one.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
    const times = all.length > one.length ? ` ×${all.length / one.length}` : "";
    parts.push(text.slice(end, index), make("span.char", `U+${code}${times}`));
    end = index + all.length;
  }
  return [...parts, text.slice(end)];
}

// ---- Words and numbers

const say = (key, values) => data.words[key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
const number = (value, digits = 0) => value.toLocaleString(data.language, {
  minimumFractionDigits: digits, maximumFractionDigits: digits, signDisplay: "negative" }).replace("-", "−");
const plural = (n, unit) => `${number(n)} ${data.words.nouns[unit][n === 1 ? 0 : 1]}`;
const of = (n, all) => say("of", { n: number(n), all });
const part = (n, all, unit) => (n < all ? of(n, plural(all, unit)) : plural(all, unit));
const whole = (text) => (Array.isArray(text) ? text[0] : text ?? "");
const sign = (right) => (right ? "✓" : "✗");
const hue = (right) => (right ? "up" : "down");
const verdict = (right) => data.words[right ? "right" : "wrong"];
const mark = (right) => make("span.mark " + hue(right), { "aria-hidden": "true" }, sign(right));
const judged = (right) => make("span." + hue(right), sign(right), make("span.word", ` ${verdict(right)}`));
const none = (key) => make("p.none", data.words[key]);
const region = (label, ...parts) => make("div.scroll", { tabindex: 0, role: "group", "aria-label": label }, parts);

const pre = (label, ...parts) => make("pre", { tabindex: 0, role: "group", "aria-label": label }, parts);
const table = (style, heads, rows) => make(`table.${style}`, make("thead", make("tr", heads)), make("tbody", rows));

// A text of a model under its title; of a long one there is the beginning and the length.
function block(title, text, show, run, ...more) {
  const shown = whole(text);
  const file = `runs/${data.runs[run].key}/${task.name}.csv`;
  return make("div", make("h4", data.words[title], more), shown === "" ? none("empty") : pre(data.words[title], show(shown)),
    shown === text || make("p.more", say("cut", { n: number([...shown].length), all: number(text[1]), file })));
}

// ---- Filters

const right = (q, run) => q.answers[run].right[task.right.indexOf(state.criterion || task.headline)] === 1;
const base = (run) => data.runs[run].base;
const strata = (q) => Object.keys(task.strata).map((key) => q[key]);
const level = (value) => data.words.levels[value] ?? value.replaceAll("_", " ");
const chosenRun = () => task.runs.find((run) => data.runs[run].key === state.model);

// The runs whose answers are shown: all, a base model, or an adapter beside its base.
function shownRuns() {
  const run = chosenRun();
  return run === undefined ? task.runs : [base(run), run].filter((one) => one !== null);
}

function matches() {
  const chosen = chosenRun();
  let runs = chosen === undefined ? task.runs : [chosen];
  if (state.change) {
    runs = task.runs.filter((run) => base(run) !== null && (runs.includes(run) || runs.includes(base(run))));
  }
  const change = (q, run) => [["neither", "gained"], ["lost", "both"]][+right(q, base(run))][+right(q, run)];
  const result = (q, run) => (["right", "wrong"].includes(state.class)
    ? right(q, run) === (state.class === "right") : forms[task.form].outcome(q.answers[run]) === state.class);
  // Change and result must hold of one and the same adapter, or the result of the model that the reader has chosen.
  const fits = (q) => runs.some((run) =>
    (!state.change || change(q, run) === state.change) && (!state.class || result(q, chosen ?? run)));
  const texts = (q) => [q.id, ...strata(q), q.question, q.gold, q.answer, ...(q.choices ?? []),
    ...q.answers.flatMap((given) => ["answer", "sql", "message", "generated", "prediction"].map((key) => given[key]))];
  const sought = state.search.toLowerCase().split(/\s+/).filter(Boolean);
  return task.questions.filter((q) =>
    Object.keys(task.strata).every((key) => !state[key] || q[key] === state[key]) && fits(q) &&
    sought.every((word) => (q.sought ??= texts(q).map(whole).join("\n").toLowerCase()).includes(word)));
}

// ---- The fragment: what is set, and nothing that the data do not have.

const fragment = () =>
  `#${new URLSearchParams(Object.entries({ task: task.name, ...state, q: task.q }).filter(([, value]) => value))}`;

function open(name) {
  form?.remove();
  task = data.tasks.find((one) => one.name === name) ?? data.tasks[0];
  form = task.filters;
  $("filters").prepend(form);
  $(`task-${task.name}`).checked = true;
}

// The id of a question alone, as the report links to it, is one too.
function readFragment() {
  const hash = location.hash.slice(1);
  const parameters = new URLSearchParams(hash);
  if (hash && !hash.includes("=")) {
    const [id] = [...parameters.keys()];
    const holder = data.tasks.find((one) => one.byId.has(id));
    if (holder) [["task", holder.name], ["q", id]].forEach((pair) => parameters.set(...pair));
  }
  open(parameters.get("task"));
  form.reset();
  for (const [name, value] of parameters) {
    const field = form.elements.namedItem(name);
    if (field) field.value = value;
    if (field?.selectedIndex === -1) field.selectedIndex = 0;
  }
  task.q = task.byId.has(parameters.get("q")) ? parameters.get("q") : "";
}

// ---- The list: only the items in view are in the document.

const at = () => found.findIndex((q) => q.id === task.q);
// The question's place among the others; what its id says already is left out.
const where = (q) => [q.id, ...strata(q).filter((value) => !q.id.startsWith(value)).map(level)].join(" · ");

function renderList() {
  const list = $("list");
  const first = Math.max(0, Math.floor(list.scrollTop / ITEM) - 6);
  const last = Math.min(found.length, Math.ceil((list.scrollTop + list.clientHeight) / ITEM) + 6);
  $("spacer").replaceChildren(...found.slice(first, last).map((q, offset) => listItem(q, first + offset)));
  list.setAttribute("aria-activedescendant", at() >= first && at() < last ? `item-${at()}` : "");
}

function listItem(q, place) {
  const runs = shownRuns();
  const rights = runs.map((run) => right(q, run));
  const names = runs.map((run, i) => `${data.runs[run].name} ${verdict(rights[i])}`).join(", ");
  const marks = runs.length > MANY
    ? make("span", say("score", { n: rights.filter(Boolean).length, all: runs.length }))
    : make("span.marks", { "aria-label": names, role: "img" }, rights.map(mark));
  const item = make("div.item", {
    role: "option", id: `item-${place}`, "data-id": q.id, "aria-selected": q.id === task.q,
    "aria-posinset": place + 1, "aria-setsize": found.length,
  }, make("div.top", make("span.where", visible(where(q))), marks), make("div.text", visible(q.question)));
  item.style.top = `${place * ITEM}px`;
  return item;
}

function renderSide() {
  const total = number(task.questions.length);
  task.runs.forEach((run, i) => {
    const n = number(task.questions.filter((q) => right(q, run)).length);
    form.elements.model.options[i + 1].text = `${data.runs[run].name} (${say("score", { n, all: total })})`;
  });
  const set = [...form.elements].filter((field) => field.selectedIndex > 0).length;
  $("fold").firstElementChild.textContent = set ? say("filters_set", { n: set }) : data.words.filters;
  $("count").textContent = of(found.length, plural(task.questions.length, "question"));
  $("clear").hidden = !set && !state.search;
  const runs = shownRuns().map((run) => data.runs[run].name);
  $("order").textContent = runs.length > MANY ? "" : `${data.words.marks}: ${runs.join(", ")}`;
  $("spacer").style.height = `${found.length * ITEM}px`;
}

// ---- One question

// A panel that stays open or closed for the next question; what it holds is made when it is opened.
function folding(key, open, heading, fill) {
  const details = make("details.panel", make("summary", heading));
  const toggle = () => {
    opened.set(key, details.open);
    if (details.open && details.children.length < 2) details.append(make("div.body", fill()));
  };
  details.open = opened.get(key) ?? open;
  details.addEventListener("toggle", toggle);
  toggle();
  return details;
}

function renderMain() {
  const q = task.byId.get(task.q);
  const title = $("title").textContent;
  const place = at();
  document.title = q ? `${q.id} · ${title}` : title;
  document.body.classList.toggle("reading", Boolean(q));
  $("toolbar").hidden = !q;
  $("criteria").hidden = !q || task.form !== "sql";
  $("beside").hidden = task.form !== "sql" || shownRuns().length < 2;
  $("place").textContent = place < 0 ? data.words.not_found : of(place + 1, number(found.length));
  $("previous").disabled = place === 0 || !found.length;
  $("next").disabled = place === found.length - 1;
  $("link").href = fragment();
  $("main").scrollTop = 0;
  if (!q) return $("question").replaceChildren(found.length ? "" : none("none_fits_filters"));
  const runs = shownRuns();
  return $("question").replaceChildren(make("p.where", visible(where(q))), make("h2", visible(q.question)),
    ...promptPanels(task.questions.indexOf(q), runs), ...forms[task.form].head(q),
    make(`div.runs ${task.form}`, runs.map((run) => runPanel(q, run, runs.length <= MANY))));
}

function runPanel(q, run, few) {
  const given = q.answers[run];
  const { outcome, body } = forms[task.form];
  const key = outcome(given);
  const unanswered = key === "missing" || given.prediction === "";
  const panel = folding(data.runs[run].key, few, [make("h3", data.runs[run].name), judged(right(q, run)),
    key && make("span.tag", data.words.classes[key] ?? data.words[key]),
    make("span.message", visible(whole(given.message)), Array.isArray(given.message) && " …")],
  () => (unanswered ? none("no_answer") : body(q, given, run)));
  panel.dataset.run = data.runs[run].key;
  return panel;
}

// What was read, once for each list of prompts that a shown run has. A list is decoded when the first prompt is opened.
function promptPanels(place, runs) {
  return [...new Set(runs.map((run) => task.reads[run]))].filter((list) => list != null).map((list, i, all) => {
    const names = runs.filter((run) => task.reads[run] === list).map((run) => data.runs[run].name);
    const few = all.length > 1 && names.length <= MANY / 2;
    const label = few ? say("prompt_of", { names: names.join(", ") }) : data.words.prompt;
    return folding(`prompt ${list}`, false, make("h3", label), () => {
      const { text, length } = decoded(task.prompts, list)[place];
      const n = number([...text].length);
      return [pre(label, visible(text)), length && make("p.more", say("of", { n, all: number(length) }))];
    });
  });
}

function decoded(lists, list) {
  if (!Array.isArray(lists[list])) return lists[list];
  let before = "";
  const texts = {};
  for (const [place, shared, rest, length] of lists[list]) {
    before = before.slice(0, shared) + rest;
    texts[place] = { text: before, length };
  }
  return (lists[list] = texts);
}

function goldPanel(title, text, notes) {
  const label = data.words[title];
  return make("div.panel", { role: "group", "aria-label": label },
    make("div.line", make("h3", label), notes), pre(label, text));
}

// Of each form: the result of an answer, what stands above the answers, and what is said of one.
const forms = {
  sql: {
    outcome: (given) => given.error_class,
    head: (q) => [
      q.evidence ? make("p", visible(q.evidence)) : "",
      q[task.cluster] in task.schemas ? schemaPanel(q[task.cluster]) : "",
      goldPanel("gold_query", sql(q.gold), [make("span", plural(q.gold_rows, "row")),
        q.flags.split(" ").map((flag) => flag && make("span.tag", data.words.flags[flag]))]),
    ],
    body(q, { answer, sql: taken, predicted, predicted_rows, lacking, right: rights, raw }, run) {
      const rows = q.rows.filter(([index]) => index < 10 || lacking.includes(index));
      return [
        make("div.pair", whole(taken) === whole(answer) ? block("answer_is_sql", answer, sql, run)
          : [block("answer", answer, visible, run), block("sql_taken", taken, sql, run)]),
        comparison(q.gold, whole(taken)),
        make("div.pair", predicted ? resultTable("this_answer", { ...predicted, count: predicted_rows }, "gold_lacks")
          : make("div", make("h4", data.words.this_answer), none("not_run")),
        resultTable("gold", { ...q, rows, unmatched: lacking, count: q.gold_rows }, "answer_lacks")),
        verdictTable(rights, raw),
      ];
    },
  },
  choice: {
    outcome: ({ prediction, generated_letter: written }) =>
      (written === "" ? "invalid" : written !== prediction && "disagree"),
    head: (q) => [make("ol.choices", { "aria-label": data.words.choices }, q.choices.map((text, i) =>
      make(LETTERS[i] === q.answer ? "li.key" : "li", make("b", LETTERS[i]), make("span", visible(text),
        LETTERS[i] === q.answer && make("em", `  ${data.words.right_answer}`)))))],
    body: (q, given, run) => [
      make("h4", `${data.words.by_probability}: ${given.prediction} `, judged(given.right[0])),
      probabilityTable(q, given),
      block("generated", given.generated, visible, run, `: ${given.generated_letter || data.words.no_letter} `,
        judged(given.right[1])),
    ],
  },
  match: {
    outcome: () => null,
    head: (q) => [goldPanel("gold_answer", visible(q.gold ?? q.answer))],
    body: (q, given, run) => block("answer", given.answer ?? given.prediction, visible, run),
  },
};

function schemaPanel(name) {
  const label = say("schema", { name });
  return folding("schema", true, make("h3", label),
    () => make("pre.schema", { tabindex: 0, role: "group", "aria-label": label },
      task.schemas[name].split(/(?<=\n)(?=CREATE TABLE )/).map((one) => make("div", visible(one)))));
}

// The rows `unmatched` are marked: those that the other result lacks, as `meaning` says.
function resultTable(title, { count, columns, width, rows, unmatched }, meaning) {
  const symbol = meaning === "gold_lacks" ? "+" : "−";
  const notes = [part(rows.length, count, "row"), columns.length < width && part(columns.length, width, "column"),
    unmatched.length > 0 && `${symbol} ${data.words[meaning]}`].filter(Boolean).join(", ");
  const gap = (after, before) => after + 1 < before &&
    make("tr.gap", make("td", { colspan: columns.length + 1 }, "⋯"));
  const body = rows.map(([index, cells], i) => {
    const odd = unmatched.includes(index);
    return [gap(i ? rows[i - 1][0] : -1, index), make(odd ? "tr.odd" : "tr",
      make("th.index", { scope: "row" }, odd && `${symbol} `, number(index + 1)), cells.map(cell))];
  });
  const numeric = (i) => rows.some(([, cells]) => typeof cells[i] === "number");
  const heads = [make("td"),
    columns.map((name, i) => make(numeric(i) ? "th.num" : "th", { scope: "col" }, visible(name)))];
  return make("div", make("h4", `${data.words[title]}: ${notes}`), count
    ? region(data.words[title], table("rows", heads, [body, rows.length > 0 && gap(rows.at(-1)[0], count)]))
    : none("no_rows"));
}

// Texts that read like something else (a number, nothing, blanks at an end) stand in quotes.
const QUOTED = /^\s|\s$|^$|^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$|^NULL$/i;

function cell(value) {
  if (value === null) return make("td", make("span.none", "NULL"));
  if (typeof value === "string") return make("td", visible(QUOTED.test(value) ? `'${value}'` : value));
  if (typeof value === "number" || "number" in value) return make("td.num", value.number ?? value);
  if ("blob" in value) return make("td", `x'${value.blob}'`, make("span.more", ` ${plural(value.length, "byte")}`));
  return make("td", visible(value.text), make("span.more", `… ${plural(value.length, "character")}`));
}

function verdictTable(rights, raw) {
  const chosen = state.criterion || task.headline;
  const shade = (place) => (task.right[place] === chosen ? ".chosen" : "");
  const row = (label, values) => make("tr", make("th", { scope: "row" }, label),
    values.map((value, place) => make(`td${shade(place)}`, judged(value))));
  const names = task.right.map((key) => data.words.criteria[key]);
  const heads = [make("td"),
    names.map(({ name, meaning }, i) => make(`th${shade(i)}`, { scope: "col", title: meaning }, name))];
  return region(data.words.verdicts, table("verdicts", heads, [row("SQL", rights), row(data.words.raw, raw)]));
}

function probabilityTable(q, given) {
  const rows = q.choices.map((_, i) => {
    const logprob = given.logprobs[i];
    const share = 100 * Math.exp(logprob ?? -Infinity);
    const bar = make("div");
    bar.style.width = `${share}%`;
    return make(`tr.${LETTERS[i] === q.answer ? "key" : ""} ${LETTERS[i] === given.prediction ? "top" : ""}`,
      make("th", { scope: "row" }, LETTERS[i]), make("td.track", bar), make("td.num", `${number(share, 1)}%`),
      make("td.num", logprob === null ? "−∞" : number(logprob, 2)));
  });
  const names = ["", "", data.words.probability, "log p"];
  const heads = names.map((name) => (name ? make("th.num", { scope: "col" }, name) : make("td")));
  return table("probabilities", heads, rows);
}

// ---- What the reader does

function show() {
  const list = $("list");
  const top = at() * ITEM;
  if (top >= 0) list.scrollTop = Math.min(top, Math.max(list.scrollTop, top + ITEM - list.clientHeight));
  renderMain();
  renderList();
  clearTimeout(pending);
  // Browsers refuse many changes a second, as a key held down makes them.
  pending = setTimeout(() => history.replaceState(null, "", fragment()), 120);
}

function update() {
  state = Object.fromEntries(new FormData(form));
  found = matches();
  renderSide();
}

function filter() {
  update();
  if (at() < 0) task.q = narrow.matches ? "" : found[0]?.id;
  $("list").scrollTop = 0;
  show();
}

function choose(id) {
  const first = narrow.matches && !task.q;
  if (first) history.replaceState(null, "", fragment());
  task.q = id;
  if (first) history.pushState(null, "", fragment());
  show();
  if (narrow.matches) $("main").focus();
}

function move(step) {
  const now = at();
  const next = now < 0 ? 0 : Math.min(found.length - 1, Math.max(0, now + step));
  if (found.length && next !== now) choose(found[next].id);
}

function toList() {
  if (narrow.matches) task.q = "";
  show();
  $("list").focus();
}

function load() {
  readFragment();
  update();
  if (!task.q && !narrow.matches) task.q = found[0]?.id;
  show();
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  const { target, key } = event;
  const list = $("list");
  const page = Math.max(1, Math.floor(list.clientHeight / ITEM) - 1);
  const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
  if (target.matches("#search, select")) {
    if (key !== "Escape" && (target.matches("select") || (key !== "Enter" && key !== "ArrowDown"))) return;
    list.focus();
  } else if (key === "/") {
    if (narrow.matches) toList();
    $("search").focus();
    $("search").select();
  } else if (key === "j" || key === "k") move(key === "j" ? 1 : -1);
  else if (key === "Escape") toList();
  else if (target !== list && target !== document.body) return;
  else if (key in steps) move(steps[key]);
  else if (key === "Enter" && found.length) {
    choose(task.q || found[0].id);
    $("main").focus();
  } else return;
  event.preventDefault();
}

async function begin() {
  const packed = Uint8Array.from(atob($("data").textContent), (character) => character.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  data = await new Response(stream).json();
  $("data").remove();
  for (const one of data.tasks) {
    one.filters = $(`form-${one.name}`).content.firstElementChild;
    one.filters.querySelector("details").open = !narrow.matches;
    one.byId = new Map(one.questions.map((q) => [q.id, q]));
  }
  const on = (id, event, act) => $(id).addEventListener(event, act);
  on("tasks", "change", ({ target }) => { open(target.value); filter(); });
  on("filters", "input", filter);
  on("clear", "click", () => { form.reset(); filter(); $("search").focus(); });
  on("export", "click", save);
  on("beside", "click", () => {
    const beside = document.body.classList.toggle("side-by-side");
    $("beside").setAttribute("aria-pressed", beside);
  });
  on("list", "scroll", renderList);
  on("list", "click", ({ target }) => target.closest(".item") && choose(target.closest(".item").dataset.id));
  on("previous", "click", () => move(-1));
  on("next", "click", () => move(1));
  on("back", "click", toList);
  document.addEventListener("keydown", onKey);
  addEventListener("resize", renderList);
  addEventListener("popstate", load);
  narrow.addEventListener("change", () => { history.replaceState(null, "", fragment()); load(); });
  if (narrow.matches && $("finding")) $("finding").open = false;
  addEventListener("hashchange", load);
  $("state").hidden = true;
  $("side").hidden = $("main").hidden = false;
  load();
}

begin().catch((error) => {
  $("state").hidden = false;
  $("state").textContent = `${$("state").dataset.failed}: ${error.message}.`;
  throw error;
});
