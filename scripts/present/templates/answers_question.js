"use strict";
// How one question is shown. The data come from steps/answers.py:
//   words     the section `answers` of words.<language>.yaml; `say` fills in what stands in {braces}
//   runs      {key, name, base, mmlu}: base is the place of its base model's run (null for a base), mmlu whether it has
//             answers of its own there; an answer stands at the place of its run
//   criteria  keys of SQL equality; `headline` is the one that counts when the page is opened
//   schemas   {database: [{name, columns: [[name, type, whether in the key, foreign key or null]]}]}
//   spider    {id, db, hardness, question, gold, flags, count, columns, width, rows, answers: [{answer, sql, right,
//             raw, class, message, count, predicted, lacking}]}, with `right` and `raw` in the order of criteria
//   mmlu      {id, subject, category, answer, question, choices, answers: [{letter, logprobs, generated, written,
//             right, rightWritten}]}
// A long text is [its beginning, its length]. A row of a result is [its index, its cells].
const $ = (id) => document.getElementById(id);
const LETTERS = "ABCD";
const MANY = 6; // more runs than this: answers folded, marks as a count
let data;

// ---- Elements. Nothing here writes HTML: elements are made one by one, and text goes into text nodes.

const nodes = (children) => [children].flat(Infinity).filter((child) => child != null && child !== false);

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...nodes(children));
  return element;
}

const span = (style, ...children) => make("span", { class: style }, ...children);

function copy(template, slots = {}) {
  const made = $(template).content.cloneNode(true);
  for (const slot of made.querySelectorAll("[data-slot]")) slot.append(...nodes(slots[slot.dataset.slot]));
  return made;
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
    parts.push(text.slice(end, index), span("char", `U+${code}${times}`));
    end = index + all.length;
  }
  return [...parts, text.slice(end)];
}

const KEYWORDS = "all|and|as|asc|between|by|case|cast|cross|desc|distinct|else|end|except|exists|from|full|group|" +
  "having|in|inner|intersect|is|join|left|like|limit|natural|not|null|offset|on|or|order|outer|right|select|then|" +
  "union|using|values|when|where|with";
const TOKEN = new RegExp(`('(?:[^']|'')*'|"(?:[^"]|"")*")|\\b(${KEYWORDS})\\b|\\w+|[^'"\\w]+|['"]`, "gi");

function sql(text) {
  return [...text.matchAll(TOKEN)].map(([token, string, keyword]) =>
    string || keyword ? span(string ? "str" : "kw", visible(token)) : visible(token));
}

// ---- Words and numbers

const say = (key, values) => data.words[key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
const number = (value, digits = 0) => value.toLocaleString(data.language, {
  minimumFractionDigits: digits, maximumFractionDigits: digits, signDisplay: "negative" }).replace("-", "−");
const plural = (n, unit) => `${number(n)} ${data.words.units[unit][n === 1 ? 0 : 1]}`;
const of = (n, all) => say("of", { n: number(n), all });
const spaced = (key) => key.replaceAll("_", " ");
const verdict = (right) => data.words[right ? "right" : "wrong"];
const whole = (text) => (Array.isArray(text) ? text[0] : text ?? "");
const sign = (right) => (right ? "✓" : "✗");
const hue = (right) => (right ? "up" : "down");
const mark = (right) => make("span", { class: `mark ${hue(right)}`, "aria-hidden": "true" }, sign(right));
const judged = (right) => span(hue(right), `${sign(right)} ${verdict(right)}`);
const tag = (text, style = "") => span(`tag ${style}`, text);
const none = (key) => make("p", { class: "none" }, data.words[key]);
const region = (label, table) =>
  make("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": label }, table);

// A text of a model; of a long one there is the beginning and the length.
function block(label, text, show, file) {
  const shown = whole(text);
  if (shown === "") return none("empty");
  const cut = Array.isArray(text) && make("p", { class: "more" },
    say("cut", { n: number([...shown].length), all: number(text[1]), file }));
  return [make("pre", { tabindex: 0, "aria-label": label }, show(shown)), cut];
}

// ---- One question

const opened = new Map(); // what a reader has opened or closed: "schema", and the answers by their run

function folding(details, key, open) {
  details.open = opened.get(key) ?? open;
  details.addEventListener("toggle", () => opened.set(key, details.open));
  return details;
}

function renderMain() {
  const q = data[tab].byId.get(state.q);
  const title = $("title").textContent;
  document.title = q ? `${q.id} · ${title}` : title;
  if (!q) {
    $("main").replaceChildren(none(found.length ? "choose" : "none_fits_filters"));
    return;
  }
  const place = at();
  const article = copy("t-article", {
    place: place < 0 ? data.words.not_found : of(place + 1, number(found.length)), where: visible(tabs[tab].where(q)),
    question: visible(q.question), parts: tabs[tab].show(q),
  });
  const [previous, next] = article.querySelectorAll("[data-step]");
  previous.disabled = place === 0 || !found.length;
  next.disabled = place === found.length - 1;
  $("main").replaceChildren(article);
  $("main").scrollTop = 0;
}

function spiderParts(q) {
  const tables = data.schemas[q.db];
  const columns = tables.reduce((n, table) => n + table.columns.length, 0);
  const schema = copy("t-schema", {
    label: `${say("schema", { name: q.db })}: ${plural(tables.length, "table")}, ${plural(columns, "column")}`,
    tables: tables.map(schemaTable),
  });
  const notes = [span("", plural(q.count, "row")), q.flags.map((flag) => tag(data.words.flags[flag]))];
  const runs = shownRuns();
  return [folding(schema.firstElementChild, "schema", true), copy("t-gold", { notes, query: sql(q.gold) }),
    runs.map((run) => spiderRun(q, run, runs.length <= MANY)), copy("t-criteria")];
}

function schemaTable({ name, columns }) {
  const parts = columns.map(([column, type, key, foreign], i) => [
    i > 0 && ", ", span(key ? "col key" : "col", visible(column)),
    make("small", {}, type !== "others" && ` ${type}`, key && ` ${data.words.key}`,
      foreign && visible(` → ${foreign}`)),
  ]);
  return make("div", {}, make("b", {}, visible(name)), " (", parts, ")");
}

function spiderRun(q, run, few) {
  const { class: outcome, message } = q.answers[run];
  const { key, name } = data.runs[run];
  const right = tabs.spider.right(q, run);
  const details = make("details", { class: "panel run", "data-run": key },
    make("summary", {}, mark(right), make("h3", {}, name), tag(verdict(right), hue(right)),
      tag(data.words.classes[outcome]), span("message", visible(whole(message)), Array.isArray(message) && " …")));
  const fill = () => { if (details.open && details.children.length === 1) details.append(spiderBody(q, run)); };
  folding(details, run, few).addEventListener("toggle", fill);
  fill();
  return details;
}

function spiderBody(q, run) {
  const { answer, sql: extracted, count, predicted, lacking, right, raw } = q.answers[run];
  if (answer === null) return make("div", { class: "body" }, none("no_answer"));
  const titled = (title, ...parts) => make("div", {}, make("h4", {}, data.words[title]), ...parts);
  const text = (title, given, show) =>
    titled(title, block(data.words[title], given, show, `runs/${data.runs[run].key}/spider.csv`));
  const texts = extracted === null
    ? text("answer_is_sql", answer, sql)
    : [text("answer", answer, visible), text("sql_taken", extracted, sql)];
  const rows = q.rows.filter(([index]) => index < 10 || lacking.includes(index));
  const result = predicted
    ? resultTable("this_answer", { ...predicted, count }, "gold_lacks")
    : titled("this_answer", none("not_run"));
  const gold = resultTable("gold", { ...q, rows, unmatched: lacking }, "answer_lacks");
  return make("div", { class: "body" }, make("div", { class: "pair" }, texts),
    make("div", { class: "pair" }, result, gold), verdictTable(right, raw));
}

// The rows `unmatched` are marked: those that the other result lacks, as `meaning` says.
function resultTable(title, { count, columns, width, rows, unmatched }, meaning) {
  const symbol = meaning === "gold_lacks" ? "+" : "−";
  const notes = [
    rows.length < count ? of(rows.length, plural(count, "row")) : plural(count, "row"),
    columns.length < width && of(columns.length, plural(width, "column")),
    unmatched.length > 0 && `${symbol} ${data.words[meaning]}`,
  ].filter(Boolean);
  const numeric = (i) => rows.some(([, cells]) => typeof cells[i] === "number") &&
    rows.every(([, cells]) => cells[i] === null || typeof cells[i] === "number");
  const gap = () => make("tr", { class: "gap" }, make("td", { colspan: columns.length + 1 }, "⋯"));
  const body = rows.map(([index, cells], i) => [
    index > (i ? rows[i - 1][0] + 1 : 0) && gap(),
    make("tr", { class: unmatched.includes(index) && "odd" },
      make("th", { class: "index", scope: "row" }, unmatched.includes(index) && `${symbol} `, number(index + 1)),
      cells.map(cell)),
  ]);
  if (rows.length && rows.at(-1)[0] + 1 < count) body.push(gap());
  const table = make("table", { class: "rows" },
    make("thead", {}, make("tr", {}, make("th", { class: "index", "aria-label": data.words.units.row[0] }),
      columns.map((name, i) => make("th", { scope: "col", class: numeric(i) && "num" }, visible(name))))),
    make("tbody", {}, body));
  const label = data.words[title];
  return make("div", {}, make("h4", {}, `${label}: ${notes.join(", ")}`),
    count ? region(label, table) : none("no_rows"));
}

// Texts that read like something else (a number, nothing, blanks at an end) stand in quotes.
const QUOTED = /^\s|\s$|^$|^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$|^NULL$/i;

function cell(value) {
  if (value === null) return make("td", {}, span("none", "NULL"));
  if (typeof value === "string") return make("td", {}, visible(QUOTED.test(value) ? `'${value}'` : value));
  if (typeof value === "number" || "number" in value) return make("td", { class: "num" }, value.number ?? value);
  if ("blob" in value) return make("td", {}, `x'${value.blob}'`, span("more", ` ${plural(value.length, "byte")}`));
  return make("td", {}, visible(value.text), span("more", `… ${plural(value.length, "character")}`));
}

function verdictTable(right, raw) {
  const chosen = data.criteria.indexOf(state.criterion || data.headline);
  const shade = (place) => place === chosen && "chosen";
  const row = (label, values) => make("tr", {}, make("th", { scope: "row" }, label), values.map((value, place) =>
    make("td", { class: shade(place) }, span(hue(value), sign(value), span("word", ` ${verdict(value)}`)))));
  const same = right.every((value, place) => value === raw[place]);
  const names = data.criteria.map((key) => data.words.criteria[key]);
  return region(data.words.verdicts, make("table", { class: "verdicts" },
    make("thead", {}, make("tr", {}, make("th", {}), names.map(({ name, meaning }, place) =>
      make("th", { scope: "col", title: meaning, class: shade(place) }, name)))),
    make("tbody", {}, same ? row(data.words.sql_and_raw, right) : [row("SQL", right), row(data.words.raw, raw)])));
}

function mmluParts(q) {
  const choice = (text, i) => {
    const key = LETTERS[i] === q.answer;
    return make("li", { class: key && "key" }, make("b", {}, LETTERS[i]),
      span("", visible(text), key && make("em", {}, `  ${data.words.right_answer}`)));
  };
  return [make("ol", { class: "choices", "aria-label": data.words.choices }, q.choices.map(choice)),
    make("div", { class: "panels" }, shownRuns().map((run) => mmluRun(q, run)))];
}

function mmluRun(q, run) {
  const { letter, logprobs, generated, written, right, rightWritten } = q.answers[run];
  const { name, key } = data.runs[run];
  const rows = logprobs.map((logprob, i) => {
    const probability = 100 * Math.exp(logprob ?? -Infinity);
    const bar = make("div", {});
    bar.style.width = `${probability}%`;
    return make("tr", { class: `${LETTERS[i] === q.answer ? "key" : ""} ${LETTERS[i] === letter ? "top" : ""}` },
      make("th", { scope: "row" }, LETTERS[i]), make("td", { class: "track" }, bar),
      make("td", { class: "num" }, `${number(probability, 1)}%`),
      make("td", { class: "num" }, logprob === null ? "−∞" : number(logprob, 2)));
  });
  const answer = copy("t-choice", {
    rows, letter: [`${letter} `, judged(right)], written: [`${written || data.words.no_letter} `, judged(rightWritten)],
  });
  return make("section", { class: "panel", "data-run": key, "aria-label": name },
    make("div", { class: "head" }, mark(tabs.mmlu.right(q, run)), make("h3", {}, name)),
    letter ? [answer, block(data.words.generated, generated, visible, `runs/${key}/mmlu.csv`)] : none("no_answer"));
}
