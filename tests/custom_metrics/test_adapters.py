"""The metric inside lm-evaluation-harness and inspect_ai, each run as its users run it."""

import json
import sqlite3
from contextlib import closing

import pytest

GOLD = "SELECT title FROM play ORDER BY year"
# Answer, and whether it is right as `bag` and as `ordered`.
ANSWERS = [
    ("Here it is:\n```sql\nSELECT title FROM play ORDER BY year;\n```", 1, 1),
    ("SELECT title FROM play ORDER BY year DESC", 1, 0),
    ("SELECT year FROM play", 0, 0),
    ("I do not know.", 0, 0),
]


@pytest.fixture
def database(tmp_path):
    path = tmp_path / "theater.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE play (title TEXT, year INTEGER); INSERT INTO play VALUES ('a', 1900), ('b', 1950);"
        )
    return path


TASK = """
task: theater
dataset_path: json
dataset_kwargs: {data_files: {test: FILE}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{query}}"
process_results: !function utils.process_results
metric_list:
  - {metric: bag, aggregation: mean, higher_is_better: true}
  - {metric: set, aggregation: mean, higher_is_better: true}
  - {metric: ordered, aggregation: mean, higher_is_better: true}
  - {metric: test_suite, aggregation: mean, higher_is_better: true}
  - {metric: columns_any_order, aggregation: mean, higher_is_better: true}
"""


def test_lm_evaluation_harness(database, tmp_path, monkeypatch):
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed (requirements-harness.txt)")
    from lm_eval import simple_evaluate
    from lm_eval.api.model import LM
    from lm_eval.tasks import TaskManager

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))

    class Told(LM):
        def generate_until(self, requests, disable_tqdm=False):
            return [ANSWERS[int(request.args[0].rpartition(" ")[2])][0] for request in requests]

        def loglikelihood(self, requests, disable_tqdm=False):
            raise NotImplementedError

        loglikelihood_rolling = loglikelihood

    rows = [{"question": f"Which plays? {i}", "query": GOLD, "database": str(database)} for i in range(len(ANSWERS))]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "theater.yaml").write_text(TASK.replace("FILE", str(tmp_path / "test.jsonl")), encoding="utf-8")
    (folder / "utils.py").write_text("from custom_metrics.lm_eval_task import process_results\n", encoding="utf-8")
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    results = simple_evaluate(model=Told(), tasks=["theater"], task_manager=manager, bootstrap_iters=0)
    found = results["results"]["theater"]
    assert (found["bag,none"], found["ordered,none"], found["test_suite,none"]) == (0.5, 0.25, 0.25)


def test_a_gold_query_that_fails_is_one_questions_error(database):
    from custom_metrics.lm_eval_task import process_results

    with pytest.warns(RuntimeWarning, match="the gold query fails .*absent"):
        assert set(process_results({"database": database, "query": "SELECT absent"}, ["SELECT 1"]).values()) == {0}
    assert process_results({"database": database, "query": ["SELECT absent", "SELECT 1"]}, ["SELECT 1"])["bag"] == 1


def test_inspect_ai(database, tmp_path, monkeypatch):
    pytest.importorskip("inspect_ai", reason="inspect_ai is not installed (pip install './custom_metrics[inspect]')")
    monkeypatch.chdir(tmp_path)
    from inspect_ai import Task, eval
    from inspect_ai.dataset import Sample
    from inspect_ai.model import ModelOutput
    from inspect_ai.solver import solver

    from custom_metrics.inspect_scorer import execution_accuracy

    @solver
    def told():
        """Answer without a model, whose tokens inspect_ai would count with a table from the network."""

        async def solve(state, generate):
            state.output = ModelOutput.from_content("mockllm/model", state.metadata["answer"])
            return state

        return solve

    asked = [(GOLD, answer) for answer, *_ in ANSWERS] + [("SELECT absent", "SELECT 1")]
    samples = [
        Sample(input="Which plays?", target=gold, metadata={"database": str(database), "answer": answer})
        for gold, answer in asked
    ]
    for semantics, right in (("bag", 1), ("ordered", 2)):
        task = Task(dataset=samples, solver=told(), scorer=execution_accuracy(semantics=semantics))
        (log,) = eval(task, model="mockllm/model", display="none", log_dir=str(tmp_path))
        assert log.status == "success", log.error
        scores = [sample.scores["execution_accuracy"] for sample in log.samples]
        assert [score.value for score in scores] == ["C" if one[right] else "I" for one in ANSWERS] + ["I"]
        assert scores[0].answer == GOLD and scores[1].metadata["ordered"] is False
        assert "the gold query fails" in scores[-1].explanation
        assert log.results.scores[0].metrics["accuracy"].value == sum(one[right] for one in ANSWERS) / len(samples)
    with pytest.raises(ValueError, match="found 'bags', expected one of set, bag"):
        execution_accuracy(semantics="bags")
