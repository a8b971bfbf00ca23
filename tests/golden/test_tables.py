"""The same records and the same tables, without a workflow: the steps right of the seam called one by one."""

import json
import lzma
import tarfile

import pandas as pd
import pytest

from _study import TABLES as PLAIN
from _study import TASKS
from certify import certify
from cost import cost
from gold import gold
from present.values import read_table
from recommend import recommend
from study import read, unfold
from tables import tables
from tasks import spider
from tests.golden.test_golden import HERE

TABLES = (*PLAIN, "equal_gain")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The folder of the tables that this code makes of the records of demo-full."""
    folder = tmp_path_factory.mktemp("golden")
    with tarfile.open(HERE / "demo-full.tar.xz") as archive:
        archive.extractall(folder / "study", filter="data")
    config = read.resolve(read.read_yaml(HERE.parents[1] / "studies/demo-full.yaml"), source="demo-full")
    runs = unfold.runs(config)

    def of(name, chosen=runs):
        return [folder / f"study/runs/{run['model']}/{run['variant']}/{name}" for run in chosen]

    settings = {"study": "demo-full", "tasks": TASKS, "runs": runs, "confidence_level": 0.95, "language": "en"}
    settings |= {"margin_pp": 3.0}
    settings |= {"known_defects": [], "accept_defect": []}
    names = (*TABLES, "cost", "recommendation", "gold")
    csv, pages = ({name: folder / f"{name}.{kind}" for name in names} for kind in ("csv", "md"))
    records = {"spider": of("spider.csv"), "mmlu": of("mmlu.csv")}
    tables(records, {name: csv[name] for name in TABLES} | {f"{name}_md": pages[name] for name in TABLES}, settings)
    outputs = {"csv": csv["recommendation"], "md": pages["recommendation"], "decision": folder / "decision.json"}
    recommend(records, outputs, settings)
    spider.fetch(unfold.stage(config, "spider", "fetch"), folder / "source")
    questions = {"questions": folder / "study/data/splits/dev.jsonl", "manifest": folder / "source/manifest.json"}
    certify(questions, folder / "certified.csv", unfold.stage(config, "spider", "score"), 2)
    of_sql = settings | {"tasks": {"spider": TASKS["spider"]}}
    inputs = {"spider": records["spider"], "certified_spider": folder / "certified.csv"}
    gold(inputs, {"csv": csv["gold"], "md": pages["gold"]}, of_sql)
    asked = [run for run in runs if "shots" not in run.get("point", {})]
    trained = [run for run in asked if "point" not in run and run["variant"] != "base"]
    inputs = {
        "train": of("train.json", trained),
        "predict_spider": of("predict_spider.json"),
        "spider_answers": of("spider_answers.jsonl"),
        "predict_mmlu": of("predict_mmlu.json", asked),
    }
    cost(inputs, {"csv": csv["cost"], "md": pages["cost"]}, settings)
    return csv


def test_the_page_of_costs_has_the_values_of_its_file(found):
    frame, page = read_table(found["cost"]), found["cost"].with_suffix(".md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| demo")]
    assert len(rows) == len(frame)
    shown = pd.DataFrame(rows).iloc[:, 3:].replace("n/a", "nan").replace(",", "", regex=True).astype(float)
    values = frame[["seconds", "tokens_per_second", "rows_per_second", "peak_memory_mib", "gpu_hours", "cpu_hours"]]
    digits = (0, 0, 1, 1, 3, 3)
    for (_, cells), (name, column), places in zip(shown.items(), values.items(), digits, strict=True):
        column = column / 1024 if name == "peak_memory_mib" else column
        assert cells.tolist() == pytest.approx(column.tolist(), abs=0.51 * 10.0**-places, nan_ok=True)
    assert [run for _, run, *_ in rows] == frame["variant"].tolist()


def test_values_of_all_tables_are_equal(found):
    expected = json.loads(lzma.decompress((HERE / "expected.json.xz").read_bytes()))["demo-full"]["csv"]
    assert set(expected) == {f"{name}.csv" for name in found}
    for name, text in expected.items():
        assert found[name.removesuffix(".csv")].read_text(encoding="utf-8").splitlines() == text.splitlines(), name
