"""What the jobs of each rule see of a study: nothing that they do not need, or hours of training are lost."""

import gzip
import json
from pathlib import Path

import pytest
import yaml
from snakemake.exceptions import WorkflowError
from snakemake.iocontainers import Wildcards

from _config import EVALUATION, GENERAL, REPLAY, SWEEP, study
from _moved import moved
from _rules import parse, settings
from common.files import UserError
from study import read, unfold
from study.messages import declared, leaves
from tasks.registry import KINDS

REPO = Path(__file__).parents[2]
GOLDEN = json.loads(gzip.decompress((REPO / "tests/golden/settings.json.gz").read_bytes()))
# Keys that a task has and the sections of before had not, with their values in all studies of the repository.
NEW = {
    "spider": {"kind": "spider", "role": "target", "shots_from": "one_list", "base_prompt": None},
    "mmlu": {"kind": "mmlu", "role": "yardstick", "prompt": None, "questions": None, "marks": "letters"},
    "general": {
        "kind": "replay",
        "role": "replay",
        "prompt": None,
        "max_new_tokens": 128,
        "revision": None,
        "sha256": None,
        "system": "Answer with the letter of the correct choice.",
    },
}


def before(run: str) -> dict:
    """The resolved study of before in today's form, of which each key and value is the same."""
    config = moved(GOLDEN[run]["config"])
    if config["tasks"]["general"]["source"] is None:
        assert config["tasks"].pop("general") == {"source": None, "questions": 2000, "seed": 42}
    config["tasks"] = {name: section | NEW[name] for name, section in config["tasks"].items()}
    config.setdefault("sweep", {})
    return unfold.canonical(config)


# Where the jobs of a rule of before have the same now; all others under the same names.
NOW = {
    "prepare_spider": ("prepare_spider", "validation"),
    "prepare_mmlu": ("prepare_mmlu", "test"),
    "render_mmlu": ("render_mmlu", "test"),
    "audit_labels": ("audit_labels", "spider"),
    "fetch_replay": ("fetch_general",),
    "prepare_replay": ("prepare_general", "train"),
    "render_replay": ("render_general", "train"),
    "audit_replay": ("audit_labels", "general"),
}
# What these see besides: how a section is called, a local source as it is, the words of a template, the few-shot
# examples that each prompt shows, and by what rows are compared.
BESIDES = {"kind", "name", "role", "files", "words", "shots", "cluster", "yardsticks", "revision", "sha256"}
# Keys of later.
BESIDES |= {"questions", "shots_from", "marks"}
# Of the rules that write for a reader, which see of each task what its `measure` says.
OF_RUNS = {"folder", "setting", "seed"}
OF_MEASURES = {"adapters", "labels", "language", "semantics", "dev_questions", "official", "criterion", "tasks"}
# What stands at the head and among the references of a report.
OF_MEASURES |= {"margin_pp", "title", "authors", "affiliation", "course", "date", "report"}
TO_COMPUTE = {"train", "predict_spider", "predict_mmlu", "harness", "fetch_harness", "soup"}


@pytest.mark.parametrize("run", GOLDEN)
def test_studies_and_what_their_jobs_see_are_as_before(run):
    """Of every study, protocol and scale. What changes here makes results stale that took hours."""
    file, protocol, scale = run.split()
    raw = yaml.safe_load((REPO / file).read_text(encoding="utf-8"))
    config = read.resolve(raw, {"protocol": protocol, "scale": scale}, file)
    # Keys of later at their default, which move nothing.
    assert {model.pop("quantization")["bnb_4bit_quant_type"] for model in config["models"].values()} == {"nf4"}
    assert {(model.pop("thinking"), model.pop("thinking_tokens")) for model in config["models"].values()} == {
        (False, 1024)
    }
    assert config["training"].pop("share_prefix") is True
    assert config["evaluation"].pop("noise_floor") == (file in ("config.yaml", "studies/demo-full.yaml"))
    assert (config["evaluation"].pop("repair"), config["evaluation"].pop("repair_prompt")) == (0, None)
    # What a later protocol says, and by which criterion a report counts.
    config["protocols"].pop("reanalysed", None)
    for table in config["published"]["tables"]:
        table.pop("criterion", None)
    head = {key: config["report"].pop(key) for key in ("title", "authors", "affiliation", "course", "date")}
    assert not any(head.values())
    assert config.pop("adapters") == {}
    assert config["tables"].pop("margin_pp") == 3.0
    was = before(run)
    # Once, a half of the questions chose what is recommended, with a seed and a cap of its own.
    if was["recommend"]:
        was["recommend"] = {"merge": was["recommend"]["merge"]}
    for place in config["sweep"]:
        # Beside the values to sweep the section has one that nothing uses.
        section, key = place.split(".")
        was[section][key] = config[section][key]
    assert config == was
    assert repr(config) == repr(unfold.canonical(config))
    after = settings(raw | {"protocol": protocol, "scale": scale})
    replays = "fetch_general" in after
    for rule, was in GOLDEN[run]["settings"].items():
        place = NOW.get(rule, (rule,))
        # Few-shot examples are one list of which prompts show the first ones: nothing extends it.
        if was is None or rule == "extend_shots" or (not replays and rule.endswith("_replay")):
            continue
        found = after
        for name in place:
            found = found[name]
        for training in found.values() if rule == "train" else ():
            for label, one in training.items():
                assert one["training"].pop("share_prefix") is True
                training[label] = learnt(one, one["training"].pop("loss_on"))
        # Of a smoke run nothing stands beside a printed figure.
        if rule == "compare_published" and scale == "smoke":
            assert found["runs"] == []
            found = found | {"runs": was["runs"]}
        if rule == "audit_labels":
            found = learnt(found, found.pop("loss_on"))
        if rule == "render_spider":
            found = {part: learnt(one, one.pop("loss_on", None)) for part, one in found.items()}
        if rule == "report":  # which once knew of the target's prompts alone
            found = found | {"own_prompts": found["own_prompts"].get(unfold.target_of(config), [])}
        if rule in TO_COMPUTE:
            # Snakemake compares representations.
            assert repr(found) == repr(was)
        elif rule == "render_spider":
            rendered(was, found, after["prepare_spider"]["test"])
        elif rule == "fetch_model":
            assert {name: {k: v for k, v in one.items() if k != "files"} for name, one in found.items()} == was
        elif place != (rule,) or rule.startswith(("fetch", "score")):
            assert found.keys() - was.keys() <= (
                BESIDES | {"criterion", "categories"} if rule.startswith("score") else BESIDES
            )
            assert {key: found[key] for key in was} == was
        else:
            gone = {"max_loss_pp", "seed"} if rule == "recommend" else ()
            was = {{"face": "protocol"}.get(key, key): value for key, value in was.items() if key not in gone}
            assert found.keys() ^ was.keys() <= OF_MEASURES, rule
            kept = was.keys() - OF_MEASURES - {"folders"}
            if "runs" in found:
                found["runs"] = [{k: v for k, v in run.items() if k not in OF_RUNS} for run in found["runs"]]
            # Folders are named after what an adapter is.
            assert found.get("folders", {}).keys() == was.get("folders", {}).keys()
            for one in found.get("published", {}).get("tables", []):
                one.pop("criterion", None)
            for one in was.get("published", {}).get("tables", []):
                one["task"] = {"execution_accuracy": "spider", "mmlu": "mmlu"}[one.pop("measure")]
            assert {key: found[key] for key in kept} == {key: was[key] for key in kept}, rule
            if "language" in found:
                assert found["language"] == config["report"]["language"]


def learnt(found: dict, loss_on: str | None) -> dict:
    """Settings that say what the loss covers as they did before, where they say it."""
    was = {} if loss_on is None else {"train_target": {"completion": "sql"}.get(loss_on, loss_on)}
    return unfold.canonical(found | was)


def rendered(was: dict, found: dict, test: dict) -> None:
    """Compare what the prompts of the target depended on: their questions are a part of the data now."""
    assert found.keys() == {part.replace("dev", "test") for part in was}
    for part, one in was.items():
        now = found[part.replace("dev", "test")]
        asked = {key: one.pop(key) for key in ("questions", "exclude_databases") if key in one}
        assert asked.items() <= test.items()
        assert one.pop("style") in ("default", "ribeiro")
        assert now.keys() - one.keys() <= BESIDES
        assert one.items() <= now.items()


NOT_PICKED = {
    "study": "is in the name of the results' folder, which rules see",
    "protocols": "is merged over the study before anything is read",
    "models.gated": "for the check before the first job, and for `make studies`",
    "models.parameters": "for `make studies` and `make plan`",
    "models.vocabulary": "for `make studies` and `make plan`",
    "sweep": "decides which adapters there are",
    "adapters": "decides which adapters there are, and is fetched, one by one",
    "evaluation.adapters": "decides which runs there are",
    "evaluation.interpolate": "decides which runs there are",
    "evaluation.checkpoints": "decides which runs there are, and what a training keeps",
    "replay": "is in the settings of a training that replays",
    "evaluation.shots": "decides which runs there are",
    "evaluation.soups": "decides which runs there are",
    "evaluation.noise_floor": "decides which runs there are",
    "evaluation.repair": "decides which runs there are",
    "evaluation.repair_prompt": "is seen by the words of the template",
    "tasks": "are seen by stage, which the tests below hold",
}
# Of a task's section: what the workflow is made of, and what reaches jobs by a function of `study.unfold`.
IN_NO_STAGE = {
    "kind": "stands in all settings of the task",
    "role": "decides which rules there are, and stands in what a measure is",
    "prompt": "is seen by the words of the template",
    "max_new_tokens": "is picked by the rules that render and predict",
    "base_shots": "decides which prompts the base model answers",
    "base_prompt": "is seen by the words of the template",
    "answered": "is seen by the part test, with where the answers are",
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_key_of_a_task_is_in_a_stage_or_said_not_to_be(kind):
    task = KINDS[kind]
    stages = {key for keys in task.STAGES.values() for key in keys}
    assert task.STAGES.keys() <= {"fetch", "prompt", "score", "measure", *task.PARTS}
    keys = {key for key, _ in leaves(declared(task.Options))}
    assert stages <= keys
    known = stages | {key.rpartition(".")[0] for key in stages}
    inner = {key for key in keys if any(key.startswith(f"{place}.") for place in stages)}
    assert keys - known - inner - IN_NO_STAGE.keys() == set()
    # What a release must hold depends on what it is for.
    assert stages & IN_NO_STAGE.keys() <= {"role"}


def test_each_stage_of_a_task_sees_its_keys_alone():
    config = study(tasks={"spider": {"validation": {"questions": 7}}})
    about = {"kind": "spider", "name": "tasks.spider"}
    assert unfold.stage(config, "spider", "score") == about | {"timeout_s": 30.0}
    assert unfold.stage(config, "spider", "score", "measure", role="x") == about | {
        "criterion": "bag", "role": "x", "timeout_s": 30.0
    }  # fmt: skip
    drawn = about | {"seed": 42, "shots": 3, "shots_from": "one_list", "train_questions": None}
    drawn |= {"train_files": ["train_others", "train_spider"]}
    by = {"by": "database", "fraction": 0.1}
    assert unfold.stage(config, "spider", "train") == drawn | {"validation": by}
    assert unfold.stage(config, "spider", "validation") == drawn | {"validation": by | {"questions": 7}}
    assert unfold.stage(config, "spider", "test") == about | {"questions": None, "exclude_databases": []}
    # A stage that a task has nothing for depends on nothing of it.
    assert unfold.stage(config, "mmlu", "train") == {"kind": "mmlu", "name": "tasks.mmlu"}


# What changes of a task, and the rules in front of the answers and scores that see it.
SEEN_BY = [
    ({"spider": {"source": "other"}}, {"fetch_spider"}),
    ({"spider": {"counts": {"dev": 1}}}, {"fetch_spider"}),
    ({"spider": {"questions": 1}}, {"prepare_spider"}),
    ({"spider": {"validation": {"questions": 1}}}, {"prepare_spider"}),
    ({"spider": {"train_files": ["train_spider"]}}, {"prepare_spider"}),
    ({"spider": {"schema": "ddl"}}, {"render_spider"}),
    ({"spider": {"shots": 2}}, {"prepare_spider", "render_spider", "audit_labels"}),
    ({"spider": {"timeout_s": 1}}, {"score_spider"}),
    # The records have all criteria.
    ({"spider": {"criterion": "set"}}, set()),
    ({"spider": {"max_new_tokens": 9}}, {"render_spider", "predict_spider"}),
    ({"mmlu": {"source": "folder", "max_new_tokens": 9}}, {"render_mmlu", "predict_mmlu"}),
    ({"mmlu": {"source": "folder", "system": "x"}}, {"render_mmlu"}),
    ({"mmlu": {"source": "folder", "shots": 1}}, {"prepare_mmlu"}),
    ({"mmlu": {"source": "folder", "subjects": 3}}, {"fetch_mmlu"}),
]


@pytest.mark.parametrize(("tasks", "rules"), SEEN_BY)
def test_a_key_of_a_task_is_seen_by_the_rules_that_need_it(tasks, rules):
    found = [settings(study(tasks=given)) for given in ({}, tasks)]
    changed = {rule for rule in found[0] if found[0][rule] != found[1][rule]}
    computing = ("fetch", "prepare", "render", "audit", "train", "predict", "score")
    assert {rule for rule in changed if rule.startswith(computing)} == rules


def test_tasks_of_other_names_have_rules_of_their_own():
    tasks = {"second": {"kind": "mmlu", "source": "else"}, "third": {"kind": "spider", "role": "yardstick"}}
    one, more = settings(study()), settings(study(tasks=tasks))
    for step in ("fetch", "prepare", "render", "predict", "score"):
        for name, kind in (("second", "mmlu"), ("third", "spider")):
            assert f"{step}_{name}" in more
            assert f"{step}_{name}" not in one
            assert set(map(type, more[f"{step}_{name}"])) == set(map(type, more[f"{step}_{kind}"]))
    assert more["fetch_second"]["source"] == "else"
    assert more["prepare_third"]["test"]["name"] == "tasks.third"
    # A further yardstick trains nothing again, and asks nothing else again.
    shown = {"tables", "tables_page", "answers", "conclude", "report", "recommend", "export_recommended", "figures"}
    shown |= {"cost", "gold", "deepeval_tests"}
    for rule in one.keys() - shown - {"compare_published", "harness_table"}:
        assert one[rule] == more[rule], rule


def test_a_template_that_is_not_there_is_named():
    with pytest.raises(
        WorkflowError, match=r"^tasks.spider.prompt: no.jinja cannot be read \(No such file or directory\)"
    ):
        settings(study(tasks={"spider": {"prompt": "no.jinja"}}))


def test_the_words_of_a_template_are_seen_and_not_where_they_lie(tmp_path):
    choice = REPO / "resources/prompts/choice.jinja"
    own = tmp_path / "my.jinja"
    own.write_bytes(choice.read_bytes())
    given = {"mmlu": {"source": "folder", "prompt": str(own)}}
    plain, same = settings(study())["render_mmlu"], settings(study(tasks=given))["render_mmlu"]
    assert plain == same
    own.write_text(choice.read_text(encoding="utf-8") + " ", encoding="utf-8")
    assert settings(study(tasks=given))["render_mmlu"] != plain
    # An edit of what a template includes is an edit of the template.
    outer = tmp_path / "outer.jinja"
    outer.write_text("{% include 'my.jinja' %}", encoding="utf-8")
    before = unfold.words_sha256("tasks.x.prompt", outer)
    own.write_text("other", encoding="utf-8")
    assert unfold.words_sha256("tasks.x.prompt", outer) != before
    for text, message in (
        (b"{% if %}", r"outer\.jinja is not a template"),
        (b"\xff", r"outer\.jinja is not UTF-8\. Save it as UTF-8\."),
        (b"{% include 'none.jinja' %}", r"none\.jinja cannot be read \(No such file"),
    ):
        outer.write_bytes(text)
        with pytest.raises(UserError, match=rf"tasks\.x\.prompt: .*{message}"):
            unfold.words_sha256("tasks.x.prompt", outer)


def test_an_edit_of_a_local_source_is_seen(tmp_path):
    rows = tmp_path / "rows.csv"
    rows.write_text("question,A,B,C,D,answer\nq,1,2,3,4,A\n", encoding="utf-8")
    config = study(tasks={"general": {"kind": "replay", "source": str(rows)}})
    before = settings(config)
    assert settings(config) == before
    rows.write_text("question,A,B,C,D,answer\nq,1,2,3,4,B\n", encoding="utf-8")
    after = settings(config)
    assert {rule for rule in after if after[rule] != before[rule]} == {"fetch_general"}


def test_every_key_is_picked_by_a_rule_or_said_not_to_be(monkeypatch):
    picked = set()
    pick = unfold.pick

    def record(config: dict, /, *places: str, **others) -> dict:
        whole = "study" in config
        picked.update(f"{'' if whole else 'models.'}{place.partition(' as ')[0]}" for place in places)
        return pick(config, *places, **others)

    monkeypatch.setattr("study.unfold.pick", record)
    given = EVALUATION | {"shots": [0], "harness": {"tasks": ["arc_easy"]}}
    settings(study(sweep=SWEEP, evaluation=given, recommend={}, replay={"fraction": 0.5}, tasks=GENERAL))
    keys = {key for key, field in leaves()} | {f"models.{key}" for key in ("source", "revision", "precision")}
    keys |= NOT_PICKED.keys()

    def known(key: str, places) -> bool:
        return any(key == place or key.startswith(f"{place}.") for place in places)

    sections = {key for key in keys if any(other.startswith(f"{key}.") for other in keys)}
    missed = {key for key in keys - sections if not known(key, picked) and not known(key, NOT_PICKED)}
    assert missed == set()
    assert {key for key in NOT_PICKED if key in picked} == set()
    of_tasks = {
        key for kind in ("spider", "mmlu") for key, _ in leaves(declared(KINDS[kind].Options), f"tasks.{kind}.")
    }
    assert picked <= keys | of_tasks


@pytest.mark.parametrize(
    ("protocol", "scale", "name"),
    [
        ("corrected", "full", "s"),
        ("as_reported", "full", "s-as_reported"),
        ("corrected", "smoke", "s-smoke"),
        ("as_reported", "smoke", "s-as_reported-smoke"),
    ],
)
def test_each_protocol_and_scale_has_its_own_results(protocol, scale, name):
    config = study(protocol=protocol, scale=scale)
    assert unfold.label(config) == name
    found = settings(config)
    assert found["tables"]["study"] == found["report"]["study"] == found["compare_published"]["study"] == name


def test_the_base_model_has_prompts_of_its_own_only_where_a_study_says_so():
    assert unfold.own_prompts(study()) == {}
    config = study(tasks={"spider": {"base_shots": 0}})
    assert unfold.own_prompts(config) == {"base": "test_shots0"}
    rendered = settings(config)["render_spider"]
    assert rendered["test_shots0"] == rendered["test"] | {"shots": 0}
    assert "loss_on" in rendered["train"]
    assert "loss_on" not in rendered["test"]


def test_the_base_model_may_be_asked_in_other_words():
    """Its own, and no others, depend on them; with its own words it does not stand for an adapter of strength 0."""
    prompts = REPO / "resources/prompts"
    usual = settings(study(evaluation={"shots": [1]}))["render_spider"]
    config = study(
        evaluation={"shots": [1], "interpolate": [0]},
        tasks={"spider": {"base_prompt": str(prompts / "text_to_sql_pt.jinja")}},
    )
    assert unfold.own_prompts(config) == {"base": "test_shots3", "base@shots1": "test_shots1"}
    assert "adapter@0" in unfold.points(config)
    rendered = settings(config)["render_spider"]
    own = unfold.words_sha256("x", prompts / "text_to_sql_pt.jinja")
    assert rendered["test_shots3"] == usual["test"] | {"words": own}
    assert rendered["test_shots1"] == usual["test_shots1"] | {"words": own}
    assert {part: rendered[part] for part in ("train", "test")} == {part: usual[part] for part in ("train", "test")}
    with pytest.raises(UserError, match=r"tasks\.general\.base_prompt: not used, since general is no target or yardst"):
        study(tasks={"general": GENERAL["general"] | {"base_prompt": "y"}})


def test_the_base_model_may_be_asked_in_other_words_of_a_yardstick():
    own = str(REPO / "resources/prompts/cunha_mmlu.jinja")
    further = {"interpolate": [0], "shots": [1], "noise_floor": True}
    shop = {"kind": "spider_format", "source": "x", "shots": 2}
    usual = study(evaluation=further, tasks={"mmlu": {"source": "folder"}, "shop": shop})
    config = study(
        evaluation=further,
        tasks={"mmlu": {"source": "folder", "base_prompt": own}, "shop": shop | {"base_prompt": own}},
    )
    assert unfold.own_prompts(config) == unfold.own_prompts(usual) == {"base@shots1": "test_shots1"}
    for task, part in (("mmlu", "test_shots4"), ("shop", "test_shots2")):
        assert unfold.own_prompts(config, task) == {"base": part, "base@batches": part}
        assert unfold.own_prompts(usual, task) == {}
    # It does not stand for an adapter of strength 0.
    assert "adapter@0" in unfold.points(config)
    assert "adapter@0" not in unfold.points(usual)
    names = parse(config).globals

    def asks(task: str, run: str) -> str:
        folder = {label: folder for folder, label in names["LABELS"].items()}[run]
        return names["asked_prompts"](Wildcards(fromdict={"model": "m", "run": folder, "task": task}))

    assert asks("mmlu", "base") == asks("mmlu", "base@batches") == "<results>/prompts/m/mmlu_test_shots4.jsonl"
    assert asks("mmlu", "adapter") == "<results>/prompts/m/mmlu_test.jsonl"
    rendered = {
        part: names["prompt_settings"](Wildcards(fromdict={"task": "shop", "part": part}))
        for part in ("test", "test_shots2")
    }
    assert rendered["test_shots2"] == rendered["test"] | {"words": unfold.words_sha256("x", Path(own))}


def test_a_training_without_replay_has_the_settings_of_a_study_without_it():
    plain = settings(study())["train"]["m"]["adapter"]
    found = settings(study(tasks=GENERAL, sweep=REPLAY))["train"]["m"]
    assert found["replay0-kl0"] == plain
    assert found["replay0.2-kl1"] == plain | {"replay": {"fraction": 0.2, "kl": 1.0}}
    # Another source or number of rows is seen by its files.
    for changed in ({"source": "other.csv"}, {"questions": 7, "seed": 1}):
        tasks = {"general": GENERAL["general"] | changed}
        assert settings(study(tasks=tasks, sweep=REPLAY))["train"]["m"] == found


def test_of_yardsticks_only_their_data_lead_to_replayed_rows():
    before, after = (
        settings(study(tasks=GENERAL | {"mmlu": {"source": "folder"} | mmlu}, sweep=REPLAY))
        for mmlu in ({}, {"shots": 1, "seed": 2})
    )
    for name in ("fetch_general", "prepare_general", "render_general", "audit_labels", "train"):
        assert before[name] == after[name]
    assert before["prepare_general"]["train"]["yardsticks"] == ["mmlu"]
    assert before["audit_labels"]["general"] == {
        "kind": "replay", "max_length": 1024, "name": "tasks.general", "role": "replay"
    }  # fmt: skip


def test_each_adapter_is_trained_with_its_own_values():
    found = settings(study(sweep={"lora.r": [4], "training.learning_rate": [0.1, 0.2]}))
    assert list(found["train"]["m"]) == ["lr0.1-r4", "lr0.2-r4"]
    one = found["train"]["m"]["lr0.2-r4"]
    assert (one["training"]["learning_rate"], one["lora"]["r"], one["precision"]) == (0.2, 4, "bf16")
    runs = found["tables"]["runs"]
    assert found["index"]["runs"][0]["folder"] == "base"
    assert len({run["folder"] for run in found["index"]["runs"]}) == 3
    assert runs == [
        {"model": "m", "setting": "base", "settings": {}, "variant": "base"},
        *(
            {
                "model": "m",
                "seed": 42,
                "setting": f"lr{rate}-r4",
                "settings": {"lora.r": 4, "training.learning_rate": rate},
                "variant": f"lr{rate}-r4",
            }
            for rate in (0.1, 0.2)
        ),
    ]


def test_other_numbers_of_examples_are_points_of_the_base():
    evaluation = EVALUATION | {"shots": [5, 0, 2]}
    config = study(sweep=SWEEP, evaluation=evaluation, tasks={"spider": {"shots": 2}})
    assert [(name, one["of"], one["shots"]) for name, one in list(unfold.points(config).items())[:2]] == [
        ("base@shots0", ["base"], 0),
        ("base@shots5", ["base"], 5),
    ]
    assert unfold.own_prompts(config) == {"base@shots0": "test_shots0", "base@shots5": "test_shots5"}
    before = settings(study(sweep=SWEEP, evaluation=EVALUATION, tasks={"spider": {"shots": 2}}))
    after = settings(config)
    # Nothing else is answered again, and nobody is asked the same multiple-choice questions twice.
    assert after["predict_mmlu"] == before["predict_mmlu"]
    asked = before["predict_spider"]["m"]
    assert after["predict_spider"]["m"] == asked | dict.fromkeys(("base@shots0", "base@shots5"), asked["base"])
    assert after["render_spider"].items() >= before["render_spider"].items()
    changed = {name for name in before if before[name] != after[name]}
    # `harness_table`: only where there is one, seconds.
    assert changed == {
        "render_spider", "predict_spider", "tables", "gold", "deepeval_tests",
        "cost", "answers", "report", "harness_table", "index"
    }  # fmt: skip
    # Only then the tables say what the base itself has.
    assert [run.get("shots") for run in after["tables"]["runs"][:4]] == [2, None, None, None]
    assert "shots" not in before["tables"]["runs"][0]
    own = study(evaluation={"shots": [0, 2]}, tasks={"spider": {"base_shots": 0, "shots": ["a", "b"]}})
    assert unfold.own_prompts(own) == {"base@shots2": "test_shots2", "base": "test_shots0"}


def test_a_point_more_changes_no_other_answer_and_no_training():
    before = settings(study(sweep=SWEEP))
    after = settings(study(sweep=SWEEP, evaluation=EVALUATION))
    for task in ("predict_spider", "predict_mmlu"):
        assert before[task]["m"].items() <= after[task]["m"].items()
        assert after[task]["m"]["lr0.1@0.5"] == before[task]["m"]["lr0.1"] | {"strength": 0.5}
        assert after[task]["m"]["lr0.1@step5"] == after[task]["m"]["soup-both"] == before[task]["m"]["lr0.1"]
    assert after["train"] == before["train"]
    assert after["compare_published"]["runs"] == before["compare_published"]["runs"]
    runs = after["tables"]["runs"]
    assert [run for run in runs if "point" not in run] == before["tables"]["runs"]
    assert {run["variant"]: run["settings"] for run in runs}["lr0.2@0.5"] == {"training.learning_rate": 0.2}


def test_one_more_draw_asks_for_its_answers_alone():
    sampled = {"do_sample": True, "temperature": 0.7}
    evaluation = {"interpolate": [0.5], "shots": [0], "adapters": ["lr0.1"], "noise_floor": True}
    before, after = (
        settings(study(sweep=SWEEP, evaluation=evaluation, inference=sampled | {"seed": seed})) for seed in (1, [1, 2])
    )
    asked, again = (of["predict_spider"]["m"] for of in (before, after))
    assert again == asked | {f"{name}@draw2": one | {"seed": 2} for name, one in asked.items()}
    assert {"base@draw2", "lr0.1@draw2", "lr0.1@0.5@draw2", "base@shots0@draw2"} <= again.keys()
    # Letters are not drawn.
    for rule in ("predict_mmlu", "harness", "train"):
        assert after.get(rule) == before.get(rule), rule
    # What repeats a run repeats its first draw, in a table of its own.
    names = [run["variant"] for run in after["noise"]["runs"]]
    assert names == ["base", "lr0.1", "base@batches", "lr0.1@merged"]
    assert before["predict_spider"]["m"].keys().isdisjoint(names[2:])
    found = {run["variant"]: run for run in after["tables"]["runs"]}
    assert (found["base"]["draw"], found["base@draw2"]["draw_of"], found["base@draw2"]["draw"]) == (1, "base", 2)
    # A list of one seed is that seed.
    assert settings(study(inference=sampled | {"seed": [3]})) == settings(study(inference=sampled | {"seed": 3}))


@pytest.mark.parametrize(
    ("run", "task", "seed", "changed"),
    [
        ("base@batches", "spider", 1, {"other_batches": True}),
        ("lr0.1@merged", "mmlu", 1, {"merge_adapters": True}),
        ("base@draw2", "spider", 2, {}),
    ],
)
def test_what_is_asked_again_differs_in_one_thing(run, task, seed, changed):
    inference = {"do_sample": True, "seed": [1, 2]}
    names = parse(study(sweep=SWEEP, evaluation={"noise_floor": True}, inference=inference)).globals
    folders = {label: folder for folder, label in names["LABELS"].items()}

    def of(label):
        return Wildcards(fromdict={"model": "m", "run": folders[label], "task": task})

    asked, first = of(run), of(run.partition("@")[0])
    decoding, prompts, adapter = (names[name] for name in ("decoding", "asked_prompts", "own_adapter"))
    assert decoding(asked) == decoding(first) | changed | {"seed": seed}
    assert (prompts(asked), adapter(asked)) == (prompts(first), adapter(first))
    assert f"/{asked.run}/" in names["scored_answers"](asked)
    if run == "base@draw2":
        letters = Wildcards(fromdict={"model": "m", "run": asked.run, "task": "mmlu"})
        assert names["scored_answers"](letters).endswith("/base/mmlu_answers.jsonl")


def test_a_ready_made_adapter_is_asked_and_not_trained():
    made = {"public": {"source": "hub:owner/name", "revision": "0" * 40}}
    before, after = (settings(study(sweep=SWEEP, adapters=adapters)) for adapters in ({}, made))
    assert after["fetch_adapter"] == {"public": {"source": "hub:owner/name", "revision": "0" * 40}}
    assert after["train"] == before["train"]
    for task in ("predict_spider", "predict_mmlu"):
        asked = after[task]["m"].pop("public")
        assert asked == before[task]["m"]["lr0.1"] | {"prove": True}
        assert after[task] == before[task]
    (run,) = (run for run in after["tables"]["runs"] if run["variant"] == "public")
    about = {"setting": "public", "settings": {}, "variant": "public"}
    assert run == {"model": "m", "ready_made": True} | about
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {
        "harness", "tables", "gold", "deepeval_tests",
        "cost", "answers", "harness_table", "compare_published", "index", "report"
    }  # fmt: skip


def test_other_checkpoints_change_nothing_that_a_training_sees():
    few, many = (settings(study(sweep=SWEEP, evaluation={"checkpoints": steps})) for steps in ([5], [5, 9]))
    assert few["train"] == many["train"]


def test_settings_are_plain_sorted_values():
    found = settings(study())
    assert json.loads(json.dumps(found)) == found
    for given in found.values():
        if isinstance(given.get("tasks"), dict):  # in the order of the tables, the target first
            assert list(given.pop("tasks")) in (["spider", "mmlu"], ["spider"])  # alone where SQL is run
    assert json.dumps(found) == json.dumps(found, sort_keys=True)


def test_what_only_the_list_of_studies_shows_reaches_no_job():
    model = {"source": "folder", "gated": True, "parameters": 8, "vocabulary": 9, "thinking_tokens": 7}
    assert settings(study(models={"m": model})) == settings(study())


def test_a_model_that_thinks_changes_its_record_alone():
    """On which prompts, training and answers depend as files."""
    before, after = (settings(study(models={"m": {"source": "folder", "thinking": on}})) for on in (False, True))
    assert {rule for rule in after if after[rule] != before[rule]} == {"fetch_model"}
    assert after["fetch_model"]["m"]["thinking"] == 1024


def test_a_recommendation_changes_its_own_rules_alone():
    before, after = (settings(study(recommend=section)) for section in (None, {}))
    assert {rule for rule in after if after[rule] != before.get(rule)} == {"recommend", "export_recommended"}
    merged = settings(study(recommend={"merge": True}))
    assert {rule for rule in after if after[rule] != merged[rule]} == {"export_recommended"}


TO_TRAINING = ("fetch_spider", "fetch_model", "audit_labels", "train")


@pytest.mark.parametrize(
    "sections",
    [
        {"tables": {"confidence_level": 0.9}},
        {"tasks": {"spider": {"timeout_s": 1, "criterion": "set"}}},
        {"inference": {"batch_size": 1}},
        {"tasks": {"spider": {"max_new_tokens": 1}, "mmlu": {"source": "folder", "max_new_tokens": 1}}},
        {"inference": {"merge_adapters": True}},
        {"tasks": {"spider": {"questions": 1, "exclude_databases": ["a"]}}},
        {"tasks": {"mmlu": {"source": "other", "shots": 0, "seed": 1}}},
        {"tasks": {"spider": {"base_shots": 0}, "mmlu": {"source": "folder", "system": "other"}}},
        {"inference": {"do_sample": True, "temperature": 0.5, "top_p": 0.9, "seed": 1}},
        {"tasks": {"mmlu": {"source": "folder", "shots_from": "first_subject", "questions_per_category": None}}},
        {"tasks": {"mmlu": {"source": "folder", "categories": "official"}}},
        {"tasks": {"more": {"kind": "mmlu", "source": "folder"}}},
        {"known_defects": ["x"], "published": {"report": "x"}},
        {"evaluation": {"interpolate": [0.5]}},
        {"evaluation": {"harness": {"tasks": ["arc_easy"]}}},
        {"evaluation": {"checkpoints": [5]}},
        {"tables": {"margin_pp": 2}},
        {"recommend": {}},
        {"evaluation": {"shots": [0, 9]}},
    ],
)
def test_no_evaluation_setting_reaches_training(sections):
    before, after = settings(study()), settings(study(**sections))
    assert before != after
    assert {rule: before[rule] for rule in TO_TRAINING} == {rule: after[rule] for rule in TO_TRAINING}
    for rule in ("prepare_spider", "render_spider"):
        for part in ("train", "validation", "shots") if rule == "prepare_spider" else ("train", "validation"):
            assert before[rule][part] == after[rule][part]


def test_some_of_the_rows_are_chosen_by_a_job_that_only_their_adapters_need():
    balanced = {"count": 9, "balance": "database"}
    workflow = parse(study(sweep={"training.rows": [None, {"fraction": 0.25}, balanced]}))
    names = workflow.globals
    about = {"name": "tasks.spider", "seed": 42}
    chosen = {choice: names["chosen_settings"](Wildcards(fromdict={"choice": choice})) for choice in names["CHOICES"]}
    assert chosen == {
        "0.25": about | {"fraction": 0.25, "label": "0.25"},
        "9-database": about | balanced | {"column": "db_id", "label": "9-database"},
    }
    needed = {
        run["variant"]: names["chosen_rows"](Wildcards(fromdict={"model": "m", "run": run["folder"]}))
        for run in names["ADAPTERS"]
    }
    assert needed == {
        "rowsall": [],
        "rows0.25": "<results>/data/spider/rows_0.25.json",
        "rows9-database": "<results>/data/spider/rows_9-database.json",
    }
    # A key of a user's own rows is the column itself.
    own = {"kind": "jsonl", "role": "target", "source": "a.jsonl", "train": "b.jsonl", "score": "exact"}
    tasks = {"spider": {"role": "yardstick"}, "quiz": own}
    found = settings(study(tasks=tasks, training={"rows": {"count": 9, "balance": "topic"}}))["choose_rows"]
    assert found["9-topic"].items() >= {"balance": "topic", "column": "topic", "name": "tasks.quiz"}.items()


def test_a_base_has_a_precision_of_its_own_where_a_study_says_so():
    fp4 = {"bnb_4bit_quant_type": "fp4"}
    model = {"source": "folder", "precision": "nf4", "quantization": fp4}
    given = {"sweep": {"lora.r": [4]}, "evaluation": {"shots": [0], "interpolate": [0, 0.5], "noise_floor": True}}
    given |= {"inference": {"do_sample": True, "seed": [1, 2]}}
    same, apart = (settings(study(models={"m": model | own}, **given)) for own in ({}, {"base_precision": "bf16"}))
    assert same["train"] == apart["train"]
    alone = {}
    for name, one in apart["predict_spider"]["m"].items():
        if name.partition("@")[0] == "base":
            alone[name] = one
            assert (one["precision"], "quantization" in one) == ("bf16", False)
        else:
            assert (one["precision"], one["quantization"]) == ("nf4", fp4)
            assert one == same["predict_spider"]["m"].get(name, one)
    assert {"base", "base@shots0", "base@draw2"} <= alone.keys()
    # Without what the adapter adds, its model is then not the base.
    assert "r4@0" in apart["predict_spider"]["m"] and "r4@0" not in same["predict_spider"]["m"]
    # Nothing else depends on it.
    told = {"predict_spider", "predict_mmlu", "tables", "cost", "index"}
    prepared = [rule for rule in same if rule.startswith(("fetch", "prepare", "render", "audit", "train"))]
    assert all(same[rule] == apart[rule] for rule in prepared) and told & same.keys()
