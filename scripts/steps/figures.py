"""Draw a study's tables as figures: learning against forgetting, differences, parts, errors, losses, seeds, ways."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

import _path  # noqa: F401
from common.files import UserError, atomic_write, read_json
from common.job import job
from present import figures_results, figures_training
from present.format import Say
from present.plots import Results, runs_of, save
from present.values import ALL, BASE, RECOMMENDED, RIGHT, read_table, trained
from tasks.base import Measure

# The function that draws a figure has its name.
DRAW = vars(figures_results) | vars(figures_training)
# What `Results` calls an accuracy, or a difference from the base, and the ends of its interval.
ACCURACY = {"accuracy_pct": "x", "ci_low": "x_low", "ci_high": "x_high"}
DIFFERENCE = {"difference_pp": "x", "ci_low_pp": "x_low", "ci_high_pp": "x_high"}


def figures(
    train: Mapping[tuple[str, str], str | Path],
    tables: Mapping[str, str | Path],
    outputs: Mapping[str, str | Path],
    measures: Mapping[str, Measure],
    language: str = "en",
) -> None:
    """Draw figures, as SVG and as PDF: `outputs` are paths named <figure>_svg and <figure>_pdf.

    Args:
        train: reports of `train`, by model and run.
        tables: CSV files by name: one of each task, settings and regression; databases and confusion, where a task is
            of form sql; recommendation, of a study that has it.
        measures: what is measured with each task, the target first.

    Raises:
        UserError: the tables are not about the same runs.
    """
    results, say = read_results(train, tables, measures), Say(language)
    for name in dict.fromkeys(output.rpartition("_")[0] for output in outputs):
        figure = DRAW[name](results, say)
        for kind in ("svg", "pdf"):
            if f"{name}_{kind}" in outputs:
                with atomic_write(outputs[f"{name}_{kind}"], "wb") as file:
                    save(figure, file, kind)


def read_results(
    train: Mapping[tuple[str, str], str | Path], tables: Mapping[str, str | Path], measures: Mapping[str, Measure]
) -> Results:
    """Read what the figures are drawn from; see `figures`."""
    read = {name: read_table(path) for name, path in tables.items() if path}
    target, *_ = measures
    points, accuracy = [], []
    for key, task in measures.items():
        table = read[key].assign(task=key).rename(columns=ACCURACY)
        points.append(table[table["questions" if task.form == "sql" else "category"] == ALL])
        if task.form == "sql":
            accuracy.append(trained(table))
        if runs_of(points[-1]) != runs_of(points[0]):
            raise UserError(f"{tables[key]}: has other runs than {tables[target]}. Run `snakemake -R tables`.")
    nothing = pd.DataFrame(columns=["model", "variant", "task", "choice"])
    candidates = read.get("recommendation", nothing).rename(columns={"setting": "variant"})
    best = set(runs_of(candidates[candidates["choice"] == RECOMMENDED]))
    # Where no candidate of a model is recommended, its base is.
    best |= {(model, BASE) for model in {*candidates["model"]} - {model for model, _ in best}}
    return Results(
        tasks=measures,
        points=pd.concat(points, ignore_index=True),
        accuracy=pd.concat(accuracy, ignore_index=True) if accuracy else nothing,
        settings=shown_settings(read["settings"]),
        runs=trained(read["regression"]).rename(columns=DIFFERENCE),
        databases=trained(read.get("databases", nothing)).rename(columns=ACCURACY),
        confusion=trained(read.get("confusion", nothing)),
        reports=[(*run, read_json(path)) for run, path in train.items()],
        best=frozenset(best),
    )


def shown_settings(table: pd.DataFrame) -> pd.DataFrame:
    """The settings, with right answers: their differences, and accuracies with the interval of the difference.

    The name of a setting is its `variant`.
    """
    table = table[table["measure"] == RIGHT].rename(columns={"setting": "variant", **DIFFERENCE})
    accuracy = {f"accuracy{end}": table["base_accuracy_pct"] + table[f"x{end}"] for end in ("", "_low", "_high")}
    return table.assign(**accuracy)


if __name__ == "__main__":
    from tasks.registry import measured

    with job(snakemake.log[0]):
        inputs, settings = dict(snakemake.input.items()), snakemake.params.settings
        measures = measured(settings["tasks"])
        adapters = [(run["model"], run["variant"]) for run in settings["adapters"]]
        train = dict(zip(adapters, inputs.pop("train"), strict=True))
        figures(train, inputs, dict(snakemake.output.items()), measures, settings["language"])
