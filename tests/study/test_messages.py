"""The sentences with which a study is refused: the key, what was found, what to write instead."""

import copy
import datetime
import gzip
import json
from pathlib import Path

import pytest

from _config import MINIMAL, refusal
from common.files import UserError
from study import read
from study.messages import leaves

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"training": {"learning_rte": 0.1}},
            "training.learning_rte: no such key. Did you mean training.learning_rate?",
        ),
        ({"trainig": {}}, "trainig: no such key. Did you mean training?"),
        ({"learning_rate": 0.1}, "learning_rate: no such key. Did you mean training.learning_rate?"),
        ({"scoring": {"xyz": 1}}, "scoring.xyz: no such key. Keys here: timeout_s."),
        ({"tables": {3: 1}}, "tables.3: no such key. Keys here: confidence_level, semantics."),
        (
            {"training": {"learning_rate": "1e-4"}},
            "training.learning_rate: '1e-4' is text in YAML 1.1; write 1.0e-4 or 0.0001.",
        ),
        (
            {"training": {"learning_rate": [0.1, "5E-5"]}},
            "training.learning_rate[1]: '5E-5' is text in YAML 1.1; write 5.0e-5 or 0.00005.",
        ),
        (
            {"training": {"warmup_steps": "2.5e3"}},
            "training.warmup_steps: '2.5e3' is text in YAML 1.1; write 2.5e+3 or 2500.",
        ),
        ({"training": {"max_steps": "100"}}, "training.max_steps: '100' is text; write 100 without quotes."),
        (
            {"training": {"max_steps": "many"}},
            "training.max_steps: found 'many' (text), expected a whole number or a list.",
        ),
        (
            {"training": {"max_steps": 1.5}},
            "training.max_steps: found 1.5 (a number), expected a whole number or a list.",
        ),
        (
            {"training": {"gradient_checkpointing": 1}},
            "training.gradient_checkpointing: found 1 (a whole number), expected true or false.",
        ),
        (
            {"training": {"seed": True}},
            "training.seed: found True (true or false), expected a whole number or a list.",
        ),
        (
            {"training": {"optim": None}},
            "training.optim: found null, expected text. Write a value, or leave the key out for its default.",
        ),
        ({"training": None}, "training: found null, expected a mapping."),
        ({"training": {"learning_rate": []}}, "training.learning_rate: found nothing in it, expected at least 1."),
        ({"models": {}}, "models: found nothing in it, expected at least 1."),
        (
            {"training": {"learning_rate": [0.0002, 2.0e-4]}},
            "training.learning_rate: a value stands twice in [0.0002, 0.0002]. Remove one.",
        ),
        ({"lora": {"r": [8, 8.0]}}, "lora.r: a value stands twice in [8, 8]. Remove one."),
        (
            {"lora": {"target_modules": [["a", "b"], ["b", "a"]]}},
            "lora.target_modules: a value stands twice in [['a', 'b'], ['a', 'b']]. Remove one.",
        ),
        ({"lora": {"target_modules": ["a", ["b"]]}}, "lora.target_modules: found ['a', ['b']], expected one list of"),
        ({"lora": {"r": 0}}, "lora.r: found 0, expected at least 1."),
        ({"lora": {"lora_dropout": [0.1, 1.0]}}, "lora.lora_dropout[1]: found 1.0, expected less than 1."),
        (
            {"prompt": {"schema": "dll"}},
            "prompt.schema: found 'dll', expected one of compact, pipe, ddl, ddl_rows, none. Did you mean ddl?",
        ),
        ({"prompt": {"style": "souza"}}, "prompt.style: found 'souza', expected one of default, ribeiro."),
        ({"prompt": {"train_target": "all"}}, "prompt.train_target: found 'all', expected one of sql, prompt."),
        (
            {"mmlu": {"source": "x", "shots_from": "test"}},
            "mmlu.shots_from: found 'test', expected one of own_dev, first_subject, ",
        ),
        (
            {"mmlu": {"source": "x", "fixed_shots": [{"subject": "astronomy", "split": "val", "index": 0}]}},
            "mmlu.fixed_shots[0].split: found 'val', expected one of dev, test.",
        ),
        (
            {"spider": {"validation": {"by": "hardness"}}},
            "spider.validation.by: found 'hardness', expected one of rows, database, dev, none.",
        ),
        ({"spider": {"validation": {"fraction": None}}}, "spider.validation.fraction: found null, expected a number."),
        ({"spider": {"validation": {"fraction": 1.0}}}, "spider.validation.fraction: found 1.0, expected less than 1."),
        (
            {"training": {"eval_strategy": False}},
            "training.eval_strategy: found False (YAML 1.1 reads yes, no, on and off as true or false), expected text. "
            "Put it in quotes.",
        ),
        # What nothing can be drawn with.
        ({"inference": {"temperature": 0.0}}, "inference.temperature: found 0.0, expected more than 0."),
        ({"inference": {"top_p": 0.0}}, "inference.top_p: found 0.0, expected more than 0."),
        ({"inference": {"top_p": 1.5}}, "inference.top_p: found 1.5, expected at most 1."),
        (
            {"models": {"m": {"source": "x", "precision": "fp8"}}},
            "models.m.precision: found 'fp8', expected one of fp32, bf16, nf4.",
        ),
        ({"training": {"report_to": "wandb"}}, "training.report_to: found 'wandb', expected one of none, tensorboard."),
        ({"training": {"fp16": True}}, "training.fp16: no such key."),
        ({"training": {"packing": True}}, "training.packing: no such key."),
        ({"training": {"max_seq_length": 512}}, "training.max_seq_length: no such key. Did you mean"),
        ({"training": {"save_total_limit": 1}}, "training.save_total_limit: found 1, expected at least 2."),
        (
            {"accept_defect": ["truncate"]},
            "accept_defect[0]: found 'truncate', expected one of dev_used_to_choose, target_not_in_loss, truncated. "
            "Did you mean truncated?",
        ),
        (
            {"spider": {"validation": {"questions": 0}}},
            "spider.validation.questions: found 0, expected at least 1.",
        ),
        ({"study": "../x"}, "study: found '../x', expected a name of lower-case letters"),
        ({"study": "Demo"}, "study: found 'Demo', expected a name of lower-case letters"),
        ({"study": ".."}, "study: found '..', expected a name of lower-case letters"),
        ({"study": "x\n"}, "study: found 'x\\n', expected a name of lower-case letters"),
        ({"study": 3}, "study: found 3 (a whole number), expected text."),
        (
            {"models": {"m": {"source": "x", "precision": "nf4"}}, "inference": {"merge_adapters": True}},
            "inference.merge_adapters: found true, but models.m.precision is nf4",
        ),
        ({"models": {"a/b": {"source": "x"}}}, "models.a/b: found 'a/b', expected a name of lower-case letters"),
        ({"models": {"m": {}}}, "models.m.source: missing."),
        ({"evaluation": {"strengths": [-0.5]}}, "evaluation.strengths[0]: found -0.5, expected at least 0."),
        ({"evaluation": {"steps": [0]}}, "evaluation.steps[0]: found 0, expected at least 1."),
        (
            {"evaluation": {"soups": {"a/b": []}}},
            "evaluation.soups.a/b: found 'a/b', expected a name of lower-case letters",
        ),
        ({"spider": {"sha256": "abc"}}, "spider.sha256: found 'abc', expected the archive's SHA-256 in 64"),
    ],
)
def test_a_mistake_gets_one_sentence_with_its_key(sections, message):
    text = refusal(**sections)
    assert text.startswith(f"config.yaml, {message}")
    assert "\n" not in text


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"training": {"eval_strategy": "steps"}, "spider": {"validation": {"by": "none"}}},
            "training.eval_strategy: found steps, but spider.validation.by is none",
        ),
        ({"spider": {"validation": {"by": "dev"}}}, "spider.validation.by: found dev, the questions of the evaluation"),
        (
            {"training": {"load_best_model_at_end": True}},
            'training.load_best_model_at_end: found true, but eval_strategy is "no".',
        ),
        (
            {"training": {"early_stopping_patience": 2, "eval_strategy": "steps"}},
            "training.early_stopping_patience: found 2, but load_best_model_at_end is false.",
        ),
        (
            {
                "training": {
                    "load_best_model_at_end": True,
                    "eval_strategy": "steps",
                    "eval_steps": 20,
                    "save_steps": 50,
                }
            },
            "training.save_steps: found 50, expected a multiple of eval_steps = 20",
        ),
        ({"replay": {"fraction": 0.1}}, "replay.source: missing, but replay.fraction is 0.1"),
        ({"replay": {"source": "f.csv", "kl": 1.0}}, "replay.kl: found 1.0, but replay.fraction is 0.0: there are no"),
        (
            {"replay": {"source": "f.csv", "fraction": [0.0, 0.1], "kl": [1.0, 2.0]}},
            "replay.kl: found [1.0, 2.0], but a replay.fraction is 0: that adapter has no such term. Add 0.0",
        ),
        (
            {"evaluation": {"steps": [5]}, "training": {"kept_steps": [4]}},
            "evaluation.steps: found 5, but training.kept_steps is [4]: no adapter of that step is kept.",
        ),
        (
            {"evaluation": {"adapters": ["lr0.01"]}, "training": {"learning_rate": [0.1, 0.2]}},
            "evaluation.adapters: found lr0.01, expected adapters of this study, such as lr0.1.",
        ),
        (
            {"evaluation": {"soups": {"both": ["lr0.1", "base"]}}, "training": {"learning_rate": [0.1, 0.2]}},
            "evaluation.soups.both: found base, expected adapters of this study, such as lr0.1.",
        ),
        (
            {"evaluation": {"soups": {"one": ["lr0.1"]}}, "training": {"learning_rate": [0.1, 0.2]}},
            "evaluation.soups.one: found 1 adapters, expected at least 2 to average.",
        ),
        (
            {"models": {"m": {"source": "x", "precision": "nf4"}}, "recommend": {"merge": True}},
            "recommend.merge: found true, but models.m.precision is nf4, and 4-bit weights cannot hold",
        ),
        (
            {"mmlu": {"source": "x", "shots_from": "fixed"}},
            "mmlu.fixed_shots: found 0 rows, expected mmlu.shots = 4.",
        ),
        (
            {"mmlu": {"source": "x", "shots": 1, "fixed_shots": [{"subject": "s", "split": "dev", "index": 0}]}},
            "mmlu.fixed_shots: not used, since shots_from is own_dev.",
        ),
        (
            {
                "published": {
                    "model": "n",
                    "tables": [
                        {
                            "table": "I",
                            "measure": "mmlu",
                            "decimals": 1,
                            "n": {"all": 1},
                            "accuracy": {"base": {"all": 1}},
                        }
                    ],
                }
            },
            "published.model: found n, expected one of this study's models: m.",
        ),
        (
            {
                "published": {
                    "model": "m",
                    "tables": [
                        {
                            "table": "I",
                            "measure": "mmlu",
                            "decimals": 1,
                            "n": {"all": 1},
                            "accuracy": {"base": {"law": 1}},
                        }
                    ],
                }
            },
            "published.tables[0].accuracy.base.law: there is no such column in n, which has all.",
        ),
    ],
)
def test_what_contradicts_itself_is_refused(sections, message):
    text = refusal(**sections)
    assert text.startswith(f"config.yaml, {message}")
    assert "\n" not in text


def test_all_mistakes_are_named_at_once():
    text = refusal(training={"learning_rate": "1e-4", "sed": 1}, lora={"r": None})
    assert [line.split(": ")[0] for line in text.splitlines()] == [
        "config.yaml, lora.r",
        "config.yaml, training.learning_rate",
        "config.yaml, training.sed",
    ]


def said(sections: dict) -> list[str]:
    try:
        read.check(MINIMAL | sections)
    except UserError as error:
        return sorted({line.removeprefix("config.yaml, ") for line in str(error).splitlines()})
    return []


def test_every_key_is_refused_in_the_same_words_as_before():
    """Every key with values of a wrong type, out of bounds, misspelt, unknown, or contradicting others."""
    rows = json.loads(gzip.decompress((GOLDEN / "refusals.json.gz").read_bytes()))
    assert len(rows) > 1100
    changed = [
        {"given": given, "before": before, "now": said(given)} for given, before in rows if said(given) != before
    ]
    # Each of these was looked at: the words are plainer, or name what was written (1, not 1.0).
    assert changed == json.loads((GOLDEN / "refusals_changed.json").read_text(encoding="utf-8"))


ODD = (None, True, -1, float("nan"), "x", "1e", [], [[None]], [{}], {}, {"a": {}}, {None: 3}, datetime.date(2020, 1, 1))


@pytest.mark.parametrize("chosen", [{}, {"scale": "smoke"}, {"face": "as_reported"}])
def test_whatever_stands_there_ends_in_a_study_or_in_sentences(chosen):
    for place in [*(place for place, _ in leaves()), "models.m", "models.m.precision"]:
        *sections, key = place.split(".")
        for value in ODD:
            given = inner = copy.deepcopy(MINIMAL) | chosen
            for section in sections:
                inner = inner.setdefault(section, {})
            inner[key] = value
            try:
                read.resolve(given)
            except UserError as error:
                assert all(line.startswith("config.yaml, ") for line in str(error).splitlines())
