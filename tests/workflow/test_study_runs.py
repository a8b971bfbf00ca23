"""Published studies from end to end at smoke scale, on the real archives: the two that use the most features."""

import csv

import pytest

from _files import read_json


@pytest.mark.parametrize(("name", "face"), [("ribeiro", "as_reported"), ("freitas", "corrected")])
def test_a_study_runs_at_smoke_scale(name, face, shared_data, copy_repo, snakemake):
    folder = copy_repo(name)
    spider, mmlu = (shared_data / path for path in ("spider/spider_data.zip", "mmlu/mmlu_data.tar.gz"))
    run = snakemake(
        folder,
        "--configfile",
        f"studies/{name}.yaml",
        "--config",
        "scale=smoke",
        f"face={face}",
        f"spider={{source: '{spider}'}}",
        f"mmlu={{source: '{mmlu}', revision: null}}",
    )
    assert run.returncode == 0, run.stdout[-8000:]
    label = f"{name}-smoke" if face == "corrected" else f"{name}-{face}-smoke"
    results = folder / "results" / label
    with (results / "tables" / "regression.csv").open(encoding="utf-8", newline="") as stream:
        assert len({row["variant"] for row in csv.DictReader(stream)}) == 1
    report = (results / "report.md").read_text(encoding="utf-8")
    audit = read_json(next(results.glob("runs/*/audit_labels.json")))
    if face == "as_reported":
        assert audit["failed"] == ["target_not_in_loss"]
        for page in (report, (results / "tables" / "regression.md").read_text(encoding="utf-8")):
            assert "target_not_in_loss" in page
            assert "Known defects" in page
        assert (results / "tables" / "published.csv").stat().st_size > 0
    else:
        assert audit["failed"] == []
        assert "Known defects" not in report
        train = read_json(next(path.parent.parent / "train.json" for path in results.glob("runs/*/*/adapter/*.json")))
        assert len(train["eval_history"]) == 2
        assert train["best_step"] in (1, 2)
