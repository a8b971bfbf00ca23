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
from typing import Any

from markupsafe import Markup

from present.format import Say
from present.templates import FOLDER, html_environment


def answers_page(say: Say, study: str, defects: Sequence[str], data: Mapping[str, Any]) -> str:
    """Write the page of a study; `data` is what `templates/answers.js` reads, as its head describes it."""
    style, script = _read("base.css", "answers.css"), _read("answers_question.js", "answers.js")
    policy = (
        f"default-src 'none'; script-src 'sha256-{_digest(script)}'; style-src 'sha256-{_digest(style)}'; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )
    # ASCII: a lone surrogate is no UTF-8.
    words = say.words["answers"] | {"criteria": say.words["criteria"]}
    given = {**data, "language": say.language, "words": words}
    text = json.dumps(given, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    values = {
        "title": say.word("answers.title", study=study),
        "data": base64.b64encode(zlib.compress(text.encode("ascii"), 9)).decode("ascii"),
        "style": Markup(style),
        "script": Markup(script),
    }
    template = html_environment(say).get_template("answers.html.j2")
    return template.render(values, words=words, defects=defects, criteria=data["criteria"], policy=policy)


def _read(*names: str) -> str:
    return "\n" + "\n".join((FOLDER / name).read_text(encoding="utf-8") for name in names)


def _digest(code: str) -> str:
    return base64.b64encode(sha256(code.encode()).digest()).decode()
