"""The sentences with which a study is refused: the key, what was found, what to write instead."""

import copy
import datetime
import gzip
import json
import re
from pathlib import Path

import pytest

from _config import GENERAL, MINIMAL, SWEEP, minimal, refusal, study
from _moved import moved
from _moved import said as said_now
from _rules import parse
from common.files import UserError
from present import catalogue
from study import read
from study.messages import GONE, declared, leaves
from study.read import RESERVED
from tasks.registry import KINDS

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
        ({"replay": {"xyz": 1}}, "replay.xyz: no such key. Keys here: fraction, kl."),
        ({"tables": {3: 1}}, "tables.3: no such key. Keys here: confidence_level, margin_pp."),
        (
            {"training": {"learning_rate": "1e-4"}},
            "training.learning_rate: '1e-4' is text in YAML 1.1; write 1.0e-4 or 0.0001.",
        ),
        (
            {"sweep": {"training.learning_rate": [0.1, "5E-5"]}},
            "sweep.training.learning_rate: '5E-5' is text in YAML 1.1; write 5.0e-5 or 0.00005.",
        ),
        (
            {"training": {"warmup_steps": "2.5e3"}},
            "training.warmup_steps: '2.5e3' is text in YAML 1.1; write 2.5e+3 or 2500.",
        ),
        ({"training": {"max_steps": "100"}}, "training.max_steps: '100' is text; write 100 without quotes."),
        (
            {"training": {"max_steps": "many"}},
            "training.max_steps: found 'many' (text), expected a whole number.",
        ),
        (
            {"training": {"max_steps": 1.5}},
            "training.max_steps: found 1.5 (a number), expected a whole number.",
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
        ({"training": {"seed": []}}, "training.seed: found nothing in it, expected at least 1."),
        (
            {"sweep": {"training.learning_rate": []}},
            "sweep.training.learning_rate: found nothing in it, expected at least 1.",
        ),
        (
            {"training": {"learning_rate": [0.1, 0.2]}},
            "training.learning_rate: found [0.1, 0.2] (a list), expected a number. To compare several, write sweep: "
            "{training.learning_rate: [0.1, 0.2]}.",
        ),
        ({"models": {}}, "models: found nothing in it, expected at least 1."),
        (
            {"sweep": {"training.learning_rate": [0.0002, 2.0e-4]}},
            "sweep.training.learning_rate: a value stands twice in [0.0002, 0.0002]. Remove one.",
        ),
        ({"training": {"seed": [8, 8.0]}}, "training.seed: a value stands twice in [8, 8]. Remove one."),
        (
            {"sweep": {"lora.target_modules": [["a", "b"], ["b", "a"]]}},
            "sweep.lora.target_modules: a value stands twice in [['a', 'b'], ['a', 'b']]. Remove one.",
        ),
        (
            {"lora": {"target_modules": ["a", ["b"]]}},
            "lora.target_modules[1]: found ['b'] (a list), expected text. To compare several, write them under sweep: "
            "{lora.target_modules: [[...], [...]]}.",
        ),
        ({"lora": {"r": 0}}, "lora.r: found 0, expected at least 1."),
        ({"sweep": {"lora.lora_dropout": [0.1, 1.0]}}, "sweep.lora.lora_dropout: found 1.0, expected less than 1."),
        (
            {"tasks": {"spider": {"schema": "dll"}}},
            "tasks.spider.schema: found 'dll', expected one of compact, pipe, ddl, ddl_rows, none. Did you mean ddl?",
        ),
        (
            {"training": {"loss_on": "all"}},
            "training.loss_on: found 'all', expected one of completion, assistant, text, prompt.",
        ),
        (
            {"tasks": {"mmlu": {"source": "x", "shots_from": "test"}}},
            "tasks.mmlu.shots_from: found 'test', expected one of own_dev, per_question, ",
        ),
        (
            {"tasks": {"mmlu": {"source": "x", "fixed_shots": [{"subject": "astronomy", "split": "val", "index": 0}]}}},
            "tasks.mmlu.fixed_shots[0].split: found 'val', expected one of dev, test.",
        ),
        (
            {"tasks": {"spider": {"validation": {"by": "hardness"}}}},
            "tasks.spider.validation.by: found 'hardness', expected one of rows, database, dev, none.",
        ),
        (
            {"tasks": {"spider": {"validation": {"fraction": None}}}},
            "tasks.spider.validation.fraction: found null, expected a number.",
        ),
        (
            {"tasks": {"spider": {"validation": {"fraction": 1.0}}}},
            "tasks.spider.validation.fraction: found 1.0, expected less than 1.",
        ),
        (
            {"training": {"eval_strategy": False}},
            "training.eval_strategy: found False (YAML 1.1 reads yes, no, on and off as true or false), expected text. "
            "Put it in quotes.",
        ),
        # What no library can store, and what is no number.
        ({"training": {"max_steps": 0}}, "training.max_steps: found 0, expected -1 for no limit, or at least 1."),
        ({"training": {"seed": 2**70}}, f"training.seed: found {2**70}, expected at most 2147483647."),
        ({"training": {"seed": [1, 2**70]}}, f"training.seed[1]: found {2**70}, expected at most 2147483647."),
        (
            {"training": {"data_seed": -(2**70)}},
            f"training.data_seed: found {-(2**70)}, expected at least -2147483647.",
        ),
        (
            {"training": {"learning_rate": 1e30}},
            "training.learning_rate: found 1e+30, expected at most 1000000000000000.",
        ),
        ({"training": {"adam_beta1": 1e30}}, "training.adam_beta1: found 1e+30, expected at most 1000000000000000."),
        (
            {"training": {"seed": float("nan")}},
            "training.seed: found nan (a number), expected a whole number or a list.",
        ),
        ({"lora": {"r": float("inf")}}, "lora.r: found inf (a number), expected a whole number."),
        (
            {"training": {"weight_decay": float("nan")}},
            "training.weight_decay: found nan, expected a number that is not",
        ),
        ({"sweep": {"lora.r": [8, 1e30]}}, "sweep.lora.r: found 1e+30, expected at most 2147483647."),
        # Some of the training rows.
        (
            {"training": {"rows": {"seed": 1}}},
            "training.rows.count: found neither of count and fraction. Write one of them.",
        ),
        (
            {"training": {"rows": {"count": 5, "fraction": 0.5}}},
            "training.rows.count: found both of count and fraction. Write one of them.",
        ),
        ({"training": {"rows": {"fraction": 1.0}}}, "training.rows.fraction: found 1.0, expected less than 1."),
        ({"training": {"rows": {"count": 0}}}, "training.rows.count: found 0, expected at least 1."),
        (
            {"sweep": {"training.rows": [None, {"fraction": 2.0}]}},
            "sweep.training.rows.fraction: found 2.0, expected less than 1.",
        ),
        (
            {"sweep": {"training.rows": [{"fraction": 0.5}, {"fraction": 0.5, "seed": 42}]}},
            "sweep.training.rows: a value stands twice in",
        ),
        (
            {"training": {"rows": {"count": 8660}}},
            "training.rows.count: found 8660, expected at most 8659, as many as tasks.spider.counts leaves.",
        ),
        (
            {"training": {"rows": {"count": 6}}, "tasks": {"spider": {"train_questions": 5}}},
            "training.rows.count: found 6, expected at most 5, as many as tasks.spider.train_questions leaves.",
        ),
        (
            {"adapters": {"few": {"training": {"rows": {"count": 5, "balance": "difficulty"}}}}},
            "training.rows.balance: found difficulty, expected one of hardness, database, which every training row of "
            "kind spider has.",
        ),
        (
            {"training": {"rows": {"count": 5, "balance": "a b"}}},
            "training.rows.balance: found 'a b', expected the name of a column in letters, digits and underscores.",
        ),
        (
            {"training": {"rows": {"count": 5}}, "sweep": {"tasks.spider.train_questions": [5, 6]}},
            "training.rows: not beside sweep.tasks.spider.train_questions, which chooses rows too. Remove one.",
        ),
        # A precision of the base's own.
        (
            {"models": {"m": {"source": "x", "precision": "nf4", "base_precision": "nf4"}}},
            "models.m.base_precision: found nf4, which precision is anyway. Remove it.",
        ),
        (
            {
                "models": {
                    "m": {
                        "source": "x",
                        "precision": "int8",
                        "base_precision": "nf4",
                        "quantization": {"llm_int8_threshold": 5.0},
                    }
                }
            },
            "models.m.quantization: found llm_int8_threshold, but precision is int8 and base_precision nf4: a key",
        ),
        # Words of the libraries.
        (
            {"training": {"optim": "adamw_troch"}},
            "training.optim: found 'adamw_troch', expected one of 41 names, which config.schema.json lists. Did you "
            "mean adamw_torch?",
        ),
        (
            {"training": {"lr_scheduler_type": "cosin"}},
            "training.lr_scheduler_type: found 'cosin', expected one of linear, cosine, ",
        ),
        (
            {"sweep": {"training.optim": ["adamw_torch", "sdg"]}},
            "sweep.training.optim: found 'sdg', expected one of 41 names, which config.schema.json lists. Did you mean",
        ),
        # Names in results/ that are taken.
        ({"study": "x" * 81}, f"study: found '{'x' * 81}', expected a name of at most 80 characters."),
        (
            {"study": "downloads"},
            "study: found 'downloads', expected another name: results/downloads is, or may become,",
        ),
        ({"study": "demo-smoke"}, "study: found 'demo-smoke', expected another name"),
        ({"study": "demo-as_reported"}, "study: found 'demo-as_reported', expected another name"),
        ({"study": "calibration.json"}, "study: found 'calibration.json', expected another name"),
        ({"study": "fingerprints.json"}, "study: found 'fingerprints.json', expected another name"),
        # What nothing can be drawn with.
        ({"inference": {"temperature": 0.0}}, "inference.temperature: found 0.0, expected more than 0."),
        ({"inference": {"top_p": 0.0}}, "inference.top_p: found 0.0, expected more than 0."),
        ({"tasks": {"spider": {"timeout_s": 1e6}}}, "tasks.spider.timeout_s: found 1000000.0, expected at most 86400."),
        ({"inference": {"top_p": 1.5}}, "inference.top_p: found 1.5, expected at most 1."),
        (
            {"models": {"m": {"source": "x", "precision": "fp8"}}},
            "models.m.precision: found 'fp8', expected one of fp32, bf16, fp16, nf4, int8.",
        ),
        ({"training": {"report_to": "wandbs"}}, "training.report_to: found 'wandbs', expected one of none, azure_ml, "),
        ({"training": {"fp16": True}}, "training.fp16: SFTConfig has this key, but no study may set it"),
        ({"training": {"packing": True}}, "training.packing: SFTConfig has this key, but no study may set it"),
        ({"training": {"max_seq_length": 512}}, "training.max_seq_length: no such key. Did you mean"),
        ({"training": {"save_total_limit": 1}}, "training.save_total_limit: found 1, expected at least 2."),
        (
            {"accept_defect": ["truncate"]},
            "accept_defect[0]: found 'truncate', expected one of dev_used_to_choose, target_not_in_loss, truncated. "
            "Did you mean truncated?",
        ),
        (
            {"tasks": {"spider": {"validation": {"questions": 0}}}},
            "tasks.spider.validation.questions: found 0, expected at least 1.",
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
        ({"evaluation": {"interpolate": [-0.5]}}, "evaluation.interpolate[0]: found -0.5, expected at least 0."),
        ({"evaluation": {"checkpoints": [0]}}, "evaluation.checkpoints[0]: found 0, expected at least 1."),
        (
            {"evaluation": {"soups": {"a/b": []}}},
            "evaluation.soups.a/b: found 'a/b', expected a name of lower-case letters",
        ),
        (
            {"tasks": {"spider": {"sha256": "abc"}}},
            "tasks.spider.sha256: found 'abc', expected the archive's SHA-256 in 64",
        ),
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
            {"training": {"eval_strategy": "steps"}, "tasks": {"spider": {"validation": {"by": "none"}}}},
            "training.eval_strategy: found steps, but tasks.spider.validation.by is none",
        ),
        (
            {"tasks": {"spider": {"validation": {"by": "dev"}}}},
            "tasks.spider.validation.by: found dev, the questions of the evaluation",
        ),
        (
            {"inference": {"seed": [1, 2]}},
            "inference.seed: found [1, 2], but do_sample is false: a greedy answer is the same with every seed. Write "
            "do_sample: true, or seed: 1.",
        ),
        (
            {"inference": {"seed": [3, 3], "do_sample": True}},
            "inference.seed: a value stands twice in [3, 3]. Remove one.",
        ),
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
        (
            {"replay": {"fraction": 0.1}},
            "replay.fraction: found 0.1, but no task has the role replay. Add one to tasks",
        ),
        (
            {"tasks": GENERAL, "replay": {"kl": 1.0}},
            "replay.kl: found 1.0, but replay.fraction is 0.0: there are no",
        ),
        (
            {"tasks": GENERAL, "sweep": {"replay.fraction": [0.0, 0.1], "replay.kl": [1.0, 2.0]}},
            "sweep.replay.kl: found [1.0, 2.0], but a replay.fraction is 0: that adapter has no such term. Add 0.0",
        ),
        (
            {"adapters": {"x": {"replay": {"kl": 1.0}}}},
            "adapters.x: replay.kl is 1.0, but replay.fraction is 0: there are no rows to compute it on.",
        ),
        ({"sweep": {"lora.rr": [4]}}, "sweep.lora.rr: no such key. Did you mean sweep.lora.r?"),
        ({"sweep": {"tables.confidence_level": [0.9]}}, "sweep.tables.confidence_level: expected a key of lora, train"),
        ({"sweep": {"tasks.mmlu.train_questions": [9]}}, "sweep.tasks.mmlu.train_questions: expected a key of lora"),
        ({"sweep": {"tasks.spider.train_questions": [0]}}, "sweep.tasks.spider.train_questions: found 0, expected at"),
        ({"sweep": {"training.seed": [1, 2]}}, "sweep.training.seed: seeds are no setting. Write training.seed: [1, 2"),
        ({"sweep": {"training.max_length": [64, 128]}}, "sweep.training.max_length: all adapters share the rows."),
        ({"sweep": {"training.bf16": [True]}}, "sweep.training.bf16: SFTConfig has this key, but no study may set it"),
        (
            {"sweep": {"training.logging_steps": [1, 2]}},
            "logging_steps2 and logging_steps1 are the same training. Remove one from sweep or adapters.",
        ),
        (
            {"sweep": {"lora.r": [8]}, "adapters": {"same": {"lora": {"r": 8}}}},
            "same and r8 are the same training. Remove one from sweep or adapters.",
        ),
        ({"adapters": {"x": {"lora": {"rr": 4}}}}, "adapters.x.lora.rr: no such key. Did you mean adapters.x.lora.r?"),
        ({"adapters": {"x": {"training": {"learning_rate": "1e-4"}}}}, "adapters.x.training.learning_rate: '1e-4' is"),
        ({"adapters": {"x": {"training": {"truncate": True}}}}, "adapters.x.training.truncate: all adapters share the"),
        (
            {"adapters": {"x": {"revision": "main"}}},
            "adapters.x.revision: found main, but no source. Add it, or remove",
        ),
        (
            {"adapters": {"x": {"source": "folder", "lora": {"r": 4}}}},
            "adapters.x.lora: not used, since an adapter with a source is not trained. Remove it.",
        ),
        (
            {
                "sweep": SWEEP,
                "adapters": {"x": {"training": {"seed": [1, 2]}}},
                "evaluation": {"soups": {"both": ["x", "lr0.1"]}},
            },
            "evaluation.soups.both: a mean is made once a seed, but x has 2, lr0.1 has 1. Name settings with the same",
        ),
        (
            {"evaluation": {"adapters": ["lr0.01"]}, "sweep": SWEEP},
            "evaluation.adapters: found lr0.01, expected adapters of this study, such as lr0.1.",
        ),
        (
            {"evaluation": {"soups": {"both": ["lr0.1", "base"]}}, "sweep": SWEEP},
            "evaluation.soups.both: found base, expected adapters of this study, such as lr0.1.",
        ),
        (
            {"evaluation": {"soups": {"one": ["lr0.1"]}}, "sweep": SWEEP},
            "evaluation.soups.one: found 1 adapters, expected at least 2 to average.",
        ),
        (
            {"models": {"m": {"source": "x", "precision": "int8"}}, "training": {"method": "full"}},
            "models.m.precision: found int8, but setting adapter has training.method: full, and quantised",
        ),
        (
            {"adapters": {"x": {"training": {"method": "full", "learning_rate": 1.0e-5}, "lora": {"r": 4}}}},
            "adapters.x.lora.r: not used, since training.method is full. Remove it.",
        ),
        (
            {"adapters": {"x": {"training": {"method": "full"}}}},
            "adapters.x.training.learning_rate: missing, and the study's 0.0001 is for adapters. Full",
        ),
        (
            {
                "sweep": SWEEP,
                "adapters": {"x": {"training": {"method": "full", "learning_rate": 1.0e-5}}},
                "evaluation": {"soups": {"both": ["lr0.1", "x"]}},
            },
            "evaluation.soups.both: found x, which is full fine-tuning, beside adapters: there is no mean of both.",
        ),
        (
            {"sweep": {"training.method": ["lora", "full"], "lora.r": [4, 8]}},
            "r8-full and r4-full are the same training. Remove one from sweep or adapters.",
        ),
        (
            {"models": {"m": {"source": "x", "precision": "nf4"}}, "recommend": {"merge": True}},
            "recommend.merge: found true, but models.m.precision is nf4, and 4-bit weights cannot hold",
        ),
        (
            {"adapters": {"lr0.1": {"source": "folder"}}, "sweep": SWEEP},
            "adapters.lr0.1: this study has another run of that name. Write another name.",
        ),
        (
            {"models": {"m": {"source": "resources/demo/model", "revision": "0" * 40}}},
            f"models.m.revision: found {'0' * 40}, expected null, since a local folder has no revision.",
        ),
        (
            {"adapters": {"public": {"source": "hub:a/b"}}},
            "adapters.public.revision: found null, expected a commit of 40 hexadecimal digits.",
        ),
        (
            {"adapters": {"public": {"source": "folder", "revision": "main"}}},
            "adapters.public.revision: found main, expected null, since a local folder has no revision.",
        ),
        (
            {"adapters": {"public": {"source": "folder", "model": "n"}}},
            "adapters.public.model: found n, expected the one of this study's models that it is made for: m.",
        ),
        (
            {"adapters": {"public": {"source": "f"}}, "models": {"m": {"source": "x"}, "n": {"source": "y"}}},
            "adapters.public.model: found null, expected the one of this study's models that it is made for: m, n.",
        ),
        (
            {"tasks": {"mmlu": {"source": "x", "shots_from": "fixed"}}},
            "tasks.mmlu.fixed_shots: found 0 rows, expected shots = 4.",
        ),
        (
            {
                "tasks": {
                    "mmlu": {
                        "source": "x",
                        "shots": 1,
                        "fixed_shots": [{"subject": "s", "split": "dev", "index": 0}],
                    }
                }
            },
            "tasks.mmlu.fixed_shots: not used, since shots_from is own_dev.",
        ),
        (
            {
                "published": {
                    "model": "n",
                    "tables": [
                        {
                            "table": "I",
                            "task": "mmlu",
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
                            "task": "mmlu",
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


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ({"spider": {"role": "yardstick"}}, "tasks: found 0 tasks of role target (none), expected 1. Give one of them"),
        (
            {"other": {"kind": "spider"}},
            "tasks: found 2 tasks of role target (other, spider), expected 1. Give the others another role.",
        ),
        (
            GENERAL | {"more": GENERAL["general"]},
            "tasks: found 2 tasks of role replay (general, more), expected at most 1. Give the others another role.",
        ),
        ({"mmlu": {"source": "x", "role": "target"}}, "tasks.mmlu.role: found 'target', expected"),
        (
            {"mmul": {"source": "x"}},
            "tasks.mmul.kind: found mmul, expected one of spider, spider_format, bird, mmlu, jsonl, replay",
        ),
        ({"a": {"kind": "spidr"}}, "tasks.a.kind: found spidr, expected one of"),
        ({"a": {"kind": 3}}, "tasks.a.kind: found 3, expected one of"),
        ({"a": {"kind": None}}, "tasks.a.kind: found None, expected one of"),
        ({"a": {}}, "tasks.a.kind: found a, expected one of"),
        ({"a": {"kind": ["spider"]}}, "tasks.a.kind: found ['spider'], expected one of"),
        ({"A": {"kind": "mmlu", "source": "x"}}, "tasks.A: found 'A', expected a name of lower-case letters, digits"),
        ({"9": {"kind": "mmlu", "source": "x"}}, "tasks.9: found '9', expected a name of lower-case letters, digits"),
        ({"a-b": {"kind": "mmlu", "source": "x"}}, "tasks.a-b: found 'a-b', expected a name of lower-case letters"),
        ({"mmlu": None}, "tasks.mmlu: found null, expected a mapping."),
        ({"mmlu": {"source": "x", "shost": 1}}, "tasks.mmlu.shost: no such key. Did you mean tasks.mmlu.shots?"),
        (
            {"mmlu": {"source": "x", "criterion": "bag"}},
            "tasks.mmlu.criterion: no such key. Did you mean tasks.spider.cri",
        ),
        (
            {"spider": {"learning_rate": 1.0}},
            "tasks.spider.learning_rate: no such key. Did you mean training.learning_rate?",
        ),
        ({"spider": {"max_new_tokens": 0}}, "tasks.spider.max_new_tokens: found 0, expected at least 1."),
        ({"a": {"kind": "replay"}}, "tasks.a.source: missing."),
    ],
)
def test_what_no_task_can_be_is_refused(tasks, message):
    text = refusal(tasks=tasks)
    assert text.startswith(f"config.yaml, {message}")
    assert "\n" not in text


@pytest.mark.parametrize("name", RESERVED)
def test_no_task_has_the_name_of_a_rule_or_table(name):
    text = refusal(tasks={name: {"kind": "mmlu", "source": "x"}})
    assert text == (
        f"config.yaml, tasks.{name}: {name} is the name of a rule or table of this workflow. Choose another name."
    )


def test_the_names_of_all_tables_and_rules_by_task_are_reserved():
    rules = {rule.name for rule in parse(study(recommend={}, evaluation={"harness": {"tasks": ["x"]}})).rules}
    stems = {
        name.partition("_")[2] for name in rules if name.partition("_")[0] in ("fetch", "prepare", "render", "score")
    }
    tables = {table.key for table in catalogue.TABLES}
    assert (stems | tables) - {"spider", "mmlu", "execution_accuracy"} <= set(RESERVED)


def test_keys_of_before_are_refused_with_the_place_that_they_have_now():
    for old, new in (("spider", "tasks.spider"), ("mmlu", "tasks.mmlu")):
        assert refusal(**{old: {}}) == f"config.yaml, {old}: no such key. Did you mean {new}?"
    assert "replay.source: no such key. Did you mean tasks.<name>.source, of a task of kind replay?" in refusal(
        replay={"source": "x"}
    )


@pytest.mark.parametrize("old", GONE)
def test_a_key_that_is_gone_says_what_took_its_place(old):
    """And that place is one."""
    *outer, key = old.split(".")
    section = {key: 3} if outer else 3
    assert f"config.yaml, {old}: no such key any more. {GONE[old]}" in refusal(**{old.partition(".")[0]: section})
    known = (
        {"protocol", "protocols"}
        | {key for key, _ in leaves()}
        | {f"tasks.{kind}.{key}" for kind in ("spider", "mmlu") for key, _ in leaves(declared(KINDS[kind].Options))}
    )
    named = re.findall(r"\b(?:protocols?|[a-z]+(?:\.[a-z_]+)+)\b", GONE[old])
    assert named or old == "recommend.seed"
    assert {*named} <= known


def said(sections: dict) -> list[str]:
    """What is said of the minimal study with these sections of before, in today's form."""
    given = minimal(**moved(copy.deepcopy(sections)))
    whole = MINIMAL["tasks"] | GENERAL
    for name, old in (("mmlu", "mmlu"), ("general", "general")):
        if old not in sections and isinstance(given["tasks"].get(name), dict):
            given["tasks"][name] = whole[name] | given["tasks"][name]
    try:
        read.check(given)
    except UserError as error:
        return sorted({line.removeprefix("config.yaml, ") for line in str(error).splitlines()})
    return []


def test_every_key_is_refused_in_the_same_words_as_before():
    """Every key with values of a wrong type, out of bounds, misspelt, unknown, or contradicting others."""
    rows = json.loads(gzip.decompress((GOLDEN / "refusals.json.gz").read_bytes()))
    assert len(rows) > 1100
    changed = [
        {"given": given, "before": before, "now": now}
        for given, before in rows
        if (now := said(given)) != sorted(map(said_now, before))
    ]
    # Each of these was looked at: the words are plainer, name what was written (1, not 1.0), or say where keys are now.
    assert changed == json.loads((GOLDEN / "refusals_changed.json").read_text(encoding="utf-8"))


ODD = (None, True, -1, float("nan"), "x", "1e", [], [[None]], [{}], {}, {"a": {}}, {None: 3}, datetime.date(2020, 1, 1))


@pytest.mark.parametrize("chosen", [{}, {"scale": "smoke"}, {"protocol": "as_reported"}])
def test_whatever_stands_there_ends_in_a_study_or_in_sentences(chosen):
    inner = [f"tasks.{name}.{key}" for name in KINDS for key, _ in leaves(declared(KINDS[name].Options))]
    for place in [*(place for place, _ in leaves()), "models.m", "models.m.precision", "tasks.replay", *inner]:
        *sections, key = place.split(".")
        for value in ODD:
            given = below = copy.deepcopy(MINIMAL) | chosen
            for section in sections:
                below = below.setdefault(section, {})
            below[key] = value
            try:
                read.resolve(given)
            except UserError as error:
                assert all(line.startswith("config.yaml, ") for line in str(error).splitlines())


def test_rows_cannot_be_balanced_by_a_key_that_they_lack(tmp_path):
    file = tmp_path / "train.jsonl"
    own = {"kind": "jsonl", "role": "target", "source": "a.jsonl", "train": str(file), "score": "exact"}
    given = {"tasks": {"spider": {"role": "yardstick"}, "quiz": own}}
    rows = {"training": {"rows": {"count": 9, "balance": "topic"}}}
    study(**given, **rows)  # the file may come later
    for text in ("no JSON", "[1]\n", ""):
        file.write_text(text, encoding="utf-8")
        study(**given, **rows)  # what is wrong with it its rule says
    file.write_text('{"question": "q", "answer": "a", "field": "x"}\n', encoding="utf-8")
    assert refusal(**given, **rows) == (
        "config.yaml, training.rows.balance: found topic, which the first row of tasks.quiz.train has not. Write one "
        "of its keys: question, answer, field."
    )
    study(**given, training={"rows": {"count": 9, "balance": "field"}})
