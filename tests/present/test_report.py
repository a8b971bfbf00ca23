import json
import re
from dataclasses import replace
from types import SimpleNamespace
from typing import get_args

import pandas as pd
import pytest
import typst

from _study import HAS, TASKS, as_inputs, certificates, mmlu_records, spider_records, study, with_shots, write_tables
from _study import TABLES as WRITTEN
from analysis.data import heads_of
from common.files import UserError, read_json, write_json
from custom_metrics.judge import ERROR_CLASSES
from gold import gold
from harness_table import harness_table
from present import catalogue
from present.format import LANGUAGES, Say, read_words
from present.templates import FOLDER
from present.typeset import MOST_PAGES
from present.values import SAME, read_table
from report import report
from tasks.base import Measure
from tasks.records import SPIDER_COLUMNS, read_records, write_records
from tasks.registry import KINDS, measured

HOSTILE = (
    "```\n# Not a heading\n<script>alert(1)</script> #panic(1) $x$ @ref *b* \\ \n````\n\0\ud800\u202e 查询 🙂 é | "
    "{{ n }}<!-- end -->\n![x](y.svg)" + "x" * 5000
)
FIGURES = ("tradeoff", "differences", "hardness", "databases", "error_flow", "loss", "seeds")
FIGURES += ("strength", "trajectory", "shots")
HEADINGS = {
    "change": ("Change against the base model", "Mudança em relação ao modelo base"),
    "worth": ("Gain and loss", "Ganho e perda"),
    "factors": ("Which factor matters?", "Qual fator importa?"),
    "points": ("Interpolations, checkpoints and soups", "Interpolações, checkpoints e soups"),
    "harness": ("Other tasks", "Outras tarefas"),
    "shots": ("Prompting alone", "Só prompting"),
    "recommendation": ("Recommendation", "Recomendação"),
}
# What a report tells of beside the tasks' own tables.
TABLES = ("settings", "contrasts", "transitions", "equal_gain", "regression", "errors", "gold", "cost")
NO_ADAPTERS = ("This study has no adapters.", "Este estudo não tem adaptadores.")
DEFECTS = "Known defects of this method"
COST = {"task": "predict_spider", "device": "cpu", "seconds": 3.5, "gpu_hours": 0, "rows_per_second": 4.2}
COST |= {"tokens_per_second": "", "peak_memory_mib": 700}


def results(folder, adapters, models=("demo",), made=None):
    """Write everything a report reads, as the rules leave it; return the arguments of `report`."""
    made = made or study(folder / "made", adapters, models)
    runs = [(run["model"], run["variant"]) for run in made["runs"]]
    tasks = made.get("tasks", TASKS)
    target, models = next(iter(tasks)), list(dict.fromkeys(model for model, _ in runs))
    records = []
    for (model, variant), path in zip(runs, made[target], strict=True):
        records.append(folder / f"runs/{model}/{variant}/{target}.csv")
        records[-1].parent.mkdir(parents=True)
        records[-1].write_bytes(path.read_bytes())
    names = made.pop("names", WRITTEN)
    paths = {name: folder / f"tables/{name}.csv" for name in (*names, "cost")}
    write_tables(outputs=paths | {f"{name}_md": folder / f"tables/{name}.md" for name in names}, **made)
    pd.DataFrame([head | COST | {"task": f"predict_{target}"} for head in heads_of(made["runs"])[1]]).to_csv(
        paths["cost"], index=False
    )
    sql = {task: use for task, use in tasks.items() if measured(tasks)[task].form == "sql"}
    if sql:
        certified = {task: certificates(folder / f"data/{task}/gold.csv", made[task][0]) for task in sql}
        inputs, about = as_inputs(made)
        given = {task: inputs[task] for task in sql} | {f"certified_{task}": path for task, path in certified.items()}
        paths["gold"] = folder / "tables/gold.csv"
        gold(given, {"csv": paths["gold"], "md": folder / "tables/gold.md"}, about | {"tasks": sql})
    (folder / "figures").mkdir()
    picture = typst.compile(b"#set page(width: 400pt, height: 300pt)\nA figure", timestamp=0)
    figures = [folder / f"figures/{name}.pdf" for name in FIGURES]
    for path in figures:
        path.write_bytes(picture)
    data = []
    for task, use in tasks.items():
        source = {"source": f"https://example.org/{task}.zip", "archive_sha256": "cd" * 32 if task == target else None}
        parts = {"source/manifest": source}
        if task == target:
            split = {"rows": 200, "sha256": "ab" * 32, "by_database": {"zoo": 200}}
            split["by_hardness"] = {"easy": 50, "medium": 50, "hard": 50, "extra": 50}
            split["settings"] = {"seed": 42, "validation": {"by": "database"}}
            parts |= {"train": split, "test": split}
        else:
            asked = {"shots": 4, "seed": 42} | ({"shots_from": "own_dev"} if use["kind"] == "mmlu" else {})
            parts["test"] = {"rows": 150, "settings": asked, "sha256": "ef" * 32}
        for name, value in parts.items():
            data.append(folder / f"data/{task}/{name}.json")
            write_json(data[-1], value)
    prompts = []
    for model in models:
        record = {"name": model, "source": "meta/llama", "commit": "c0ffee" * 6, "sha256": "12" * 32}
        write_json(folder / f"models/{model}.json", record)
        audit = {"rows": 80, "checked": 80, "truncated": 0, "pass": True}
        write_json(
            folder / f"prompts/{model}/audit.json", audit | {"few_shot_rows_in_train": 0, "test_rows_in_train": 0}
        )
        for task in tasks:
            prompts.append(folder / f"prompts/{model}/{task}_test.json")
            write_json(prompts[-1], {"first_prompt": "<s>How many?\n  SQL:", "shots": ["train_spider-00001"]})
    trained, answered = [], []
    for number, (model, variant) in enumerate(runs):
        facts = {"prompts_sha256": "34" * 32, "batch_size_used": 8, "device": "cpu", "settings": {"precision": "fp32"}}
        for task in tasks:
            answered.append(folder / f"runs/{model}/{variant}/{task}_predict.json")
            write_json(answered[-1], facts | {"versions": {"torch": "2.13.0"}})
        if variant != "base" and "point" not in made["runs"][number]:
            trained.append(folder / f"runs/{model}/{variant}/train.json")
            training = {"learning_rate": 0.001 * number, "seed": 42}
            settings = {"lora": {"r": 8, "target_modules": ["q", "v"]}, "training": training}
            facts = {"rows": 80, "steps": 10, "trainable_parameters": 1000, "all_parameters": 100000, "device": "cpu"}
            write_json(trained[-1], facts | {"settings": settings, "history": [{"loss": 0.5}]})
    inputs = {
        "tables": [paths[name] for name in (*tasks, *TABLES) if name in paths],
        "figures": figures,
        "records": records,
        "data": data,
        "models": [folder / f"models/{model}.json" for model in models],
        "audits": [folder / f"prompts/{model}/audit.json" for model in models],
        "prompts": prompts,
        "train": trained,
        "answers": answered,
    }
    settings = {"study": "test", "tasks": tasks, "language": "en", "protocol": "corrected", "scale": "full"}
    settings |= {"known_defects": [], "accept_defect": [], "own_prompts": {}, "authors": []}
    settings |= dict.fromkeys(("title", "affiliation", "course", "date", "report"), "")
    settings["labels"] = {variant: variant for _, variant in runs}
    outputs = {"report": folder / "report.md", "pdf": folder / "report.pdf"}
    return {"outputs": outputs, "inputs": inputs, "settings": settings}


def table_of(arguments, name):
    """The CSV file of a table."""
    return next(path for path in arguments["inputs"]["tables"] if path.stem == name)


def written(arguments, *tables, **settings):
    """Write the report, with further tables and other settings; return its Markdown and its PDF."""
    found = arguments["inputs"] | {"tables": [*arguments["inputs"]["tables"], *tables]}
    report(**arguments | {"inputs": found, "settings": arguments["settings"] | settings})
    outputs = arguments["outputs"]
    return outputs["report"].read_text(encoding="utf-8"), outputs["pdf"].read_bytes()


def pages(capsys):
    return int(re.search(r"report\.pdf: (\d+) pages", capsys.readouterr().out)[1])


def part(page, heading, language="en"):
    """Return the text under a heading of the Markdown page, each paragraph on one line."""
    title = HEADINGS[heading][LANGUAGES.index(language)]
    found = re.search(rf"(?ms)^#+ {re.escape(title)}$(.*?)(?=^#|\Z)", page)[1]
    return re.sub(r"(?<=[^\n|>])\n(?=[^\n|<\-])", " ", found)


def made_of(folder, right, mmlu):
    """Write the records of a base and one adapter with these right answers; return the arguments of `tables`."""
    values = {"base": {}, "lr0.1": {"training.learning_rate": 0.1}}
    runs = [{"model": "demo", "variant": name, "setting": name, "settings": of} for name, of in values.items()]
    folder.mkdir()
    return {
        "spider": [spider_records(folder / f"s{i}.csv", answers) for i, answers in enumerate(right)],
        "mmlu": [mmlu_records(folder / f"m{i}.csv", answers, ("stem",)) for i, answers in enumerate(mmlu)],
        "study": "test",
        "runs": runs,
        "confidence_level": 0.95,
        "margin_pp": 3.0,
    }


@pytest.mark.parametrize("language", ["en", "pt"])
def test_the_macro_average_stands_where_it_is_another(tmp_path, language):
    made = study(tmp_path / "made", 1)
    one = results(tmp_path / "one", 1, made=made)
    for path, right in zip(made["mmlu"], ([1] * 150, [0] * 30 + [1] * 120), strict=True):
        mmlu_records(path, right, subjects=["a", "b", "c", "a"])
    other = results(tmp_path / "other", 1, made=made)
    for arguments, there in ((one, False), (other, True)):
        assert ("Macro" in written(arguments, language=language)[0]) == there


@pytest.mark.parametrize("language", LANGUAGES)
def test_wherever_few_shot_examples_come_from_there_are_words(language):
    fields = [kind.Options.model_fields.get("shots_from") for kind in KINDS.values()]
    values = {value for field in fields if field for value in get_args(field.annotation)}
    assert {"one_list", "per_question", "own_dev"} <= values
    assert values == read_words(language)["report"]["shots_from"].keys()


# The largest one in one language: nothing of its size is a matter of words.
@pytest.mark.parametrize(
    ("adapters", "models", "language"),
    [(30, ("demo",), "pt")]
    + [(*one, language) for one in ((0, ("demo",)), (1, ("demo",)), (2, ("llama", "gemma"))) for language in LANGUAGES],
)
def test_a_report_of_any_study(tmp_path, capsys, adapters, models, language):
    arguments = results(tmp_path, adapters, models)
    arguments["settings"] |= {"language": language, "protocol": "as_reported", "scale": "smoke"}
    page, pdf = written(arguments)
    assert pages(capsys) <= MOST_PAGES
    assert (page, pdf) == written(arguments)
    assert str(tmp_path) not in page
    assert str(tmp_path).encode() not in pdf
    assert "](figures/tradeoff.svg)" in page
    assert "](answers.html#task=spider&q=dev-0" in page
    assert "c0ffee" in page
    assert "--config protocol=as_reported scale=smoke\n" in page
    assert "nan" not in re.sub(r"\w*(finan|nant)\w*", "", page.lower())
    none = NO_ADAPTERS[LANGUAGES.index(language)]
    if adapters:
        assert none not in page
        assert len(re.findall(r"(?m)^- .*(?:execution accuracy|acurácia de execução) .*MMLU", page)) == adapters * len(
            models
        )
    else:
        assert page.count(none) >= 2
        assert f"**{Say(language).verdict('gained')}" not in part(page, "change", language)
    measured = {"en": "Spider execution accuracy", "pt": "Acurácia de execução no Spider"}[language]
    table = [line for line in page.splitlines() if line.startswith("| `") and measured in line]
    assert len(table) >= adapters * len(models)


def test_findings_say_what_the_table_says(tmp_path):
    page, _ = written(results(tmp_path, 2))
    line = r"(?m)^- `(\S+)` \(this training run\): .*\*\*(.*)\*\*; .*\*\*(.*)\*\* \((.*)\)\.$"
    found = re.findall(line, part(page, "change"))
    table = pd.read_csv(tmp_path / "tables/settings.csv")
    # Of one database and one subject: each verdict has its dagger.
    assert set(table["unit"]) == {"question"}
    table = table[(table["category"] == "aggregate") & (table["measure"] == "correct")]
    table["verdict"] = table["verdict"].replace("undecided", "undecided at this n") + " †"
    said = table.groupby("setting")["verdict"].agg(list)
    assert {name: [gain, loss] for name, gain, loss, _ in found} == said.to_dict()
    margins = table[table["task"] == "mmlu"].set_index("setting")["margin_verdict"]
    margins = margins.map(lambda margin: Say("en").margin(margin, unit="question"))
    assert {name: margin for name, *_, margin in found} == margins.to_dict()


def test_the_abstract_says_the_answer(tmp_path):
    """One training of each setting, on one database: the sentences follow the verdicts and say what they are about."""
    base, gain = [0] * 120 + [1] * 80, [1] * 100 + [0] * 20 + [1] * 80
    made = made_of(tmp_path / "made", [base, gain], [[1] * 150, [1] * 150])
    page = written(results(tmp_path / "kept", 1, made=made))[0]
    abstract = page.partition("<!-- abstract -->")[2].partition("<!-- end -->")[0]
    gained = r"This training run of `lr0\.1` gains 50 pp of Spider execution accuracy \(.*?\) †\. In it the model "
    assert re.search(rf"{gained}loses no more than 3 pp of MMLU †\.", abstract)
    assert "What another seed would change is in no interval." in abstract
    # The answer stands above the method, and the trade-off between them.
    places = [
        page.index(part) for part in ("<!-- abstract -->", "](figures/tradeoff.svg)", "## Methodology", "## Results")
    ]
    assert places == sorted(places)
    made = made_of(tmp_path / "other", [base, gain], [[1] * 150, [1] * 75 + [0] * 75])
    page, _ = written(results(tmp_path / "lost", 1, made=made))
    assert re.search(rf"{gained}also loses 50 pp of MMLU \(.*?\) †\.", page)
    made = made_of(tmp_path / "open", [base, base], [[1] * 20 + [0] * 20, [0] * 4 + [1] * 20 + [0] * 16])
    page, _ = written(results(tmp_path / "undecided", 1, made=made))
    assert "No gain of Spider execution accuracy is shown for this training run" in page
    assert "In it no change of MMLU is shown, and a loss above 3 pp is not ruled out" in page


def test_what_a_report_that_is_handed_in_has_at_its_head(tmp_path):
    arguments = results(tmp_path, 1)
    head = {"title": "On *forgetting*", "authors": ["Ana Souza", "B. Lima"], "affiliation": "UFAM"}
    page, _ = written(arguments, **head, course="NLP, 2025/1", date="July 2025", report="A. Souza. A study, 2025")
    assert page.startswith("# On \\*forgetting\\*\n\nAna Souza and B. Lima\n\nUFAM · NLP, 2025/1 · July 2025\n")
    assert re.search(
        r"repeats that of A\. Souza\. A study, 2025 \[(\d)\](?s:.*)\n\[\1\] A\. Souza\. A study, 2025\.", page
    )
    # Each number that the text names is in the list, in the order in which the text names them.
    text, _, listed = page.partition("## References")
    named = list(dict.fromkeys(int(number) for number in re.findall(r" \[(\d+)\]", text)))
    numbers = [int(number) for number in re.findall(r"(?m)^\[(\d+)\] ", listed)]
    assert named == numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_smoke_run_is_said_to_be_one(tmp_path, language):
    arguments = results(tmp_path, 1)
    banner = read_words(language)["conclusion"]["smoke"]
    assert banner not in written(arguments, language=language)[0]
    assert banner in written(arguments, language=language, scale="smoke")[0].partition("<!-- abstract -->")[0]


WRONG_ROWS = {"en": "wrong rows", "pt": "linhas erradas"}


@pytest.mark.parametrize("language", LANGUAGES)
def test_why_an_answer_failed_is_said(tmp_path, language):
    arguments = results(tmp_path, 1)
    page, _ = written(arguments, language=language)
    said = {"en": ("It selects", "in place of"), "pt": ("Seleciona", "em vez de")}[language]
    assert re.search(rf"\({WRONG_ROWS[language]}\)\.\*\* [A-Z].*\. {said[0]} `-1` {said[1]} `\d+`\. ", page)


@pytest.mark.parametrize("language", LANGUAGES)
def test_classes_of_errors_that_changed_are_named_with_their_test(tmp_path, language):
    arguments = results(tmp_path, 2)
    path = table_of(arguments, "errors")
    table = read_table(path)
    (own,) = table.index[(table["error_class"] == "wrong_rows") & (table["variant"] != "base")][:1]
    table["p_holm"] = table["p_holm"].where(table["p_holm"].isna(), 1.0)
    table.to_csv(path, index=False)
    heading = {"en": "Which errors changed?", "pt": "Quais erros mudaram?"}[language]

    def changed():
        return re.search(rf"(?ms)^### {re.escape(heading)}$(.*?)^#", written(arguments, language=language)[0])[1]

    assert WRONG_ROWS[language] not in changed()
    table.loc[own, ["base_n", "n", "p_holm"]] = [140, 90, 0.0123]
    table.to_csv(path, index=False)
    assert re.search(rf"`lr\S+`: {WRONG_ROWS[language]} 140 → 90 \(.*; p = 0[.,]012\)\.", changed())


# What is said of an adapter ends with what follows from its pair of verdicts, on Spider and on MMLU.
PAIRS = {
    ("gained", "lost"): {"en": "for the user of the model to say", "pt": "cabe a quem usa o modelo dizer"},
    ("gained", "undecided"): {"en": r"The intervals reach down to \S+ pp", "pt": r"Os intervalos chegam a \S+ pp"},
    ("gained", "gained"): {"en": "no price for the gain", "pt": "não mostram um preço pelo ganho"},
    ("undecided", "lost"): {"en": "Nothing in these data speaks for it", "pt": "Nada nestes dados fala a seu favor"},
    ("undecided", "undecided"): {"en": "nor that there is none", "pt": "nem que não existam"},
    ("undecided", "gained"): {"en": "what it was trained for is not shown", "pt": "naquilo para que foi treinado"},
    ("lost", "lost"): {"en": "worse than its base in both", "pt": "É pior que a base em ambos"},
    ("lost", "undecided"): {"en": "the task it was trained for", "pt": "a tarefa para a qual foi treinado"},
    ("lost", "gained"): {"en": "the task it was trained for", "pt": "a tarefa para a qual foi treinado"},
}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("gain", ["gained", "lost", "undecided"])
@pytest.mark.parametrize("loss", ["gained", "lost", "undecided"])
def test_each_pair_of_verdicts_has_its_sentence(tmp_path, gain, loss, language):
    arguments = results(tmp_path, 1)
    path = table_of(arguments, "settings")
    table = pd.read_csv(path)
    table.loc[table["task"] == "spider", "verdict"] = gain
    table.loc[table["task"] == "mmlu", "verdict"] = loss
    table["margin_verdict"] = "undecided"
    table.to_csv(path, index=False)
    page, _ = written(arguments, language=language)
    (said,) = re.findall(r"(?m)^- (.*)$", part(page, "worth", language))
    say, pair, change = Say(language), (gain, loss), r"\(\S+ pp.*?\)"
    on, both, at = {"en": ("on Spider", "and", "on MMLU"), "pt": ("no Spider", "e", "no MMLU")}[language]
    said_of = rf": {say.verdict(gain)} {on} {change} {both} {say.verdict(loss)} {at} {change}\. "
    assert re.search(rf"{said_of}.*{PAIRS[pair][language]}\.$", said)
    known = {one[language] for one in PAIRS.values()} - {PAIRS[pair][language]}
    assert not any(re.search(rf"{other}\.$", said) for other in known)


def test_an_unknown_verdict_is_refused(tmp_path):
    arguments = results(tmp_path, 1)
    path = table_of(arguments, "settings")
    path.write_text(re.sub(r"\b(gained|undecided),", "promising,", path.read_text(), count=1))
    with pytest.raises(UserError, match=r"verdict: found 'promising', expected one of gained, lost"):
        report(**arguments)


@pytest.mark.parametrize("share", [0, 1])
def test_all_wrong_all_right(tmp_path, share):
    made = made_of(tmp_path / "made", [[share] * 60] * 2, [[share] * 30] * 2)
    page, _ = written(results(tmp_path, 1, made=made))
    for word in ("**gained †**", "**lost †**", "The highest is"):
        assert (word in page) == (word == "The highest is" and share == 1)
    assert ("No run has a right answer" in page) == (share == 0)
    assert ("all 60 answers are right" in page) == (share == 1)
    assert ("not shown to be above chance on MMLU" in page) == (share == 0)
    # One category is the whole: no table of it apart.
    assert "by category" not in page


def test_known_defects_stand_above_all(tmp_path):
    arguments = results(tmp_path, 1)
    page, clean = written(arguments)
    assert DEFECTS not in page
    page, pdf = written(arguments, known_defects=["The loss #covers <b>nothing</b>."], accept_defect=["truncated"])
    head = page.partition("## Methodology")[0]
    assert "The loss \\#covers \\<b\\>nothing\\</b\\>." in head
    assert "its audit may fail: truncated" in head
    assert f"> **{DEFECTS}**" in head
    assert "The method has the known defects named above." in head
    assert pdf != clean


def test_hostile_answers_are_shown_and_not_obeyed(tmp_path, capsys):
    arguments = results(tmp_path, 1)
    path = arguments["inputs"]["records"][1]
    spider_records(path, read_records(path, SPIDER_COLUMNS)["bag"].tolist(), answer=HOSTILE)
    page, pdf = written(arguments)
    assert pages(capsys) <= MOST_PAGES
    assert pdf.startswith(b"%PDF")
    assert "`````text\n```\n# Not a heading\n<script>" in page
    assert "\\u0000\\ud800\\u202e 查询 🙂 é | {{ n }}" in page
    assert "more characters.)" in page
    outside = re.sub(r"(?ms)^(`{3,})\w*\n.*?^\1$", "", page)
    assert "<script>" not in outside
    assert "y.svg" not in outside
    assert "# Not a heading" not in outside


def test_other_prompts_for_one_run_are_refused(tmp_path):
    arguments = results(tmp_path, 1)
    path = arguments["inputs"]["answers"][-1]
    write_json(path, json.loads(path.read_text()) | {"prompts_sha256": "ff" * 32})
    with pytest.raises(UserError, match=r"mmlu_predict\.json, prompts_sha256: found ff.*expected 34"):
        report(**arguments)


def test_prompts_of_its_own_for_the_base_are_said(tmp_path):
    arguments = results(tmp_path, 1)
    path = arguments["inputs"]["answers"][0]
    write_json(path, json.loads(path.read_text()) | {"prompts_sha256": "ff" * 32})
    page, _ = written(arguments, own_prompts={"spider": ["base"]})
    assert "the base was given other prompts than its adapters" in page
    assert re.search(r"\| Spider prompts +\| `demo base` ", page)
    # Of a yardstick too.
    page, _ = written(arguments, own_prompts={"spider": ["base"], "mmlu": ["base"]})
    assert page.count("the base was given other prompts than its adapters") == 2
    assert re.search(r"\| MMLU prompts +\| `demo base` ", page)


def test_a_defect_that_is_no_longer_accepted_is_refused(tmp_path):
    arguments = results(tmp_path, 1)
    (audit,) = arguments["inputs"]["audits"]
    write_json(audit, read_json(audit) | {"failed": ["truncated"]})
    with pytest.raises(UserError, match=r"failed: found truncated, which accept_defect does not name. Write accept_de"):
        report(**arguments)
    report(**arguments | {"settings": arguments["settings"] | {"accept_defect": ["truncated"]}})


@pytest.mark.parametrize(
    ("language", "loss_on", "said", "proof"),
    [
        ("en", "completion", "the labels of the answers alone.", "the labels of all equal the gold answer and the end"),
        ("en", "assistant", "the labels of all turns of the assistant.", "equal all turns of the assistant, the gold"),
        ("en", "text", "the labels of whole rows, prompt and answer.", "the labels of all equal the whole text, which"),
        ("pt", "completion", "os rótulos apenas das respostas.", "os rótulos de todas são a resposta de referência e"),
        (
            "pt",
            "text",
            "os rótulos das linhas inteiras, prompt e resposta.",
            "de todas são o texto inteiro, que termina",
        ),
    ],
)
def test_the_report_says_what_is_learnt(tmp_path, language, loss_on, said, proof):
    arguments = results(tmp_path, 1)
    (audit,) = arguments["inputs"]["audits"]
    write_json(audit, read_json(audit) | {"loss_on": loss_on})
    page, _ = written(arguments, language=language)
    assert said in page
    assert proof in page


@pytest.mark.parametrize("language", LANGUAGES)
def test_points_have_a_part_of_their_own(tmp_path, language):
    plain, _ = written(results(tmp_path / "plain", 2), language=language)
    made = study(tmp_path / "made", 2)
    first = made["runs"][1]["variant"]
    for name, point in {f"{first}@0.5": {"strength": 0.5}, "soup-all": {"soup": "all"}}.items():
        run = {"model": "demo", "variant": name, "setting": name, "settings": {}}
        made["runs"].append(run | {"point": {"of": [first], **point}})
        made["spider"].append(made["spider"][1])
        made["mmlu"].append(made["mmlu"][1])
    page, _ = written(results(tmp_path / "points", 2, made=made), language=language)
    own = part(page, "points", language)
    assert f"`{first}@0.5`" in own
    assert "`soup-all`" in own
    assert "strength.svg" in own
    # All else is about the adapters alone.
    rest = page.replace(own, "")
    assert f"{first}@" not in rest
    assert "soup-all" not in rest
    for heading in ("change", "worth"):
        assert part(page, heading, language) == part(plain, heading, language)


def harness_csv(path, adapters, scores):
    """Write what `harness_table` makes of 0/1 scores, by task, of the base and each adapter; return the path."""
    runs = [{"model": "demo", "variant": name, "settings": {}} for name in ["base", *adapters]]
    files = []
    for number, run in enumerate(runs):
        samples = [
            {"task": task, "filter": "none", "doc_id": i, "doc_hash": str(i), "acc": float(value)}
            for task, values in scores.items()
            for i, value in enumerate(values[number])
        ]
        results = [
            {"task": task, "metric": "acc", "filter": "none", "value": sum(v[number]) / len(v[number])}
            | {"n": len(v[number])}
            for task, v in scores.items()
        ]
        results.append({"task": "t0", "metric": "perplexity", "filter": "none", "value": 9.5, "n": 40})
        files.append(path.with_name(f"{run['variant']}.json"))
        found = {"lm_eval": "0.4.13", "shots": dict.fromkeys(scores, 0), "results": results, "samples": samples}
        write_json(files[-1], found)
    settings = {"runs": runs, "confidence_level": 0.95, "known_defects": [], "accept_defect": [], "language": "en"}
    harness_table(files, {"csv": path, "md": path.with_suffix(".md")}, settings)
    return path


@pytest.mark.parametrize("language", LANGUAGES)
def test_other_tasks_have_a_sentence_for_each_verdict(tmp_path, language):
    arguments = results(tmp_path, 2)
    adapters = [path.parts[-2] for path in arguments["inputs"]["train"]]
    half, better, worse = [1, 0] * 20, [1] * 38 + [0] * 2, [0] * 39 + [1]
    # Of 2 x 5 comparisons, one better, one worse, eight the same; more than the table shows.
    scores = {"t0": [half, better, half], "t1": [half, half, worse], **{f"t{i}": [half] * 3 for i in (2, 3, 4)}}
    path = harness_csv(tmp_path / "harness.csv", adapters, scores)
    page, _ = written(arguments, path, language=language)
    own, say = part(page, "harness", language), Say(language)
    table = read_table(path).set_index(["variant", "task", "metric"])
    to, inside = ("to", "in") if language == "en" else ("a", "em")

    def change(name, task):
        row = table.loc[name, task, "acc"]
        value, low, high = (say.signed(100 * row[column]) for column in ("difference", "ci_low", "ci_high"))
        return f"`{name}` {inside} `{task}` acc ({value} pp, {low} {to} {high})."

    equal = table[table["verdict"] == SAME]
    low, high = say.signed(100 * equal["ci_low"].min()), say.signed(100 * equal["ci_high"].max())
    expected = {
        "en": f"**Worse** than the base in 1 of 10 comparisons: {change(adapters[1], 't1')} "
        f"**Better** than the base in 1 of 10 comparisons: {change(adapters[0], 't0')} "
        f"**Not distinguishable** from the base at this n: 8 of 10, with intervals that reach from {low} to {high} pp.",
        "pt": f"**Pior** que a base em 1 de 10 comparações: {change(adapters[1], 't1')} "
        f"**Melhor** que a base em 1 de 10 comparações: {change(adapters[0], 't0')} "
        f"**Não distinguível** da base com este n: 8 de 10, com intervalos que vão de {low} a {high} pp.",
    }
    assert expected[language] in own
    shown = {
        "en": "Shown: 6 of 10 rows, those with the smallest p",
        "pt": "Aparecem aqui 6 de 10 linhas, as de menor p",
    }
    assert shown[language] in own
    assert "`tables/harness.csv`" in own
    assert {"en": "with 95% intervals", "pt": "com intervalos de 95%"}[language] in own
    assert {"en": "for these 10 comparisons", "pt": "para estas 10 comparações"}[language] in own
    lines = [line for line in own.splitlines() if line.startswith("| `lr")]
    assert len(lines) == 6
    row = table.loc[adapters[0], "t0", "acc"]
    first = next(line for line in lines if "| t0, acc" in line and adapters[0] in line)
    assert f"{say.number(50)} → {say.number(95)}" in first
    assert first.split("|")[3].strip() == "40"
    assert say.p(row["p_holm"]).replace("<", "\\<") in first
    assert "perplexity" not in own
    # Nothing else of the report is about them.
    without, _ = written(arguments, language=language)
    assert f"### {HEADINGS['harness'][LANGUAGES.index(language)]}" not in without
    assert part(page, "change", language) == part(without, "change", language)


def test_other_tasks_of_a_base_alone(tmp_path):
    path = harness_csv(tmp_path / "harness.csv", [], {"t0": [[1, 0] * 20]})
    page, _ = written(results(tmp_path / "r", 0), path)
    assert "`t0` acc 0.500 (n = 40) and `t0` perplexity 9.500 (n = 40)" in part(page, "harness")


@pytest.mark.parametrize(
    ("language", "rights", "best", "accuracy"),
    [
        ("en", {0: [0] * 200, 5: [1] * 150 + [0] * 50}, 5, 75.0),
        ("pt", {0: [0] * 200, 1: [0] * 199 + [1]}, 3, None),
    ],
)
def test_what_prompting_alone_buys(tmp_path, language, rights, best, accuracy):
    made = with_shots(study(tmp_path / "made", 2), tmp_path, rights)
    arguments = results(tmp_path / "shots", 2, made=made)
    other = "0" * 64
    for path in arguments["inputs"]["answers"]:
        if "@shots" in str(path) and path.name == "spider_predict.json":
            write_json(path, json.loads(path.read_text()) | {"prompts_sha256": other})
    page, _ = written(arguments, language=language, own_prompts={"spider": [f"base@shots{shots}" for shots in rights]})
    own = part(page, "shots", language)
    assert all(f"`base@shots{shots}`" in own for shots in rights)
    assert "shots.svg" in own
    counts = read_table(table_of(arguments, "spider"))
    whole = counts[counts["questions"] == "aggregate"].set_index("variant")["accuracy_pct"]
    say = Say(language)
    reached = accuracy or whole["base"]
    top = whole[[name for name in whole.index if name.startswith("lr")]].idxmax()
    difference = say.signed(whole[top] - reached)
    expected = {
        "en": f"The best number for `demo`, of equal ones the smallest, is {best} examples: {say.number(reached)}%. "
        f"The setting with the highest accuracy, `{top}`, has {say.number(whole[top])}%, {difference} pp against that.",
        "pt": f"O melhor número para `demo`, entre iguais o menor, é {best} exemplos: {say.number(reached)}%. "
        f"A configuração de maior acurácia, `{top}`, tem {say.number(whole[top])}%, {difference} pp em relação a isso.",
    }
    assert expected[language] in own
    # The base was given the adapters' prompts; what has others is named, with their hash.
    same = {"en": "The base and its adapters were given the same prompts.", "pt": "receberam os mesmos prompts."}
    assert same[language] in page
    assert f"`{other[:16]}`" in page
    assert "base@shots" not in part(page, "change", language)


APART = {
    "en": "unless a base has its own. The base of `m0` answered in nf4 and its adapters in fp32, so each difference "
    "from the base holds what the precision changes too.",
    "pt": "a não ser que a base tenha a sua. A base de `m0` respondeu em nf4 e seus adaptadores em fp32; cada "
    "diferença em relação à base contém também o que a precisão muda.",
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_base_in_another_precision_is_said(tmp_path, language):
    arguments = results(tmp_path, 2)
    page, _ = written(arguments, language=language)
    assert APART[language][:12] not in page
    for path in arguments["inputs"]["answers"]:
        if path.parent.name == "base":
            facts = json.loads(path.read_text())
            write_json(path, facts | {"settings": facts["settings"] | {"precision": "nf4"}})
    page, _ = written(arguments, language=language)
    model = arguments["inputs"]["answers"][0].parts[-3]
    # Between the two stands what nf4 is.
    assert all(part in page for part in APART[language].replace("m0", model).split(". ", 1))


CHOSEN = {
    "hardness": {
        "en": "`a` was trained on 30 of the 80 training rows, drawn by their ids with seed 7 and balanced by hardness: "
        "easy 12 / 40, extra 6 / 6 and hard 11 / 11 (ids: sha256 `abababababababab`). extra had fewer rows than the "
        "others and gave all.",
        "pt": "`a` foi treinado com 30 das 80 linhas de treino, sorteadas por seus ids com a semente 7 e balanceadas "
        "por dificuldade: fácil 12 / 40, extra 6 / 6 e difícil 11 / 11 (ids: sha256 `abababababababab`). extra tinha "
        "menos linhas que as outras classes e deu todas.",
    },
    "database": {"en": "balanced by database: 9 \u00d7 3 to 4 (ids", "pt": "por banco de dados: 9 \u00d7 3 a 4 (ids"},
    None: {"en": "with seed 7 (ids: sha256", "pt": "com a semente 7 (ids: sha256"},
}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("balance", CHOSEN)
def test_the_rows_that_an_adapter_was_trained_on_are_said(tmp_path, balance, language):
    arguments = results(tmp_path, 2)
    first, second = arguments["inputs"]["train"]
    counts = {"easy": (12, 40), "hard": (11, 11), "extra": (6, 6)}
    if balance == "database":
        counts = {f"d{n}": (3 + (n < 3), 8) for n in range(9)}
    by = {name: {"chosen": some, "of": of} for name, (some, of) in sorted(counts.items())} if balance else {}
    settings = {"count": 30, "seed": 7} | ({"balance": balance} if balance else {})
    chosen = {"name": "30-x", "settings": settings, "rows": 30, "of": 80, "ids_sha256": "ab" * 32}
    chosen |= {"by": by} if balance else {}
    facts = json.loads(first.read_text())
    facts["settings"]["training"]["rows"] = settings
    write_json(first, facts | {"rows": 30, "chosen": chosen})
    name = first.parent.name
    page, _ = written(arguments, language=language)
    assert CHOSEN[balance][language].replace("`a`", f"`{name}`") in page
    # Beside it stands who has all rows, in the table of hyperparameters and in that of trainings.
    assert re.search(r"\| `rows` +\| `30-x; all` +\|", page)
    assert "rows" not in json.loads(second.read_text())["settings"]["training"]


FULL = {
    "en": (
        "What fine-tuning for",
        "`a` is full fine-tuning: all weights",
        "The others are LoRA's adapters",
        "switched off: it",
    ),
    "pt": (
        "O que o ajuste fino para",
        "`a` é ajuste fino completo: todos",
        "Os demais são adaptadores",
        "ser desligado: é",
    ),
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_full_fine_tuning_is_told_from_adapters(tmp_path, language):
    arguments = results(tmp_path, 2)
    first, second = arguments["inputs"]["train"]

    def trained_whole(path):
        facts = json.loads(path.read_text())
        facts["settings"]["training"]["method"] = "full"
        del facts["settings"]["lora"]
        write_json(path, facts | {"trainable_parameters": 100000})

    trained_whole(first)
    page, _ = written(arguments, language=language)
    for words in FULL[language]:
        assert words.replace("`a`", f"`{first.parent.name}`") in page
    assert re.search(r"\| `method` +\| `full; lora` +\|", page)
    share = {"en": "An adapter has 1.00% of", "pt": "Um adaptador tem 1,00% dos"}[language]
    assert share in page
    trained_whole(second)
    page, _ = written(arguments, language=language)
    assert FULL[language][2] not in page
    assert share not in page


@pytest.mark.parametrize("language", LANGUAGES)
def test_whether_replay_reduced_forgetting_is_said(tmp_path, language):
    made = study(tmp_path / "made", 2)
    for run, fraction in zip(made["runs"][1:], (0.0, 0.25), strict=True):
        name = f"replay{fraction}"
        run |= {"settings": {"replay.fraction": fraction}, "variant": name, "setting": name}
    arguments = results(tmp_path, 2, made=made)
    trained = arguments["inputs"]["train"][1]
    facts = json.loads(trained.read_text())
    facts["settings"]["replay"] = {"fraction": 0.25, "kl": 0.0}
    write_json(trained, facts | {"replay": {"rows": 20}})
    manifest = {"rows": 99, "settings": {"seed": 7}, "repeated_dropped": 2, "checked_against": 195}
    data = [tmp_path / f"data/old/{name}.json" for name in ("train", "source/manifest")]
    write_json(data[0], manifest | {"dropped": {"a": "test x-00001"}})
    write_json(data[1], {"source": "rows.csv"})
    arguments["inputs"]["data"] += data
    table = pd.read_csv(table_of(arguments, "contrasts"))
    for key in ("higher", "lower", "undecided"):
        table.assign(verdict=key).to_csv(table_of(arguments, "contrasts"), index=False)
        page, _ = written(arguments, language=language)
        said = {
            "en": "**Replay** "
            + {"higher": "reduced", "lower": "increased", "undecided": "did not distinguishably reduce"}[key]
            + " forgetting: at ",
            "pt": "**A repetição de conhecimento geral** "
            + {"higher": "reduziu", "lower": "aumentou", "undecided": "não reduziu"}[key]
            + " o esquecimento"
            + (" de modo distinguível" if key == "undecided" else "")
            + ": com ",
        }[language]
        assert f"{said}0.25 " in part(page, "factors", language)
        # Execution accuracy is nothing that is forgotten.
        assert page.count(said) == 1
    assert "`rows.csv`" in page
    assert "195" in page
    assert "0.0; 0.25" in page
    assert "`replay.fraction`" in page


@pytest.mark.parametrize("adapters", [0, 2])
def test_both_languages_say_the_same(tmp_path, adapters):
    arguments = results(tmp_path, adapters)
    english, portuguese = (written(arguments, language=language)[0] for language in LANGUAGES)
    # Without the marks of decimals and thousands, which differ.
    numbers = [sorted(re.findall(r"\d+", re.sub(r"(?<=\d)[.,](?=\d)", "", page))) for page in (english, portuguese)]
    assert numbers[0] == numbers[1]
    for sign in ("`", "**", "|", "(answers.html#", "†", "<!-- "):
        assert english.count(sign) == portuguese.count(sign), sign
    assert re.findall(r"(?m)^#+", english) == re.findall(r"(?m)^#+", portuguese)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_report_says_what_was_found_and_never_why(language):
    said = str(read_words(language))
    for chapters in ("report", "results", "discussion"):
        said += (FOLDER / f"{chapters}.{language}.md.j2").read_text(encoding="utf-8")
    assert not re.search(r"(?i)\b(because|caus\w+|due to|thanks to|owing|porque|devido|graças)\b", said)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_class_of_error_is_explained(language):
    assert set(ERROR_CLASSES) <= set(read_words(language)["report"]["errors"])


def test_the_words_of_all_languages_have_the_same_keys():
    def keys(words, prefix=""):
        for key, value in words.items():
            yield from keys(value, f"{prefix}{key}.") if isinstance(value, dict) else [prefix + key]

    english, *others = (sorted(keys(read_words(language))) for language in LANGUAGES)
    assert all(other == english for other in others)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_report_of_questions_too_few_for_any_detectable_effect(tmp_path, language):
    # As at the smoke scale: nothing changed, so that no true difference can be named that would be found.
    made = study(tmp_path / "made", 1, n=4)
    made["spider"] = [spider_records(path, [1, 0, 1, 0]) for path in made["spider"]]
    made["mmlu"] = [mmlu_records(path, [1, 0, 1]) for path in made["mmlu"]]
    page, _ = written(results(tmp_path, 1, made=made), language=language)
    assert page


def other_tasks(folder, monkeypatch, *yardsticks):
    """A study of databases of one's own, with none or more of a BIRD and a made-up task of answers compared as text."""
    easy = ("simple", "moderate", "challenging")
    bird = tuple("difficulty" if name == "hardness" else name for name in SPIDER_COLUMNS)
    spider = KINDS["spider"].measure(TASKS["spider"])
    asked = tuple("difficulty" if name == "hardness" else name for name in spider.question)
    strata = {"difficulty": easy, "db_id": "sorted"}
    other = {"role": "yardstick", "criterion": "set"}
    text = ("id", "topic", "question", "answer", "prediction", "correct")
    measures = {
        "shop": replace(spider, name="shop"),
        "bird": replace(spider, name="BIRD", columns=bird, question=asked, strata=strata, **other),
        "facts": Measure("facts", "match", text, text[:4], ("correct",), "topic", {"topic": None}, ("topic",)),
    }
    kinds = {"shop": "spider_format", "bird": "bird", "facts": "jsonl"}
    for task, kind in kinds.items():
        monkeypatch.setitem(
            KINDS, kind, SimpleNamespace(measure=lambda use, one=measures[task]: replace(one, role=use["role"]))
        )
    tasks = {task: {"kind": kinds[task], "role": measures[task].role} for task in ("shop", *yardsticks)}
    made = study(folder / "made", 2)
    made |= {"tasks": tasks, "shop": made.pop("spider"), "bird": [], "facts": []}
    for number, path in enumerate(made["shop"]):
        frame = read_records(path, SPIDER_COLUMNS)
        rows = frame.assign(difficulty=[easy[i % 3] for i in range(len(frame))]).to_dict("records")
        made["bird"].append(folder / f"made/{number}-bird.csv")
        write_records(made["bird"][-1], bird, [{name: row[name] for name in bird} for row in rows])
        known = [{"id": f"f{i}", "topic": f"topic {i % 6}", "question": "?", "answer": "x"} for i in range(60)]
        right = [int(i % 3 != 0 or number < 2) for i in range(60)]
        made["facts"].append(folder / f"made/{number}-facts.csv")
        found = [row | {"prediction": "x", "correct": correct} for row, correct in zip(known, right, strict=True)]
        write_records(made["facts"][-1], text, found)
    del made["mmlu"]
    for task in {"bird", "facts"} - {*yardsticks}:
        del made[task]
    has = HAS | {"tasks": {task: measures[task].form for task in tasks}}
    return made | {"names": catalogue.names(catalogue.TABLES, has, "tables")}


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_report_of_other_tasks(tmp_path, monkeypatch, language):
    made = other_tasks(tmp_path, monkeypatch, "bird", "facts")
    page, _ = written(results(tmp_path, 2, made=made), language=language)
    assert not re.search(r"MMLU|Spider", page.replace("Spider's", ""))
    change, worth = part(page, "change", language), part(page, "worth", language)
    measured = {"en": "{} execution accuracy", "pt": "acurácia de execução no {}"}[language].format
    for line in re.findall(r"(?m)^- `lr.*$", change):
        assert re.search(f"{measured('shop')} .*%.*; {measured('BIRD')} .*%.*; facts .*%", line)
    # Each yardstick in turn, with all adapters.
    assert len(re.findall(r"`lr0\.0001-r8-seed42`", worth)) == len(re.findall(r"`lr0\.00015-r8-seed42`", worth)) == 2
    on = {"en": "on", "pt": "no"}[language]
    assert f" {on} BIRD (" in worth
    assert f" {on} facts (" in worth
    # Of each task its data, its prompt, its accuracy; of those whose queries are executed classes and levels too.
    for task in ("shop", "bird", "facts"):
        assert f"`https://example.org/{task}.zip`" in page
    assert page.count("`<s>How many?") + page.count("<s>How many?") == 3
    assert page.count({"en": "What became of the SQL", "pt": "O que aconteceu com o SQL"}[language]) == 2
    levels = {
        "en": ("easy", "simple", "moderate", "challenging"),
        "pt": ("fácil", "simples", "moderada", "desafiadora"),
    }
    assert [level for level in (*levels[language], "topic 5") if level not in page.lower()] == []
    assert {"en": "set criterion", "pt": "critério conjunto"}[language] in page
    assert "answers.html#task=shop&q=dev-0" in page


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_report_without_a_yardstick(tmp_path, monkeypatch, language):
    page, _ = written(results(tmp_path, 2, made=other_tasks(tmp_path, monkeypatch)), language=language)
    own = re.search(rf"(?ms)^### {'Gain' if language == 'en' else 'Ganho'}$(.*?)(?=^#|\Z)", page)[1]
    assert len(re.findall(r"`lr0\.\d+-r8-seed42`", own)) == 2
    assert {"en": " and how much", "pt": " e quanto"}[language] not in page
    assert {"en": "Exchange rate", "pt": "Taxa de troca"}[language] not in page


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_report_of_a_target_whose_answers_are_compared_as_text(tmp_path, monkeypatch, language):
    made = other_tasks(tmp_path, monkeypatch, "bird", "facts")
    names = [name for name in made["names"] if name != "shop"]
    made |= {"names": names, "tasks": {"facts": {"kind": "jsonl", "role": "target"}, "bird": made["tasks"]["bird"]}}
    del made["shop"]
    arguments = results(tmp_path, 2, made=made)
    arguments["inputs"]["records"] = []
    page, _ = written(arguments, language=language)
    title = {"en": "# What LoRA fine-tuning for facts gains", "pt": "# O que o ajuste fino com LoRA para facts ganha"}
    assert page.startswith(title[language])
    # No query of its own failed, and what is not in a manifest is no zero.
    assert "answers.html#task=" not in page
    assert "0 / 0 / 0" not in page
    assert not re.search("criteri", part(page, "worth", language))
