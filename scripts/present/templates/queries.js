"use strict";
// Queries, coloured and compared with gold, and the list as CSV. What answers.js defines is there when these are called.
const KEYWORDS = "all|and|as|asc|between|by|case|cast|cross|desc|distinct|else|end|except|exists|from|full|group|" +
  "having|in|inner|intersect|is|join|left|like|limit|natural|not|null|offset|on|or|order|outer|right|select|then|" +
  "union|using|values|when|where|with";
const TOKEN = new RegExp(`('(?:[^']|'')*'|"(?:[^"]|"")*")|\\b(${KEYWORDS})\\b|\\w+|[^'"\\w]+|['"]`, "gi");
const sql = (text) => [...text.matchAll(TOKEN)].map(([token, string, keyword]) =>
  string || keyword ? make(string ? "span.str" : "span.kw", visible(token)) : visible(token));

// The query of an answer against gold, word by word: the longest common subsequence, by dynamic programming. Case
// counts in strings alone. Queries of thousands of words are not compared.
const WORD = /'(?:[^']|'')*'|"(?:[^"]|"")*"|\w+|[<>=!|]+|[^\s\w;]/g;
const plainWord = (word) => (/^['"]/.test(word) ? word : word.toLowerCase());

function compared(gold, taken) {
  const [a, b] = [gold.match(WORD) ?? [], taken.match(WORD) ?? []];
  if (a.length * b.length > 1e6) return null;
  const same = (i, j) => plainWord(a[i]) === plainWord(b[j]);
  const length = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      length[i][j] = same(i, j) ? length[i + 1][j + 1] + 1 : Math.max(length[i + 1][j], length[i][j + 1]);
    }
  }
  const parts = []; // runs of words, each "=", "−" or "+"
  const add = (sign, word) => (parts.at(-1)?.[0] === sign ? parts.at(-1)[1].push(word) : parts.push([sign, [word]]));
  for (let i = 0, j = 0; i < a.length || j < b.length;) {
    if (i < a.length && j < b.length && same(i, j)) [add("=", b[j++]), i++];
    else if (j === b.length || (i < a.length && length[i + 1][j] >= length[i][j + 1])) add("−", a[i++]);
    else add("+", b[j++]);
  }
  return parts;
}

// How the query of an answer differs from gold; nothing of one that has no query.
function comparison(gold, taken) {
  const parts = taken && compared(gold, taken);
  if (!parts) return null;
  if (parts.every(([sign]) => sign === "=")) return make("p.none", data.words.same_words);
  const tags = { "=": "span", "−": "del", "+": "ins" };
  return make("div", make("h4", data.words.compared), pre(data.words.compared,
    parts.flatMap(([sign, words]) => [make(tags[sign], sign === "=" ? "" : sign, visible(words.join(" "))), " "])));
}

// ---- The list as CSV

// A text that a spreadsheet would compute gets an apostrophe: answers are not to be trusted there either.
function csvCell(value) {
  const text = String(value ?? "");
  const safe = /^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

function csv() {
  const runs = shownRuns();
  const { outcome } = forms[task.form];
  const texts = ({ sql: taken, answer, prediction }) => whole(taken ?? answer ?? prediction);
  const heads = ["id", ...Object.keys(task.strata), "question", "gold", ...runs.flatMap((run) =>
    ["correct", "class", "answer"].map((column) => `${data.runs[run].name} ${column}`))];
  const rows = found.map((q) => [q.id, ...strata(q), q.question, q.gold ?? q.answer, ...runs.flatMap((run) =>
    [Number(right(q, run)), outcome(q.answers[run]) || "", texts(q.answers[run])])]);
  return [heads, ...rows].map((row) => row.map(csvCell).join(",")).join("\r\n") + "\r\n";
}

function save() {
  const address = URL.createObjectURL(new Blob(["\ufeff", csv().toWellFormed()], { type: "text/csv" }));
  make("a", { href: address, download: `answers-${task.name}.csv` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}
