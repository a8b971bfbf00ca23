"""How often verdicts about settings err, and what they find: the table and the figure of docs/statistics.md.

    python benchmarks/settings.py [--count 1500] [--out results.json]

On made-up answers whose true differences are known (tests/support/_answers.py says how they are drawn); about ten
minutes on one core. Writes shares of studies to --out, the figure to docs/settings.svg, and prints the tables.
"""

import argparse
import itertools
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / part) for part in ("", "scripts", "tests/support")]

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
from scipy.special import chdtri, stdtr, stdtrit  # noqa: E402
from tabulate import tabulate  # noqa: E402

from _answers import SPIDER, SUBJECTS, THREE, Design, Drawn, power, rates  # noqa: E402
from analysis.settings import Estimates  # noqa: E402

STYLE = {"svg.hashsalt": "settings", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
QUESTIONS = {"Spider dev, 20 databases": SPIDER, "3 subjects x 50": THREE, "57 subjects, a quarter": SUBJECTS}
# Whether the seeds of a setting change the same answers, and clusters differ in what is gained.
KINDS = {"alike": {"cluster_sd": 0.05, "alike": 0.5}, "apart": {"cluster_sd": 0.0, "alike": 0.0}}
SEEDS = {"2 x 2": (2, 2), "3 x 2": (3, 3), "5 x 2": (5, 5), "3 x 12": (3,) * 12}
SDS = (0.0, 0.01, 0.03, 0.05)
ONE = {"1 x 2, this run": (1, 1), "1, 3 and 3": (1, 3, 3)}


def simulate(count: int) -> list[dict]:
    """Measure every design: a row for each."""
    rows = []
    for (name, sizes), (kind, further) in itertools.product(QUESTIONS.items(), KINDS.items()):
        for (label, seeds), sd in itertools.product((SEEDS | ONE).items(), SDS):
            # Rows of twelve settings are more; those of 57 subjects take longer.
            studies = count // (3 if len(seeds) > 3 else 1) // (2 if sizes == SUBJECTS else 1)
            found = rates(Design(sizes, seeds=seeds, seed_sd=sd, **further), studies, seed=len(rows) + 1)
            rows.append(
                {"questions": name, "kind": kind, "seeds": label, "sd_pp": 100 * sd, "studies": studies} | found
            )
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


def powers(count: int) -> list[dict]:
    """Measure how often a loss of 9 points on 3 x 50 questions is found, at several shares of changed answers."""
    return [
        {"changed": changed, "alike": alike, "targets_gain": power(changed, alike, count), "targets_same": none}
        for changed, alike in itertools.product((0.1, 0.15, 0.2, 0.25), (0.0, 0.5, 0.9))
        for none in [power(changed, alike, count, gain=0.0)]
    ]


def unlike(count: int) -> list[dict]:
    """Measure how often the last setting, whose seeds differ more than those of the others, is called different."""
    rows, spreads = [], ((0.0, 0.05), (0.01, 0.03), (0.01, 0.01, 0.01, 0.05))
    for (name, sizes), seeds, sds in itertools.product(QUESTIONS.items(), (3, 5), spreads):
        design = Design(sizes, seeds=(seeds,) * len(sds), seed_sd=sds, **KINDS["alike"])
        generator, studies = np.random.default_rng(1), count // (2 if sizes == SUBJECTS else 1)
        found = [Estimates.of(design.draw(generator)[0]) for _ in range(studies)]
        false = [(one.error.p(one.centres)[-1] < 0.05, one.seeds_differ_more[-1]) for one in found]
        row = {"questions": name, "seeds": seeds, "sds_pp": [100 * sd for sd in sds], "studies": studies}
        rows.append(row | dict(zip(("false", "flagged"), np.mean(false, axis=0).tolist(), strict=True)))
    return rows


def drawn(count: int) -> list[dict]:
    """Measure answers that are drawn several times, base and trainings with the same random numbers or their own."""
    rows = []
    for (name, sizes), seeds, draws in itertools.product(list(QUESTIONS.items())[:2], ((1, 1), (3, 3)), (1, 2, 3, 5)):
        row = {"questions": name, "seeds": f"{seeds[0]} x 2", "draws": draws, "studies": count}
        for shared in (True, False):
            design = Drawn(sizes, seeds=seeds, seed_sd=0.02, cluster_sd=0.03, draws=draws, shared=shared)
            found = rates(design, count, seed=len(rows) + 1)
            row |= {f"{key}, {'same' if shared else 'own'} numbers": found[key] for key in ("settings", "contrasts")}
        rows.append(row)
        print(row, file=sys.stderr, flush=True)
    return rows


def rules(count: int) -> list[dict]:
    """Compare ways to put the variances of questions and seeds together, on normal data: the worst error of each.

    Over how much of the variance is shared by all seeds, and how much the seeds differ (0 to 5 points).
    """
    rows = []
    for (seeds, df), alpha in itertools.product(((2, 1), (2, 2), (3, 4), (5, 8)), (0.05, 0.0125)):
        worst = dict.fromkeys(("Satterthwaite", "Howe", "Howe, no less than the seeds'", "fiducial"), 0.0)
        for (shared, noise), sd in itertools.product(
            ((0.05, 9), (3, 9), (9, 1), (1.2, 2), (0.3, 0.5)), (0, 1, 2, 3.5, 5)
        ):
            for rule, error in errors((shared, noise, sd**2), (seeds, df), alpha, count).items():
                worst[rule] = max(worst[rule], error)
        rows.append({"seed_df": df, "level": alpha} | worst)
    return rows


def errors(variances: tuple[float, ...], design: tuple[int, int], alpha: float, count: int) -> dict[str, float]:
    """Draw estimates with their variances, and say how often each rule misses the truth, which is 0.

    Args:
        variances: of the questions, of seed x question, of the seeds.
        design: seeds, and the degrees of freedom of their variance.
    """
    generator, (shared, noise, of_seeds), (seeds, df), units = np.random.default_rng(1), variances, design, 100
    estimate = np.abs(generator.normal(size=count)) * np.sqrt(shared + (noise + of_seeds) / seeds)
    v = (shared + noise / seeds) * generator.chisquare(units, count) / units
    between = (noise + of_seeds) * generator.chisquare(df, count) / df
    own = np.maximum(0, between - noise * generator.chisquare(units * df, count) / (units * df)) / seeds
    t_units, t_seeds = stdtrit(units, 1 - alpha / 2), stdtrit(df, 1 - alpha / 2)
    howe = t_units**2 * v + t_seeds**2 * own
    satterthwaite = stdtrit((v + own) ** 2 / (v**2 / units + own**2 / df), 1 - alpha / 2) ** 2 * (v + own)
    # The chi-squared variable of the seeds' variance, integrated over at its quantiles, the low ones closer.
    shares = np.concatenate([[0], np.logspace(-7, -2, 40), np.linspace(0.015, 1, 60)])
    middle = (shares[1:] + shares[:-1]) / 2
    total = v[:, None] + np.maximum(0, between[:, None] * df / chdtri(df, 1 - middle) - noise) / seeds
    p = 2 * stdtr(units * (total / v[:, None]) ** 2, -estimate[:, None] / np.sqrt(total)) @ np.diff(shares)
    missed = (satterthwaite, howe, np.maximum(howe, t_seeds**2 * between / seeds))
    names = ("Satterthwaite", "Howe", "Howe, no less than the seeds'")
    found = {name: float((estimate**2 > limit).mean()) for name, limit in zip(names, missed, strict=True)}
    return found | {"fiducial": float((p < alpha).mean())}


def draw(rows: list[dict], path: Path) -> None:
    """Draw how often settings are called different from the base that are not, by the SD between seeds."""
    plt.rcParams |= STYLE
    figure, axes = plt.subplots(1, 3, figsize=(9, 3), sharey=True, layout="constrained")
    for axis, name in zip(axes, QUESTIONS, strict=True):
        axis.axhspan(3.5, 6.5, color="0.9", linewidth=0)
        for label, color in zip(SEEDS, ("#9ecae1", "#4292c6", "#08306b"), strict=False):
            of = [row for row in rows if (row["questions"], row["kind"], row["seeds"]) == (name, "alike", label)]
            for key, style in (("settings", "-o"), ("questions_alone", "--")):
                shares = [100 * row[key] for row in of]
                label_of = f"{label.split()[0]} seeds" + ("" if key == "settings" else ", questions alone")
                axis.plot([row["sd_pp"] for row in of], shares, style, color=color, markersize=3, label=label_of)
        axis.set(title=name, xlabel="SD between seeds (pp)")
        axis.set_yscale("function", functions=(np.sqrt, np.square))
        axis.set_ylim(0, 90)
        axis.set_yticks([0, 1, 3.5, 6.5, 20, 40, 80], ["0", "1", "3.5", "6.5", "20", "40", "80"])
    axes[0].set_ylabel("false verdicts at 5% (%)")
    axes[1].legend(frameon=False, fontsize=7, loc="upper left")
    figure.savefig(path, metadata={"Date": None, "Title": "False verdicts about two settings that do not differ"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1500, help="studies of most designs (1500)")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/2026-11-21-settings.json")
    options = parser.parse_args()
    rows, found, compared = simulate(options.count), powers(options.count // 4), rules(10 * options.count)
    flagged, draws = unlike(options.count), drawn(options.count)
    results = {"errors": rows, "power": found, "rules": compared, "unlike": flagged, "draws": draws}
    options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    draw(rows, ROOT / "docs/settings.svg")
    for kind in KINDS:
        table: dict[tuple[str, str], dict[str, str]] = {}
        for row in (row for row in rows if row["kind"] == kind):
            cell = f"{100 * row['settings']:.1f} / {100 * row['contrasts']:.1f}"
            table.setdefault((row["questions"], row["seeds"]), {})[f"SD {row['sd_pp']:g} pp"] = cell
        print(f"\n{kind}\n")
        lines = [{"questions": key[0], "seeds x settings": key[1]} | cells for key, cells in table.items()]
        print(tabulate(lines, headers="keys", tablefmt="github"))
    print("\n" + tabulate(found, headers="keys", tablefmt="github", floatfmt=".2f"))
    print("\n" + tabulate(compared, headers="keys", tablefmt="github", floatfmt=".3f"))
    for table in (flagged, draws):
        print("\n" + tabulate(table, headers="keys", tablefmt="github", floatfmt=".3f"))


if __name__ == "__main__":
    main()
