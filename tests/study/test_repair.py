"""Second answers where SQL did not run: which runs a study has for them, what it says in vain, and whole prompts."""

import pytest
from snakemake.exceptions import WorkflowError
from snakemake.iocontainers import Wildcards

from _config import SWEEP, refusal, study
from _rules import parse
from study import unfold
from study.repair import repairs

ON = {"repair": 1}


def test_each_base_and_each_adapter_is_repaired_and_nothing_else_changes():
    public = {"public": {"source": "hub:owner/name", "revision": "0" * 40}}
    further = {"interpolate": [0.5], "shots": [0], "noise_floor": True}
    inference = {"do_sample": True, "seed": [1, 2]}
    without, config = (
        study(sweep=SWEEP, adapters=public, evaluation=further | on, inference=inference) for on in ({}, ON)
    )
    found, low = {run["variant"]: run for run in repairs(config)}, unfold.adapters(config)["lr0.1"]["folder"]
    # Of several draws the first; no interpolation, and no base with other examples.
    assert [*found] == [f"{name}@repair1" for name in ("base", "lr0.1", "lr0.2", "public")]
    assert (found["lr0.1@repair1"]["folder"], found["lr0.1@repair1"]["repairs"]) == (f"{low}@repair1", "lr0.1")
    assert repairs(without) == []
    assert unfold.runs(config) == unfold.runs(without)
    assert unfold.registration(config) == unfold.registration(without)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"evaluation": {"repair": 2}}, "evaluation.repair: found 2, expected"),
        ({"evaluation": {"repair_prompt": "x.jinja"}}, "evaluation.repair_prompt: not used, since evaluation.repair"),
        (
            {"tasks": {"spider": {"role": "yardstick"}, "mmlu": {"role": "yardstick", "source": "x"}, "own": {
                "kind": "jsonl", "role": "target", "source": "x.jsonl", "train": "y.jsonl"}}, "evaluation": ON},
            "evaluation.repair: found 1, but the target is of kind jsonl: only answers in SQL can fail to run",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_repaired_is_said(sections, message):
    assert message in refusal(**sections)


def test_a_prompt_that_no_turn_can_follow_is_refused_at_once():
    whole = "resources/prompts/cunha_as_run.jinja"
    for key in ("prompt", "base_prompt"):
        with pytest.raises(WorkflowError, match=rf"tasks\.spider\.{key} is .*cunha_as_run.*: no turn can follow it"):
            parse(study(tasks={"spider": {key: whole}}, evaluation=ON))
        parse(study(tasks={"spider": {key: whole}}))
    with pytest.raises(WorkflowError, match=r"evaluation\.repair_prompt: none\.jinja cannot be read"):
        parse(study(evaluation=ON | {"repair_prompt": "none.jinja"}))


def test_a_second_round_asks_as_the_first_did_but_for_the_prompts():
    config = study(sweep=SWEEP, tasks={"spider": {"base_shots": 1}}, evaluation=ON)
    names = parse(config).globals
    folders = {label: folder for folder, label in names["LABELS"].items()}

    def of(label):
        return Wildcards(fromdict={"model": "m", "run": folders[label], "task": "spider"})

    for first, part, shots in (("base", "test_shots1", 1), ("lr0.1", "test", 3)):
        second, folder = of(f"{first}@repair1"), folders[f"{first}@repair1"]
        for name in ("decoding", "own_adapter"):
            assert names[name](second) == names[name](of(first))
        assert names["asked_prompts"](of(first)) == f"<results>/prompts/m/spider_{part}.jsonl"
        assert names["asked_prompts"](second) == f"<results>/prompts/m/spider_{folder}.jsonl"
        assert names["to_repair"](second) == f"<results>/runs/m/{folders[first]}/spider_failed.jsonl"
        assert names["first_answers"](second) == f"<results>/runs/m/{folders[first]}/spider_answers.jsonl"
        assert names["to_repair"](of(first)) == names["first_answers"](of(first)) == []
        assert names["repair_settings"](second)["shots"] == shots
