"""What a study will be able to find, and what is written down of it before it is run."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

import preregister
from analysis.prospect import PUBLISHED, Prospect, Variances, of_results
from common.files import UserError


@pytest.fixture
def here(tmp_path, monkeypatch, repo):
    """An empty folder with the resources of the repository."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "resources").symlink_to(repo / "resources")
    return tmp_path


def written(here: Path, capsys, study: Path, *arguments: str) -> tuple[str, list[Path]]:
    assert preregister.main(["--configfile", str(study), *arguments]) == 0
    return capsys.readouterr().out, sorted(here.glob("results/*/preregistered/*.json"))


def test_what_is_found_and_written_down(here, repo, capsys):
    study = repo / "studies/assignment.yaml"
    said, (file,) = written(here, capsys, study)
    assert "Ribeiro, Mistral 7B Instruct" in said
    assert "Power for a margin of 3 pp" in said
    assert not re.search(r"\bnan\b", said)
    assert f"Written down: margin, settings and tasks, in {file.relative_to(here)}" in said
    found = json.loads(file.read_text())
    assert found["tables"]["margin_pp"] == 3.0
    assert len(found["settings"]) > 1
    assert {row["task"]: (row["questions"], row["clusters"]) for row in found["expected"]} == {
        "spider": (1034, 20),
        "mmlu": (150, 3),
    }
    # It is never changed; another margin is another file.
    before = file.read_bytes()
    said, files = written(here, capsys, study)
    assert "Already written down" in said
    assert files == [file]
    assert file.read_bytes() == before
    _, files = written(here, capsys, study, "--config", "tables={margin_pp: 5}")
    assert len(files) == 2


def test_bad_results_are_refused(here, repo, capsys):
    (here / "old/tables").mkdir(parents=True)
    (here / "old/tables/settings.csv").write_text("a,b\n1,2\n")
    arguments = ["--configfile", str(repo / "config.yaml"), "--like"]
    for folder in ("old", "none"):
        assert preregister.main([*arguments, folder]) == 1
        error = capsys.readouterr().err
        assert f"{folder}/tables/settings.csv: found no table of settings" in error
        assert "Name the folder of a finished study." in error
    study = yaml.safe_load((repo / "config.yaml").read_text()) | {"sweep": {}, "adapters": {}}
    assert study["tables"]["margin_pp"] == 3.0


def test_the_variances_of_an_earlier_study_are_taken(tmp_path):
    path = tmp_path / "settings.csv"
    path.write_text(
        "measure,category,task,unit,clusters,n,cluster_se_pp,seed_sd_pp\n"
        "correct,aggregate,spider,database,20,1000,2,1.5\ncorrect,aggregate,mmlu,question,3,150,4,\n"
        "score,aggregate,mmlu,question,3,150,1,\ncorrect,stem,mmlu,question,1,50,9,\n"
    )
    found = of_results(path)
    assert found["spider"] == Variances(0.0, pytest.approx(0.02 * np.sqrt(20)), 0.015, str(path))
    assert found["mmlu"].changed == pytest.approx(0.04**2 * 150)
    # With its own questions and one seed the error is the one that it had.
    for task, clusters, se in (("spider", [i % 20 for i in range(1000)], 2), ("mmlu", [i % 3 for i in range(150)], 4)):
        one = Prospect(clusters, found[task], settings=2, seeds=1, family=4)
        assert 100 * np.sqrt(one.error.variance[0]) == pytest.approx(se)
    with pytest.raises(UserError, match="no table of settings"):
        of_results(tmp_path / "nothing.csv")


def test_more_questions_and_seeds_find_less():
    variances = Variances(0.2, 0.05, 0.02, "")
    few = Prospect([i % 20 for i in range(400)], variances, settings=4, seeds=2, family=8)
    more = Prospect([i % 20 for i in range(4000)], variances, settings=4, seeds=2, family=8)
    assert few.detectable_pp > more.detectable_pp > 0
    assert few.with_seeds(5).detectable_pp < few.detectable_pp
    # The least margin that is certified with 80% probability is the least effect that is found with it.
    assert few.power(few.detectable_pp) == pytest.approx(0.8)
    assert few.power(0.0) < 0.025


def test_the_expected_power_is_that_of_simulated_studies():
    """Questions alone, within three fixed subjects, one seed: how often the test that decides certifies the margin."""
    from analysis.settings import Answers, settings_tables

    generator, count, margin, hits = np.random.default_rng(1), 400, 9.0, 0
    clusters = np.arange(300) % 3
    for _ in range(count):
        base = generator.integers(0, 2, 300)
        turned = generator.random((2, 300)) < 0.15
        settings = {f"s{i}": (base ^ turn)[None].astype(float) for i, turn in enumerate(turned)}
        table, _ = settings_tables([Answers("m", "t", base.astype(float), settings, clusters)], margin, 0.95)
        hits += (table["margin_verdict"] == "no more than the margin lost").sum()
    expected = Prospect(list(clusters), Variances(0.15, 0.0, 0.0, ""), settings=2, seeds=1, family=2).power(margin)
    assert 0.5 < expected < 0.99
    # Holm's interval is no wider than Bonferroni's, of which the expectation is.
    assert expected - 0.05 < hits / (2 * count) < expected + 0.08


def test_the_share_of_answers_that_change_is_that_of_the_published_ones(shared_data):
    def right(name: str) -> np.ndarray:
        rows = map(json.loads, (shared_data / f"cunha/mmlu_{name}.jsonl").read_text(encoding="utf-8").splitlines())
        return np.array([row["generated_answer"].strip()[:1] == row["correct_answer_letter"] for row in rows])

    base, *tuned = (right(name) for name in ("base", "qlora1", "qlora2"))
    assert [int(one.sum()) for one in (base, *tuned)] == [66, 67, 71]
    assert np.mean([(one != base).mean() for one in tuned]) == pytest.approx(PUBLISHED["other"].changed)
