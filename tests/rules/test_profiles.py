"""The profiles agree in what makes a result stale, and know the rules that compute on a card."""

import re

import pytest
import yaml


@pytest.fixture(scope="module")
def profiles(repo) -> dict[str, dict]:
    return {
        name: yaml.safe_load((repo / "profiles" / name / "profile.yaml").read_text(encoding="utf-8"))
        for name in ("default", "slurm")
    }


@pytest.mark.parametrize(
    "key", ["rerun-triggers", "max-checksum-file-size", "rerun-incomplete", "keep-going", "show-failed-logs"]
)
def test_a_study_moves_between_workstation_and_cluster(profiles, key):
    assert profiles["slurm"][key] == profiles["default"][key]


def test_every_rule_on_a_card_has_its_time_and_memory(profiles, repo):
    text = "".join(path.read_text(encoding="utf-8") for path in (repo / "rules").glob("*.smk"))
    rules = dict(re.findall(r"^rule (\w+):\n((?:    .*\n|\n)*)", text, re.MULTILINE))
    on_a_card = {name for name, body in rules.items() if "gpu=1" in body}
    assert on_a_card == {"train", "predict_spider", "predict_mmlu", "harness"}
    assert set(profiles["slurm"]["set-resources"]) == on_a_card
    for values in profiles["slurm"]["set-resources"].values():
        assert set(values) == {"mem_mb", "runtime"}
        assert values["mem_mb"].endswith("* attempt")


def test_downloads_are_local_rules(repo):
    text = (repo / "rules" / "data.smk").read_text(encoding="utf-8")
    local = re.search(r"localrules:\n((?:    \w+,\n)+)", text)[1].split()
    assert {name.rstrip(",") for name in local} == set(re.findall(r"^rule (fetch_\w+):", text, re.MULTILINE))
