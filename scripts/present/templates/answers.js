// Which questions are listed, which one is shown, and what the reader does; answers_question.js stands before it.
const ITEM = 74; // pixels of one item of the list, as in the style
const OVERSCAN = 6;
const narrow = matchMedia("(max-width: 860px)");
const states = { spider: {}, mmlu: {} };
let tab = "spider";
let state; // of this tab: what is set of its fields, `search`, and `q`, the question shown; all of it in the fragment
let found = []; // the questions that fit
let pending;

// ---- The two tabs. A field's options are [value, text]; the first one holds while nothing is set.

const words = (...keys) => keys.map((key) => [key, data.words[key]]);
const any = (options) => [["", data.words.any], ...options];
const all = (options) => [["", data.words.all], ...options];
const distinct = (key) => all([...new Set(data[tab].map((q) => q[key]))].sort().map((value) => [value, value]));
const changes = () => any(words("lost", "gained", "both", "neither"));

function models() {
  const right = (run) => number(data[tab].filter((q) => tabs[tab].right(q, run)).length);
  const score = (run) => say("score", { n: right(run), all: number(data[tab].length) });
  return all(asked().map((run) => [data.runs[run].key, `${data.runs[run].name} (${score(run)})`]));
}

function criteria() {
  const name = (key) => data.words.criteria[key].name;
  const others = data.criteria.filter((key) => key !== data.headline).map((key) => [key, name(key)]);
  return [[data.headline, say("headline", { name: name(data.headline) })], ...others];
}

const tabs = {
  spider: {
    fields: {
      model: models,
      db: () => distinct("db"),
      hardness: () => all(Object.entries(data.words.levels)),
      class: () => any([...words("right", "wrong"), ...Object.entries(data.words.classes).map(
        ([key, name]) => [`class:${key}`, key === "ok" ? data.words.class_ok : name])]),
      criterion: criteria,
      change: changes,
    },
    where: (q) => `${q.id} · ${q.db} · ${data.words.levels[q.hardness]}`,
    texts: (q) => [q.id, q.db, q.question, q.gold, ...q.answers.flatMap((a) => [a.answer, a.sql, a.message])],
    right: (q, run) => q.answers[run].right[data.criteria.indexOf(state.criterion || data.headline)] === 1,
    result: (q, run) => state.class === `class:${q.answers[run].class}`,
    show: spiderParts,
  },
  mmlu: {
    fields: {
      model: models,
      category: () => distinct("category"),
      subject: () => distinct("subject"),
      class: () => any(words("right", "wrong", "disagree", "invalid")),
      by: () => words("letter", "text"),
      change: changes,
    },
    where: (q) => `${q.id} · ${spaced(q.category)}`,
    texts: (q) => [q.id, q.subject, q.category, q.question, ...q.choices, ...q.answers.map((a) => a.generated)],
    right: (q, run) => q.answers[run][state.by ? "rightWritten" : "right"] === 1,
    result: (q, run) => {
      const { letter, written } = q.answers[run];
      return state.class === "invalid" ? written === "" : written !== "" && written !== letter;
    },
    show: mmluParts,
  },
};

// Places of the runs that have answers of their own in this tab, and of the run that the reader has chosen.
const asked = () => [...data.runs.keys()].filter((run) => tab === "spider" || data.runs[run].mmlu);
const chosenRun = () => data.runs.findIndex((run) => run.key === state.model);

// The runs whose answers are shown: all, a base model, or an adapter beside its base.
function shownRuns() {
  const run = chosenRun();
  return run < 0 ? asked() : [data.runs[run].base, run].filter((one) => one !== null);
}

function matches() {
  const { right, result, texts } = tabs[tab];
  const chosen = chosenRun();
  const sought = (state.search ?? "").toLowerCase().split(/\s+/).filter(Boolean);
  const base = (run) => data.runs[run].base;
  const changed = (q, run) =>
    state.change === [["neither", "gained"], ["lost", "both"]][+right(q, base(run))][+right(q, run)];
  const fits = (q, run) =>
    (["right", "wrong"].includes(state.class) ? right(q, run) === (state.class === "right") : result(q, run));
  const tuned = asked().filter((run) => base(run) !== null && (chosen < 0 || [run, base(run)].includes(chosen)));
  const runs = chosen < 0 ? asked() : [chosen];
  // Change and result must hold of one and the same adapter, or the result of the model that the reader has chosen.
  const some = (q) => (state.change ? tuned : runs).some((run) =>
    (!state.change || changed(q, run)) && (!state.class || fits(q, chosen < 0 ? run : chosen)));
  return data[tab].filter((q) =>
    ["db", "hardness", "category", "subject"].every((key) => !state[key] || q[key] === state[key]) && some(q) &&
    sought.every((word) => (q.sought ??= texts(q).map(whole).join("\n").toLowerCase()).includes(word)));
}

// ---- The fragment: what is set, and nothing that the data do not have.

const fragment = (set) => `#${new URLSearchParams([["task", tab], ...Object.entries(set).filter((pair) => pair[1])])}`;

function readFragment() {
  const parameters = new URLSearchParams(location.hash.slice(1));
  tab = Object.hasOwn(tabs, parameters.get("task")) ? parameters.get("task") : "spider";
  state = states[tab] = { search: parameters.get("search") };
  for (const [name, options] of Object.entries(tabs[tab].fields)) {
    state[name] = options().slice(1).map(([value]) => value).find((value) => value === parameters.get(name));
  }
  if (data[tab].byId.has(parameters.get("q"))) state.q = parameters.get("q");
}

function writeFragment() {
  clearTimeout(pending);
  // Browsers refuse many changes a second, as a key held down makes them.
  pending = setTimeout(() => history.replaceState(null, "", fragment(state)), 120);
  if ($("link")) $("link").href = fragment(state);
}

// ---- The list: only the items in view are in the document.

const at = () => found.findIndex((q) => q.id === state.q);

function renderList() {
  const list = $("list");
  const first = Math.max(0, Math.floor(list.scrollTop / ITEM) - OVERSCAN);
  const last = Math.min(found.length, Math.ceil((list.scrollTop + list.clientHeight) / ITEM) + OVERSCAN);
  $("spacer").replaceChildren(...found.slice(first, last).map((q, offset) => listItem(q, first + offset)));
  const place = at();
  if (place >= first && place < last) list.setAttribute("aria-activedescendant", `item-${place}`);
  else list.removeAttribute("aria-activedescendant");
}

function listItem(q, place) {
  const runs = shownRuns();
  const rights = runs.map((run) => tabs[tab].right(q, run));
  const names = runs.map((run, i) => `${data.runs[run].name} ${verdict(rights[i])}`).join(", ");
  const marks = runs.length > MANY
    ? make("span", { class: "marks" }, say("score", { n: rights.filter(Boolean).length, all: runs.length }))
    : make("span", { class: "marks", "aria-label": names, role: "img" }, rights.map(mark));
  const item = make("div", {
    class: "item", role: "option", id: `item-${place}`, "data-id": q.id,
    "aria-selected": String(q.id === state.q), "aria-posinset": place + 1, "aria-setsize": found.length,
  }, make("div", { class: "top" }, make("span", { class: "where" }, visible(tabs[tab].where(q))), marks),
     make("div", { class: "text" }, visible(q.question)));
  item.style.top = `${place * ITEM}px`;
  return item;
}

function renderSide() {
  const { fields } = tabs[tab];
  $("fields").replaceChildren(...Object.entries(fields).map(([name, options]) => make("div", {},
    make("label", { for: `field-${name}` }, data.words.fields[name]),
    make("select", { id: `field-${name}`, name, class: state[name] && "set" },
      options().map(([value, text]) => make("option", { value, selected: value === state[name] }, text))))));
  if ($("search").value !== (state.search ?? "")) $("search").value = state.search ?? "";
  for (const name of Object.keys(tabs)) {
    $(`tab-${name}`).setAttribute("aria-selected", String(name === tab));
    $(`tab-${name}`).tabIndex = name === tab ? 0 : -1;
  }
  const active = Object.keys(fields).filter((key) => state[key]).length;
  $("fold").firstElementChild.textContent = active ? say("filters_set", { n: active }) : data.words.filters;
  $("count").textContent = of(found.length, plural(data[tab].length, "question"));
  $("clear").hidden = !active && !state.search;
  const runs = shownRuns().map((run) => data.runs[run].name);
  $("order").textContent = runs.length > MANY ? "" : `${data.words.marks}: ${runs.join(", ")}`;
  $("empty").hidden = found.length > 0;
  $("spacer").style.height = `${found.length * ITEM}px`;
}

function reveal() {
  const list = $("list");
  const top = at() * ITEM;
  if (top >= 0) list.scrollTop = Math.min(top, Math.max(list.scrollTop, top + ITEM - list.clientHeight));
}

// ---- Actions. On a narrow screen, `reading` says that the question is shown in place of the list.

const reading = () => document.body.classList.contains("reading");

function filter() {
  found = matches();
  if (at() < 0) state.q = narrow.matches ? "" : found[0]?.id;
  $("list").scrollTop = 0;
  renderSide();
  show();
}

function show() {
  reveal();
  renderList();
  renderMain();
  writeFragment();
}

function choose(id, read) {
  if (read && narrow.matches && !reading()) {
    clearTimeout(pending);
    history.replaceState(null, "", fragment({ ...state, q: "" }));
    history.pushState(null, "", fragment({ ...state, q: id }));
    document.body.classList.add("reading");
  }
  state.q = id;
  show();
  if (read) $("main").focus();
}

function move(step) {
  const now = at();
  const next = now < 0 ? 0 : Math.min(found.length - 1, Math.max(0, now + step));
  if (found.length && next !== now) choose(found[next].id);
}

function toList() {
  if (reading()) {
    document.body.classList.remove("reading");
    reveal();
    renderList();
    if (narrow.matches) state.q = "";
    writeFragment();
  }
  $("list").focus();
}

function open(name) {
  tab = name;
  state = states[tab];
  document.body.classList.remove("reading");
  filter();
}

function load() {
  readFragment();
  found = matches();
  document.body.classList.toggle("reading", state.q !== undefined);
  if (!state.q && !narrow.matches) state.q = found[0]?.id;
  renderSide();
  show();
  $("list").scrollTop = (at() - 2) * ITEM;
  renderList();
}

// ---- Keyboard, mouse, and the beginning

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  const { target, key } = event;
  const list = $("list");
  const page = Math.max(1, Math.floor(list.clientHeight / ITEM) - 1);
  const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
  if (target.matches("#search, select")) {
    if (key !== "Escape" && (target.matches("select") || (key !== "Enter" && key !== "ArrowDown"))) return;
    list.focus();
  } else if (target.matches("[role=tab]") && (key === "ArrowLeft" || key === "ArrowRight")) {
    open(tab === "spider" ? "mmlu" : "spider");
    $(`tab-${tab}`).focus();
  } else if (key === "/") {
    if (narrow.matches) toList();
    $("search").focus();
    $("search").select();
  } else if (key === "j" || key === "k") move(key === "j" ? 1 : -1);
  else if (key === "Escape") toList();
  else if (target !== list && target !== document.body) return;
  else if (key in steps) move(steps[key]);
  else if (key === "Enter" && found.length) choose(state.q || found[0].id, true);
  else return;
  event.preventDefault();
}

async function begin() {
  if (!("DecompressionStream" in window)) throw new Error($("state").dataset.tooOld);
  const packed = Uint8Array.from(atob($("data").textContent), (character) => character.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  data = await new Response(stream).json();
  $("data").remove();
  for (const name of Object.keys(tabs)) {
    if (data.runs.every((run) => run.base === null)) delete tabs[name].fields.change;
    data[name].byId = new Map(data[name].map((q) => [q.id, q]));
    $(`tab-${name}`).lastElementChild.textContent = number(data[name].length);
    $(`tab-${name}`).addEventListener("click", () => open(name));
  }
  $("fields").addEventListener("change", ({ target }) => {
    state[target.name] = target.selectedIndex ? target.value : "";
    filter();
    $(target.id).focus();
  });
  $("search").addEventListener("input", ({ target }) => { state.search = target.value; filter(); });
  $("clear").addEventListener("click", () => {
    state = states[tab] = { q: state.q };
    filter();
    $("search").focus();
  });
  $("list").addEventListener("scroll", renderList);
  $("list").addEventListener("click", ({ target }) => {
    const item = target.closest(".item");
    if (item) choose(item.dataset.id, narrow.matches);
  });
  $("main").addEventListener("click", ({ target }) => {
    if (target.dataset.step) move(Number(target.dataset.step));
    else if (target.id === "back") toList();
  });
  document.addEventListener("keydown", onKey);
  addEventListener("resize", renderList);
  addEventListener("popstate", load);
  narrow.addEventListener("change", () => { history.replaceState(null, "", fragment(state)); load(); });
  $("fold").open = !narrow.matches;
  $("state").hidden = true;
  $("side").hidden = $("main").hidden = false;
  load();
}

begin().catch((error) => {
  $("state").hidden = false;
  $("state").textContent = `${$("state").dataset.failed}: ${error.message}.`;
  throw error;
});
