// Which questions are listed, which one is shown, and what the reader does; answers_question.js stands before it.
const ITEM = 74; // pixels of one item of the list, as in the style
const OVERSCAN = 6;

// ---- The two tabs. `states` of each: filters, search text and the chosen question; all of it stands in the fragment.

let tab;
const states = {};
const words = (...keys) => keys.map((key) => [key, data.words[key]]);
const distinct = (name, key) => [...new Set(data[name].map((q) => q[key]))].sort().map((value) => [value, value]);

function models(name) {
  const right = (run) => number(data[name].filter((q) => tabs[name].right(q, run, states[name])).length);
  const score = (run) => say("score", { n: right(run), all: number(data[name].length) });
  return [["", data.words.all], ...asked(name).map((i) => [data.runs[i].key, `${data.runs[i].name} (${score(i)})`])];
}

const changes = () => [["", data.words.any], ...words("lost", "gained", "both", "neither")];

const tabs = {
  spider: {
    fields: {
      model: () => models("spider"),
      db: () => [["", data.words.all], ...distinct("spider", "db")],
      hardness: () => [["", data.words.all], ...Object.entries(data.words.levels)],
      class: () => [["", data.words.any], ...words("right", "wrong"), ...Object.entries(data.words.classes).map(
        ([key, name]) => [`class:${key}`, key === "ok" ? data.words.class_ok : name])],
      criterion: () => data.criteria.map((key) => {
        const { name } = data.words.criteria[key];
        return [key, key === data.headline ? say("headline", { name }) : name];
      }),
      change: changes,
    },
    first: () => ({ criterion: data.headline }),
    where: (q) => `${q.id} · ${q.db} · ${data.words.levels[q.hardness] ?? q.hardness}`,
    texts: (q) => [q.id, q.db, q.question, q.gold, ...q.answers.flatMap((a) => [a.answer, a.sql, a.message])],
    fits: (q, s) => (!s.db || q.db === s.db) && (!s.hardness || q.hardness === s.hardness),
    right: (q, run, s) => q.answers[run].right[data.criteria.indexOf(s.criterion)] === 1,
    result: (q, run, s) => s.class === `class:${q.answers[run].class}`,
    show: spiderParts,
  },
  mmlu: {
    fields: {
      model: () => models("mmlu"),
      category: () => [["", data.words.all], ...distinct("mmlu", "category")],
      subject: () => [["", data.words.all], ...distinct("mmlu", "subject")],
      class: () => [["", data.words.any], ...words("right", "wrong", "disagree", "invalid")],
      by: () => words("letter", "text"),
      change: changes,
    },
    first: () => ({ by: "letter" }),
    where: (q) => `${q.id} · ${spaced(q.category)}`,
    texts: (q) => [q.id, q.subject, q.category, q.question, ...q.choices, ...q.answers.map((a) => a.generated)],
    fits: (q, s) => (!s.category || q.category === s.category) && (!s.subject || q.subject === s.subject),
    right: (q, run, s) => q.answers[run][s.by === "text" ? "rightWritten" : "right"] === 1,
    result: (q, run, s) => {
      const { letter, written } = q.answers[run];
      return s.class === "invalid" ? written === "" : written !== "" && written !== letter;
    },
    show: mmluParts,
  },
};

function fresh(name) {
  const empty = Object.fromEntries(Object.keys(tabs[name].fields).map((key) => [key, ""]));
  return { change: "", ...empty, ...tabs[name].first(), search: "", q: "" };
}

// Places of the runs that have answers of their own in a tab, and of the run that the reader has chosen.
const asked = (name) => [...data.runs.keys()].filter((run) => name === "spider" || data.runs[run].mmlu);
const chosenRun = (s) => data.runs.findIndex((run) => run.key === s.model);

// The runs whose answers are shown: all, a base model, or an adapter beside its base.
function shownRuns(s) {
  const run = chosenRun(s);
  return run < 0 ? asked(tab) : [data.runs[run].base, run].filter((one) => one !== null);
}

function matches() {
  const s = states[tab];
  const { fits, right, result, texts } = tabs[tab];
  const chosen = chosenRun(s);
  const sought = s.search.toLowerCase().split(/\s+/).filter(Boolean);
  const runs = chosen < 0 ? asked(tab) : [chosen];
  const tuned = asked(tab).filter((run) =>
    data.runs[run].base !== null && (chosen < 0 || [run, data.runs[run].base].includes(chosen)));
  const changed = (q, run) => s.change ===
    [["neither", "gained"], ["lost", "both"]][+right(q, data.runs[run].base, s)][+right(q, run, s)];
  const fitting = (q, run) =>
    (["right", "wrong"].includes(s.class) ? right(q, run, s) === (s.class === "right") : result(q, run, s));
  return data[tab].filter((q) => {
    if (!fits(q, s)) return false;
    if (s.change && s.class && chosen < 0) {
      // Both must hold of one and the same adapter.
      if (!tuned.some((run) => changed(q, run) && fitting(q, run))) return false;
    } else {
      if (s.change && !tuned.some((run) => changed(q, run))) return false;
      if (s.class && !runs.some((run) => fitting(q, run))) return false;
    }
    if (!sought.length) return true;
    q.sought ??= texts(q).map(whole).join("\n").toLowerCase();
    return sought.every((word) => q.sought.includes(word));
  });
}

// ---- The fragment: what is not as at first, and nothing that the data do not have.

let pending;

function fragment(s) {
  const first = fresh(tab);
  const set = Object.entries(s).filter(([key, value]) => value !== first[key]);
  return `#${new URLSearchParams([["task", tab], ...set])}`;
}

function readFragment() {
  const parameters = new URLSearchParams(location.hash.slice(1));
  tab = Object.hasOwn(tabs, parameters.get("task")) ? parameters.get("task") : "spider";
  const s = (states[tab] = fresh(tab));
  for (const [name, options] of Object.entries(tabs[tab].fields)) {
    const value = parameters.get(name);
    if (options().some(([known]) => known === value)) s[name] = value;
  }
  s.search = parameters.get("search") ?? "";
  if (data[tab].byId.has(parameters.get("q"))) s.q = parameters.get("q");
}

function writeFragment() {
  clearTimeout(pending);
  // Browsers refuse many changes a second, as a key held down makes them.
  pending = setTimeout(() => history.replaceState(null, "", fragment(states[tab])), 120);
  if ($("link")) $("link").href = fragment(states[tab]);
}

// ---- The list: only the items in view are in the document.

let found = [];
const narrow = matchMedia("(max-width: 860px)");
const at = () => found.findIndex((q) => q.id === states[tab].q);

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
  const s = states[tab];
  const runs = shownRuns(s);
  const rights = runs.map((run) => tabs[tab].right(q, run, s));
  const names = runs.map((run, i) => `${data.runs[run].name} ${verdict(rights[i])}`).join(", ");
  const marks = runs.length > MANY
    ? make("span", { class: "marks" }, say("score", { n: rights.filter(Boolean).length, all: runs.length }))
    : make("span", { class: "marks", "aria-label": names, role: "img" }, rights.map(mark));
  const item = make("div", {
    class: "item", role: "option", id: `item-${place}`, "data-id": q.id,
    "aria-selected": String(q.id === s.q), "aria-posinset": place + 1, "aria-setsize": found.length,
  }, make("div", { class: "top" }, make("span", { class: "where" }, visible(tabs[tab].where(q))), marks),
     make("div", { class: "text" }, visible(q.question)));
  item.style.top = `${place * ITEM}px`;
  return item;
}

function renderSide() {
  const s = states[tab];
  const first = fresh(tab);
  $("fields").replaceChildren(...Object.entries(tabs[tab].fields).map(([name, options]) => {
    const select = make("select", { id: `field-${name}`, class: s[name] === first[name] ? null : "set" },
      options().map(([value, text]) => make("option", { value, selected: value === s[name] }, text)));
    select.addEventListener("change", () => {
      s[name] = select.value;
      filter();
      $(`field-${name}`).focus();
    });
    return make("div", {}, make("label", { for: select.id }, data.words.fields[name]), select);
  }));
  if ($("search").value !== s.search) $("search").value = s.search;
  for (const name of Object.keys(tabs)) {
    $(`tab-${name}`).setAttribute("aria-selected", String(name === tab));
    $(`tab-${name}`).tabIndex = name === tab ? 0 : -1;
  }
  const active = Object.keys(tabs[tab].fields).filter((key) => s[key] !== first[key]).length;
  $("fold").firstElementChild.textContent = active ? say("filters_set", { n: active }) : data.words.filters;
  $("count").textContent = of(found.length, plural(data[tab].length, "question"));
  $("clear").hidden = !active && !s.search;
  const runs = shownRuns(s).map((run) => data.runs[run].name);
  $("order").textContent = runs.length > MANY ? "" : `${data.words.marks}: ${runs.join(", ")}`;
  $("empty").hidden = found.length > 0;
  $("spacer").style.height = `${found.length * ITEM}px`;
}

function reveal() {
  const list = $("list");
  const top = at() * ITEM;
  if (top < 0) return;
  list.scrollTop = Math.min(top, Math.max(list.scrollTop, top + ITEM - list.clientHeight));
}

// ---- Actions

function filter() {
  found = matches();
  if (at() < 0) states[tab].q = narrow.matches ? "" : found[0]?.id ?? "";
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
  const s = states[tab];
  if (read && narrow.matches && !document.body.classList.contains("reading")) {
    clearTimeout(pending);
    history.replaceState(null, "", fragment({ ...s, q: "" }));
    history.pushState(null, "", fragment({ ...s, q: id }));
    document.body.classList.add("reading");
  }
  s.q = id;
  show();
  if (read) $("main").focus();
}

function move(step) {
  if (!found.length) return;
  const now = at();
  const next = now < 0 ? 0 : Math.min(found.length - 1, Math.max(0, now + step));
  if (next !== now) choose(found[next].id);
}

function toList() {
  if (document.body.classList.contains("reading")) {
    document.body.classList.remove("reading");
    reveal();
    renderList();
    if (narrow.matches) {
      states[tab].q = "";
      writeFragment();
    }
  }
  $("list").focus();
}

function open(name) {
  tab = name;
  document.body.classList.remove("reading");
  filter();
}

function load() {
  readFragment();
  found = matches();
  const s = states[tab];
  document.body.classList.toggle("reading", s.q !== "");
  if (!s.q && !narrow.matches) s.q = found[0]?.id ?? "";
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
  if (target === $("search") || target.matches("select")) {
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
  else if (key === "Enter" && found.length) choose(states[tab].q || found[0].id, true);
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
    states[name] = fresh(name);
    data[name].byId = new Map(data[name].map((q) => [q.id, q]));
    $(`tab-${name}`).lastElementChild.textContent = number(data[name].length);
    $(`tab-${name}`).addEventListener("click", () => open(name));
  }
  $("search").addEventListener("input", () => { states[tab].search = $("search").value; filter(); });
  $("clear").addEventListener("click", () => {
    states[tab] = { ...fresh(tab), q: states[tab].q };
    filter();
    $("search").focus();
  });
  $("list").addEventListener("scroll", renderList);
  $("list").addEventListener("click", (event) => {
    const item = event.target.closest(".item");
    if (item) choose(item.dataset.id, narrow.matches);
  });
  $("main").addEventListener("click", ({ target }) => {
    if (target.dataset.step) move(Number(target.dataset.step));
    else if (target.id === "back") toList();
  });
  document.addEventListener("keydown", onKey);
  addEventListener("resize", renderList);
  addEventListener("popstate", load);
  narrow.addEventListener("change", () => { history.replaceState(null, "", fragment(states[tab])); load(); });
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
