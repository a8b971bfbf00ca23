"""A second answer where the SQL of the first one did not run: its runs, and the words in which it is asked for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, meta, nodes

from common.files import UserError
from study.unfold import runs, target_of, words_sha256

# Behind the label and the folder of a run whose failed answers are repaired.
AGAIN = "@repair1"
PROMPT, KEY = "sql_repair.jinja", "evaluation.repair_prompt"


def repairs(config: dict) -> list[dict[str, Any]]:
    """The runs that repair the answers of another one to the target: as those of `unfold.runs`, with `repairs`.

    That is the label of the other one: each base and each adapter, and of several draws the first. lr0.003@repair1 has
    second answers to the questions on which the SQL of lr0.003 did not run, and takes the others' as they are.
    """
    if not config["evaluation"]["repair"]:
        return []
    here = [run for run in runs(config) if not {"point", "imported", "draw_of"} & run.keys()]
    return [
        {key: run[key] for key in ("model", "settings", "seed") if key in run}
        | {key: f"{run[key]}{AGAIN}" for key in ("variant", "setting", "folder")}
        | {"repairs": run["variant"]}
        for run in here
    ]


def words(config: dict, shipped: Path, asked: Mapping[str, Path]) -> tuple[Path, str]:
    """The template of what a model is told of its failed query, and the SHA-256 of its words.

    Args:
        shipped: the folder of the templates that come with the workflow.
        asked: by key of the target the templates of the first prompts.

    Raises:
        UserError: there is no such template, or a first prompt has no turns, which a further one could follow.
    """
    own = config["evaluation"]["repair_prompt"]
    path = Path(own or shipped / PROMPT)
    found = words_sha256(KEY, path)
    for key, template in {f"tasks.{target_of(config)}.{key}": one for key, one in asked.items()}.items():
        if _whole(template):
            raise UserError(
                f"evaluation.repair: found 1, but {key} is {template}, which writes the whole prompt itself "
                "({% call whole() %}): no turn can follow it. Use a template with turns, or write repair: 0."
            )
    return path, found


def _whole(template: Path) -> bool:
    """Whether a template, or one that it includes, writes a prompt without the model's chat template."""
    tree = Environment().parse(template.read_text(encoding="utf-8"))
    calls = (block.call.node for block in tree.find_all(nodes.CallBlock))
    others = [template.parent / name for name in meta.find_referenced_templates(tree) if name]
    return any(getattr(call, "name", "") == "whole" for call in calls) or any(map(_whole, others))
