"""The same rules on the real archives, cut down in rows: Spider as released and MMLU as released."""

import csv

import pytest
import yaml

from _folders import folders
from common.files import read_json

pytestmark = pytest.mark.long


def test_the_demo_model_runs_on_the_real_archives(shared_data, copy_repo, snakemake):
    folder = copy_repo("real")
    spider, mmlu = (shared_data / name for name in ("spider/spider_data.zip", "mmlu/mmlu_data.tar.gz"))
    run = snakemake(
        folder,
        "--configfile",
        "studies/demo-on-spider.yaml",
        "--config",
        # The smaller training file, the first dev questions, two steps: minutes would become hours otherwise.
        f"tasks={{spider: {{source: '{spider}', train_files: [train_others], questions: 12}}, "
        f"mmlu: {{source: '{mmlu}', questions_per_category: 4}}}}",
        "training={max_steps: 2}",
    )
    assert run.returncode == 0, run.stdout[-8000:]

    results = folder / "results" / "demo-on-spider"
    paths = results.glob("data/spider/*.jsonl")
    splits = {path.stem: path.read_bytes().count(b"\n") for path in paths}
    study = yaml.safe_load((folder / "studies" / "demo-on-spider.yaml").read_text(encoding="utf-8"))
    shots = read_json(results / "data/spider/shots.json")
    assert len(shots["set_aside"]) == study["tasks"]["spider"]["shots"]
    assert splits["test"] == 12
    out = shots["set_aside"] + shots["copies_left_out"]
    assert splits["train"] + splits["validation"] + len(out) == 1659
    assert read_json(results / "data/spider/source/manifest.json")["counts"]["dev"] == 1034
    for place in folders(results).values():
        for name, count in (("spider.csv", 12), ("mmlu.csv", 3 * 4)):
            with (place / name).open(encoding="utf-8", newline="") as stream:
                assert len(list(csv.DictReader(stream))) == count
    assert (results / "report.md").stat().st_size > 0
