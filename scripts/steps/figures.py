"""Draw a study's tables as figures: learning against forgetting, differences, parts, errors, losses, seeds, ways."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

import _path  # noqa: F401
from common.files import UserError, atomic_write, read_json
from common.job import job
from present import figures_results, figures_training
from present.format import Say
from present.plots import Results, runs_of, save
from present.values import ALL, RECOMMENDED, read_table, trained

# The function that draws a figure has its name.
DRAW = vars(figures_results) | vars(figures_training)
# What `Results` calls an accuracy, or a difference from the base, and the ends of its interval.
ACCURACY = {"accuracy_pct": "x", "ci_low": "low", "ci_high": "high"}
DIFFERENCE = {"difference_pp": "x", "ci_low_pp": "low", "ci_high_pp": "high"}


def figures(
    train: Sequence[str | Path],
    tables: Mapping[str, str | Path],
    outputs: Mapping[str, str | Path],
    language: str = "en",
) -> None:
    """Draw figures, each as SVG and as PDF.

    Args:
        train: reports of `train`, in …/<model>/<variant>/.
        tables: CSV files of `tables` by name: execution_accuracy, mmlu, regression, databases, confusion, seeds; and
            recommendation, of a study that has it.
        outputs: paths named <figure>_svg and <figure>_pdf for each figure that is to be drawn.
        language: en or pt.

    Raises:
        UserError: the tables are not about the same runs.
    """
    results, say = read_results(train, tables), Say(language)
    for name in dict.fromkeys(output.rpartition("_")[0] for output in outputs):
        figure = DRAW[name](results, say)
        for kind in ("svg", "pdf"):
            with atomic_write(outputs[f"{name}_{kind}"], "wb") as file:
                save(figure, file, kind)


def read_results(train: Sequence[str | Path], tables: Mapping[str, str | Path]) -> Results:
    """Read what the figures are drawn from; the arguments are those of `figures`.

    Raises:
        UserError: the tables are not about the same runs.
    """
    read = {name: read_table(path) for name, path in tables.items() if path}
    chosen = pd.DataFrame({"model": [], "variant": []})
    if "recommendation" in read:
        chosen = read["recommendation"][read["recommendation"]["choice"] == RECOMMENDED]
    return Results(
        points=read_points(tables["execution_accuracy"], tables["mmlu"]),
        accuracy=trained(read["execution_accuracy"]).rename(columns=ACCURACY),
        comparisons=trained(read["regression"]).rename(columns=DIFFERENCE),
        databases=trained(read["databases"]).rename(columns=ACCURACY),
        confusion=trained(read["confusion"]),
        seeds=read["seeds"],
        reports=[(*Path(path).parts[-3:-1], read_json(path)) for path in train],
        best=frozenset(runs_of(chosen)),
    )


def read_points(execution_accuracy: str | Path, mmlu: str | Path) -> pd.DataFrame:
    """Read both accuracies of each run, the `points` of `Results`.

    Raises:
        UserError: a run is in one of the tables only.
    """
    spider, knowledge = read_table(execution_accuracy), read_table(mmlu)
    spider = spider[spider["questions"] == ALL]
    knowledge = knowledge[knowledge["category"] == ALL]
    keys = ["model", "variant"]
    if spider[keys].values.tolist() != knowledge[keys].values.tolist():
        raise UserError(f"{mmlu}: has other runs than {execution_accuracy}. Run `snakemake -R tables`.")
    what = [column for column in ("of", "strength", "step", "shots") if column in spider]
    points = spider[[*keys, "semantics", *what]].reset_index(drop=True)
    points["level"] = spider["confidence_level"].to_numpy()
    for axis, table in (("x", spider), ("y", knowledge)):
        for column, suffix in {"accuracy_pct": "", "ci_low": "_low", "ci_high": "_high", "n": "_n"}.items():
            points[axis + suffix] = table[column].to_numpy()
    return points


if __name__ == "__main__":
    with job(snakemake.log[0]):
        inputs = dict(snakemake.input.items())
        figures(inputs.pop("train"), inputs, dict(snakemake.output.items()), **snakemake.params.settings)
