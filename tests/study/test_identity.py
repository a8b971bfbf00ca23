"""What adapters and answers depend on: edits of a study that change their identity, and edits that do not."""

import copy
from fnmatch import fnmatchcase

import pytest

from _config import GENERAL, MINIMAL, REPLAY, study
from study import identity, read, unfold
from study.library import KEYS, MARK
from study.messages import declared, own, section_of

SECTION = section_of(declared()["properties"]["training"])


def trainings(config: dict) -> list[dict]:
    """The identities of a study's adapters."""
    return [identity.training(unfold.training(config, "m", one["values"])) for one in unfold.adapters(config).values()]


def answers(config: dict, adapted: bool = True) -> dict:
    """The identity of a run's answers to a task."""
    settings = {"max_new_tokens": 9, **unfold.loading(config["models"]["m"])}
    keys = ("batch_size", "merge_adapters", "do_sample", "temperature", "top_p", "seed")
    settings |= {key: config["inference"][key] for key in keys}
    return identity.decoding(settings | {"generation": unfold.generation(config["inference"])}, adapted)


BEST = {"eval_strategy": "steps", "eval_steps": 10, "save_steps": 10, "load_best_model_at_end": True}


@pytest.mark.parametrize(
    ("before", "after", "equal"),
    [
        # Run keys.
        ({}, {"logging_steps": 1}, True),
        ({}, {"logging_first_step": True, "log_level": "info", "disable_tqdm": True}, True),
        ({}, {"save_steps": 7, "save_total_limit": 9}, True),
        ({}, {"report_to": "tensorboard"}, True),
        ({}, {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}}, True),
        ({}, {"dataloader_num_workers": 2, "dataloader_prefetch_factor": 2}, True),
        ({}, {"dataloader_drop_last": True}, False),
        # Without effect beside the others.
        ({}, {"eval_steps": 3, "per_device_eval_batch_size": 1, "eval_delay": 2}, True),
        ({}, {"eval_strategy": "epoch"}, True),
        (BEST, BEST | {"eval_steps": 5}, False),
        (BEST, BEST | {"eval_on_start": True}, False),
        (BEST, BEST | {"early_stopping_patience": 2}, False),
        (BEST, BEST | {"per_device_eval_batch_size": 1, "save_total_limit": 9}, True),
        ({"max_length": 512}, {"max_length": 2048}, True),
        ({"max_length": 512, "truncate": True}, {"max_length": 2048, "truncate": True}, False),
        ({}, {"max_steps": 5}, False),
        ({"max_steps": 5}, {"max_steps": 5, "num_train_epochs": 3}, True),
        # Rows in a step, in whatever micro-batches; with `fast` the machine decides how many there are.
        ({}, {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}, True),
        ({}, {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4}, False),
        ({"mode": "fast"}, {"mode": "fast", "per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}, False),
        ({}, {"mode": "fast"}, False),
        # Our own keys at their default.
        ({}, {"mode": "faithful", "truncate": False, "share_prefix": True, "early_stopping_patience": None}, True),
        ({}, {"share_prefix": False}, False),
        ({}, {"method": "lora"}, True),
        # Full fine-tuning.
        ({}, {"method": "full"}, False),
        ({"method": "full"}, {"method": "full", "share_prefix": False}, True),
        # All others.
        ({}, {"learning_rate": 0.5}, False),
        ({}, {"seed": 1}, False),
        ({"seed": 42}, {"seed": [42]}, True),
        ({}, {"adam_beta2": 0.9}, False),
        ({}, {"neftune_noise_alpha": 5.0}, False),
        ({}, {"data_seed": 1}, False),
        ({}, {"train_sampling_strategy": "group_by_length"}, False),
    ],
)
def test_edits_of_training(before, after, equal):
    (one,), (other,) = (trainings(study(training=section)) for section in (before, after))
    assert (repr(one) == repr(other)) == equal


def test_keys_of_an_adapter_are_no_part_of_full_fine_tuning():
    """So another rank, or another dropout, trains no weight anew."""
    before, after = (study(training={"method": "full"}, lora=lora) for lora in ({}, {"r": 64, "lora_dropout": 0.3}))
    assert trainings(before) == trainings(after)
    assert "lora" not in trainings(before)[0]
    assert next(one["folder"] for one in unfold.adapters(before).values()).startswith("full_lr0.0001_s42_")


@pytest.mark.parametrize(("mode", "equal"), [("faithful", True), ("fast", False)])
def test_without_dropout_shared_prefixes_change_rounding_alone(mode, equal):
    """But for the number of rows in a step, where a micro-batch decides it."""
    sections = [{"mode": mode, "share_prefix": share} for share in (True, False)]
    (one,), (other,) = (trainings(study(training=section, lora={"lora_dropout": 0.0})) for section in sections)
    assert (one == other) == equal


def test_a_further_value_leaves_the_others_as_they_are():
    few, many = (trainings(study(training={"seed": seeds})) for seeds in ([42], [42, 43]))
    assert few == many[:1]
    assert many[0] != many[1]
    one, other = (trainings(study(sweep={"training.learning_rate": rates})) for rates in ([0.1, 0.2], [0.2, 0.1]))
    assert one == other[::-1]


@pytest.mark.parametrize(
    ("sections", "equal"),
    [
        ({"accept_defect": ["truncated"]}, True),
        ({"study": "other"}, True),
        ({"tasks": {"mmlu": {"source": "other", "shots": 0}}}, True),
        ({"tasks": {"spider": {"questions": 5, "criterion": "set"}}}, True),
        ({"tables": {"confidence_level": 0.9}}, True),
        ({"evaluation": {"interpolate": [0.5], "checkpoints": [5]}}, True),
        ({"tasks": GENERAL, "replay": {"kl": 0.0}}, True),
        ({"models": {"m": {"source": "folder", "gated": True, "parameters": 7}}}, True),
        ({"tasks": GENERAL, "replay": {"fraction": 0.1}}, False),
        ({"models": {"m": {"source": "folder", "precision": "fp32"}}}, False),
        ({"lora": {"r": 4}}, False),
        ({"lora": {"use_dora": True}}, False),
        ({"lora": {"target_modules": "all-linear"}}, False),
        ({"inference": {"do_sample": True}}, True),
    ],
)
def test_edits_of_other_sections_that_reach_a_training(sections, equal):
    assert (trainings(study(**sections)) == trainings(study())) == equal


def test_a_study_in_other_words_is_the_same():
    given = copy.deepcopy(MINIMAL) | {"lora": {"r": 8.0, "target_modules": ["v_proj", "q_proj"]}}
    other = copy.deepcopy(MINIMAL) | {"lora": {"target_modules": ["q_proj", "v_proj"], "r": 8}}
    assert repr(trainings(read.check(given))) == repr(trainings(read.check(other)))


def test_of_replay_the_weight_counts_where_there_is_one():
    without, some, more = trainings(study(tasks=GENERAL, sweep=REPLAY))
    assert "replay" not in without
    assert without == trainings(study())[0]
    assert some["replay"] == {"fraction": 0.2}
    assert more["replay"] == {"fraction": 0.2, "kl": 1.0}


NF4 = {"m": {"source": "folder", "precision": "nf4", "quantization": {"bnb_4bit_quant_type": "nf4"}}}
FP4 = {"m": {"source": "folder", "precision": "nf4", "quantization": {"bnb_4bit_quant_type": "fp4"}}}


def test_quantization_counts_where_it_differs_from_the_usual():
    usual = study(models={"m": {"source": "folder", "precision": "nf4"}})
    for stage in (trainings, answers):
        assert stage(study(models=NF4)) == stage(usual)
        assert stage(study(models=FP4)) != stage(usual)


DRAWN = {"do_sample": True}


@pytest.mark.parametrize(
    ("before", "after", "equal"),
    [
        ({}, {"batch_size": 3}, True),
        ({}, {"seed": 1}, True),
        ({}, {"top_p": 0.5, "temperature": 0.1}, True),
        ({}, {"top_k": 5}, True),
        ({}, {"do_sample": False, "merge_adapters": False}, True),
        ({}, {"repetition_penalty": 1.2}, False),
        ({}, {"merge_adapters": True}, False),
        ({}, DRAWN, False),
        (DRAWN, DRAWN | {"batch_size": 3}, True),
        (DRAWN, DRAWN | {"seed": 1}, False),
        (DRAWN, DRAWN | {"top_p": 0.5}, False),
        (DRAWN, DRAWN | {"temperature": 0.5}, False),
        (DRAWN, DRAWN | {"top_k": 5}, False),
    ],
)
def test_edits_of_inference(before, after, equal):
    one, other = (answers(study(inference=section)) for section in (before, after))
    assert (repr(one) == repr(other)) == equal


def test_the_base_has_no_adapter_to_merge():
    one, other = (study(inference={"merge_adapters": merge}) for merge in (False, True))
    assert answers(one, adapted=False) == answers(other, adapted=False)


def test_an_interpolation_is_its_own():
    settings = {"precision": "fp32", "max_new_tokens": 9, "do_sample": False}
    whole = identity.decoding(settings, True)
    assert identity.decoding(settings | {"strength": 1.0}, True) == whole
    assert identity.decoding(settings | {"strength": 0.5}, True) == whole | {"strength": 0.5}


def test_sample_rows_count_where_they_are_shown():
    rows = [{"schema": schema, "sample_rows": count} for schema in ("ddl", "ddl_rows") for count in (3, 4)]
    one, two, three, four = map(identity.rendering, rows)
    assert one == two
    assert three != four


def test_an_audit_depends_on_max_length_where_it_cuts():
    rows = [{"truncate": cut, "max_length": length, "accept_defect": []} for cut in (False, True) for length in (8, 9)]
    one, two, three, four = map(identity.audit, rows)
    assert one == two
    assert three != four


@pytest.mark.parametrize("name", list(identity.RECIPES))
def test_a_raised_recipe_makes_its_stage_anew(name, monkeypatch):
    before = identity.stage(name, {"a": 1})
    monkeypatch.setitem(identity.RECIPES, name, identity.RECIPES[name] + 1)
    assert identity.stage(name, {"a": 1}) != before


def test_run_keys_are_keys():
    keys = [*own(SECTION), *(key for key, node in SECTION["properties"].items() if MARK in node)]
    for pattern in identity.RUN_KEYS["training"]:
        assert any(fnmatchcase(key, pattern) for key in keys), pattern


# Every key of SFTConfig that a run key's pattern fits. One that a new version adds is looked at before it is let in.
WATCHED_NOT = {
    "batch_eval_metrics", "activation_offloading", "dataloader_multiprocessing_context", "dataloader_num_workers",
    "dataloader_persistent_workers", "dataloader_pin_memory", "dataloader_prefetch_factor", "ddp_timeout", "debug",
    "disable_tqdm", "eval_accumulation_steps", "eval_do_concat_batches", "eval_use_gather_object",
    "gradient_checkpointing", "gradient_checkpointing_kwargs", "include_for_metrics", "include_num_input_tokens_seen",
    "log_level", "log_level_replica", "log_on_each_node", "logging_first_step", "logging_nan_inf_filter",
    "logging_steps", "logging_strategy", "per_device_eval_batch_size", "prediction_loss_only", "report_to",
    "save_on_each_node", "save_only_model", "save_steps", "save_strategy", "save_total_limit", "skip_memory_metrics",
    "torch_empty_cache_steps",
}  # fmt: skip


def test_the_list_of_run_keys_is_closed():
    patterns = identity.RUN_KEYS["training"]
    assert {key for key in KEYS["SFTConfig"] if any(fnmatchcase(key, one) for one in patterns)} == WATCHED_NOT
