"""Evaluate all SQL answers by pytest with the DeepEval metric, and hold its verdicts against the records."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import _path
from common.files import UserError, atomic_write, write_json
from common.job import job

TESTS = _path.SCRIPTS.parent / "custom_metrics/test_text_to_sql.py"
# What says when and where it ran: equal verdicts are equal bytes.
OF_THIS_RUN = ("time", "timestamp", "hostname")


def deepeval_tests(inputs: Mapping[str, Any], outputs: Mapping[str, str | Path], settings: Mapping[str, Any]) -> None:
    """Write the list of what is tested, with which anyone can repeat it, and pytest's JUnit XML.

    Args:
        inputs: `answers` and `records`, the files of each of `runs` in their order; by task, as `questions_<task>` and
            `manifest_<task>`, the questions and what the fetch wrote beside the databases.
        outputs: `runs`, the JSON file that TEXT_TO_SQL_RUNS is to name; `junit`.
        settings: `runs`, each with its name and task; `tasks`, by name the criterion and timeout_s.

    Raises:
        UserError: the metric gives another verdict than a record has, or the tests do not come to their end.
    """
    listed = Path(outputs["runs"])

    def seen(path: str | Path) -> str:
        return os.path.relpath(path, listed.parent)

    rows = [
        {
            "run": run["name"],
            "predictions": seen(answers),
            "records": seen(records),
            "questions": seen(inputs[f"questions_{run['task']}"]),
            "databases": seen(Path(inputs[f"manifest_{run['task']}"]).parent / "database"),
            "semantics": settings["tasks"][run["task"]]["criterion"],
            "timeout_s": settings["tasks"][run["task"]]["timeout_s"],
        }
        for run, answers, records in zip(settings["runs"], inputs["answers"], inputs["records"], strict=True)
    ]
    write_json(listed, rows)
    tree = tested(listed)
    for element in tree.iter():
        for name in OF_THIS_RUN:
            element.attrib.pop(name, None)
    with atomic_write(outputs["junit"], "wb") as stream:
        tree.write(stream, encoding="utf-8", xml_declaration=True)


def tested(listed: Path) -> ElementTree.ElementTree:
    """Run pytest on the runs that a file lists; return its JUnit XML, in which no question failed."""
    # No configuration, plugin or variable of elsewhere: a user who repeats it by hand has the same.
    options = ("-q", "-rN", "--tb=line", "-p", "no:cacheprovider", "-c", os.devnull, f"--rootdir={TESTS.parents[1]}")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "TEXT_TO_SQL_"))}
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "junit.xml")
        ended = subprocess.run(
            [sys.executable, "-m", "pytest", str(TESTS), *options, f"--junit-xml={made}"],
            env=kept | {"TEXT_TO_SQL_RUNS": str(listed.absolute()), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
            check=False,
        )
        tree = ElementTree.parse(made) if made.is_file() else ElementTree.ElementTree(ElementTree.Element("none"))
    failures = [found.get("message", "") for found in tree.iter("failure")]
    if failures:
        raise UserError(
            f"{len(failures)} tests failed; the first: {failures[0]} The records were edited, or a query ended by time "
            "alone: score the answers again (`snakemake -R` and the name of the rule, such as score_spider)."
        )
    if ended.returncode:
        raise UserError(f"{TESTS.name}: pytest ended with status {ended.returncode}; the log has its words.")
    return tree


if __name__ == "__main__":
    with job(snakemake.log[0]):
        files = dict(snakemake.input.items()), dict(snakemake.output.items())
        deepeval_tests(*files, snakemake.params.settings)
