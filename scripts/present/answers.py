"""The page of answers: one HTML file that needs no network and no other file.

Answers are hostile text. They travel as compressed JSON in base64, which cannot end the element it stands in, and reach
the page as text nodes only. A Content-Security-Policy lets nothing run but the page's own script, known by its hash,
and nothing be fetched from anywhere.
"""

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from hashlib import sha256

from markupsafe import Markup

from present.format import Say
from present.templates import FOLDER, html_environment


def answers_page(say: Say, facts: Mapping, runs: Sequence[Mapping], tasks: Sequence[Mapping]) -> str:
    """Write the page of a study.

    Args:
        say: the language.
        facts: `study`, the name in the title; `finding`, what was found, as Markdown; `defects`, sentences.
        runs: each a `key`, a `name`, and as `base` the place of its base model's run, None for a base model. An answer
            stands at the place of its run.
        tasks: the target first. Each has its `name` and `title`; its `form` (sql, choice or match); `right`, the ways
            to be right, and the `headline` among them; `strata`, the values of each column that divides the questions;
            `runs`, the places of those with answers of their own; `schemas`, the text of each database's, and
            `cluster`, the column that names it; `questions`, each with the columns of the records that are about it,
            `choices` if it has them, the `rows` of gold as (index, cells), and `answers`, each with the other columns;
            `prompts`, lists of what was read, as `front_coded` of the step has it, and `reads`, of each run the place
            of its list. A long text is [its beginning, its length].
    """
    style = (FOLDER / "page.css").read_text(encoding="utf-8")
    script = "\n".join((FOLDER / name).read_text(encoding="utf-8") for name in ("queries.js", "answers.js"))
    policy = (
        f"default-src 'none'; script-src 'sha256-{_digest(script)}'; style-src 'sha256-{_digest(style)}'; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )
    words = say.words["answers"] | {key: say.words[key] for key in ("criteria", "levels", "nouns", "defects")}
    words["classes"] = say.words["classes"] | {"ok": words["class_ok"]}
    data = {"language": say.language, "words": words, "runs": runs, "tasks": tasks}
    # ASCII: a lone surrogate is no UTF-8.
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii")
    template = html_environment(say).get_template("answers.html.j2")
    page = template.render(
        title=say.word("answers.title", study=facts["study"]),
        **facts,
        words=words,
        criteria=words | {key: one["name"] for key, one in say.words["criteria"].items()},
        keys={task["name"]: [runs[n]["key"] for n in task["runs"]] for task in tasks},
        adapters=any(run["base"] is not None for run in runs),
        tasks=tasks,
        policy=policy,
        style=Markup(style),
        script=Markup(script),
        data=base64.b64encode(zlib.compress(text, 9)).decode("ascii"),
    )
    return page.encode("utf-8", "replace").decode("utf-8")


def _digest(code: str) -> str:
    return base64.b64encode(sha256(code.encode()).digest()).decode()
