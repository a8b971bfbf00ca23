"""What is generated from the schema is what stands in the repository, and describes every key."""

import json
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from study import read
from study.document import documents
from study.messages import declared, inlined, leaves, section_of
from study.models import Adapter, Model
from study.schema import PublishedTable, Stated
from tasks.mmlu import FixedShot
from tasks.registry import KINDS

REPO = Path(__file__).parents[2]
INNER = {
    "models": Model,
    "adapters": Adapter,
    "tasks.mmlu.fixed_shots": FixedShot,
    "published.stated": Stated,
    "published.tables": PublishedTable,
}
KEYS = [
    *leaves(),
    *(item for kind, task in KINDS.items() for item in leaves(declared(task.Options), f"tasks.{kind}.")),
    *(item for place, section in INNER.items() for item in leaves(inlined(section.model_json_schema()), f"{place}[].")),
]
REQUIRED = {
    "study",
    "models",
    "tasks",
    "tasks.mmlu.source",
    *(f"tasks.{kind}.source" for kind in ("replay", "bird", "spider_format", "jsonl")),
    *(f"tasks.mmlu.fixed_shots[].{key}" for key in ("subject", "split", "index")),
    *(f"published.stated[].{key}" for key in ("what", "value")),
    *(f"published.tables[].{key}" for key in ("table", "task", "decimals", "n", "accuracy")),
}


@pytest.mark.parametrize("name", ["config.yaml", "config.schema.json", "docs/config.md"])
def test_the_generated_files_are_up_to_date(name):
    """If this fails: python scripts/studies.py document."""
    assert (REPO / name).read_text(encoding="utf-8") == documents(REPO)[name]


@pytest.mark.parametrize(("place", "node"), KEYS, ids=[place for place, _ in KEYS])
def test_every_key_has_a_description_and_a_default(place, node):
    words = node.get("description") or section_of(node)["description"]
    assert words
    assert words.rstrip().endswith(".")
    assert ("default" not in node) == (place in REQUIRED)
    lines = (REPO / "docs/config.md").read_text(encoding="utf-8")
    assert " ".join(words.split())[:40].replace("<", "&lt;").replace("|", "\\|") in " ".join(lines.split())


def test_config_yaml_shows_every_key():
    def keys(value):
        # What a checked study lacks where it is at its default.
        own = ("answered", "base_prompt", "base_precision", "reanalysed", "rows")
        return {key: keys(one) for key, one in value.items() if key not in own} if isinstance(value, dict) else None

    shown = yaml.safe_load((REPO / "config.yaml").read_text(encoding="utf-8"))
    assert keys(read.check(shown)) == keys(shown)


@pytest.mark.parametrize(
    "path", [REPO / "config.yaml", *sorted((REPO / "studies").glob("*.yaml"))], ids=lambda path: path.stem
)
def test_editors_find_the_studies_of_the_repository_valid(path):
    schema = json.loads((REPO / "config.schema.json").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    validator, study = Draft202012Validator(schema), read.read_yaml(path)
    assert [error.message for error in validator.iter_errors(study)] == []
    for kind in study["tasks"]:
        assert not validator.is_valid(study | {"tasks": study["tasks"] | {kind: {"source": "x", "shost": 1}}})
    for wrong in ({"r": 0}, {"r": "8"}, {"rank": 8}, {"r": [8, "x"]}):
        assert not validator.is_valid(study | {"lora": wrong})


def test_values_are_kept(tmp_path):
    text = (REPO / "config.yaml").read_text(encoding="utf-8")
    assert "\n  r: 8\n" in text
    (tmp_path / "config.yaml").write_text(text.replace("\n  r: 8\n", "\n  r: [4, 8]\n"), encoding="utf-8")
    assert documents(tmp_path)["config.yaml"] == text.replace("\n  r: 8\n", "\n  r: [4, 8]\n")
