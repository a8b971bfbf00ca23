"""What the technical report says: a list of blocks that `present.report_render` writes as Markdown and as PDF.

A block is a dict of plain values with a `kind`: heading, paragraph, detail (a small paragraph), label (a small one that
stays with what follows), list, table, figure, pipeline, code, or shown (the place where it is said which adapters are
not shown). Text in it is spans (see `present.report_text`). A `rank` numbers the adapters from 0 by falling execution
accuracy; where the pages are few, blocks and rows of the last ranks are left out.

Every sentence about a result follows from a verdict or a number of the tables. None says why a model changed.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from common.files import UserError
from custom_metrics.judge import SEMANTICS
from present.report_text import Language, Spans, code, joined, text
from present.values import (
    ALL,
    BASE,
    GAINS_LESS,
    HARDNESS,
    RECOMMENDED,
    SAME,
    SEED,
    is_prompted,
    setting_name,
)

SPIDER, MMLU = "execution_accuracy", "mmlu"
# What the tables call a verdict, and the name by which its words and sentences are found.
VERDICTS = {"better": "better", "worse": "worse", SAME: "same", "higher": "higher", "lower": "lower"}
# Answers that ran and differ from the gold query's in order, columns or repeated rows alone, whatever the headline.
NEAR_MISSES = ("wrong_order_only", "duplicate_only", "wrong_columns", "extra_or_missing_columns")
DIGITS = 16
# Categories of MMLU that have a column each; with more, the table shows the whole alone.
MOST_CATEGORIES = 4
# Rows on the tasks of lm-evaluation-harness: a second yardstick, whose table is a file beside the report.
MOST_TASKS = 6
FIGURES = {
    "tradeoff": "tradeoff_caption",
    "differences": "differences_caption",
    "hardness": "hardness_figure_caption",
    "databases": "databases_caption",
    "error_flow": "error_flow_caption",
    "loss": "loss_caption",
    "seeds": "seeds_figure_caption",
    "strength": "strength_caption",
    "trajectory": "trajectory_caption",
    "shots": "shots_figure_caption",
}

Run = tuple[str, str]


@dataclass(frozen=True)
class Facts:
    """What a report is made of, as read from a study's results.

    Attributes:
        study, face, scale, semantics, known_defects, accept_defect: as the study's configuration has them; `study` is
            the name with face and scale.
        own_prompts: the variants whose Spider prompts are not those of the adapters.
        tables: the tables of `tables` and `cost` by name, text as text, numbers as numbers, an empty cell as NaN;
            base models and trained adapters alone.
        points: the rows of the regression table on what `evaluation` adds.
        recommendation: the table of `recommend`, None for a study without.
        harness: that of `harness_table`, base models and trained adapters alone; None for a study without.
        shots: how many examples the base model's prompts have, where it is evaluated with other numbers too.
        figures: the PDF of each figure by name.
        records: the Spider records of each run, in the order of the tables.
        spider, mmlu, splits, suite: manifests of the fetched releases, the splits and the MMLU questions.
        models: records of `fetch_model`.
        audits, dev_prompts, mmlu_prompts: reports of each model.
        train: reports of `train` of each adapter.
        answers: reports of `predict_*` by model, variant and file name.
        replay, replay_source: manifests of `prepare_replay` and `fetch_replay`; None without replay.
    """

    study: str
    face: str
    scale: str
    semantics: str
    known_defects: Sequence[str]
    accept_defect: Sequence[str]
    own_prompts: Sequence[str]
    tables: Mapping[str, pd.DataFrame]
    points: pd.DataFrame
    recommendation: pd.DataFrame | None
    harness: pd.DataFrame | None
    shots: int | None
    figures: Mapping[str, Path]
    records: Mapping[Run, pd.DataFrame]
    spider: Mapping
    mmlu: Mapping
    splits: Mapping
    suite: Mapping
    models: Sequence[Mapping]
    audits: Mapping[str, Mapping]
    dev_prompts: Mapping[str, Mapping]
    mmlu_prompts: Mapping[str, Mapping]
    train: Mapping[Run, Mapping]
    answers: Mapping[tuple[str, str, str], Mapping]
    replay: Mapping | None = None
    replay_source: Mapping | None = None


def content(facts: Facts, language: str) -> dict[str, Any]:
    """Return the report: title, byline, stamp (None without defects), abstract, and its blocks under `body`.

    Raises:
        UserError: a table holds a verdict that is not known here.
    """
    return _Report(facts, Language(language)).content()


class _Report:
    """The facts, the language, and the numbers of tables and figures while the blocks are made."""

    def __init__(self, facts: Facts, language: Language):
        self.facts, self.say = facts, language
        self.tables = facts.tables
        self.numbers: dict[str, int] = {"table": 0, "figure": 0}
        whole = self.tables[SPIDER][self.tables[SPIDER]["questions"] == ALL]
        self.whole = {(row.model, row.variant): row for row in whole.itertuples()}
        knowledge = self.tables[MMLU][self.tables[MMLU]["category"] == ALL]
        self.knowledge = {(row.model, row.variant): row for row in knowledge.itertuples()}
        self.runs = list(self.whole)
        self.adapters = [run for run in self.runs if run[1] != BASE]
        ranked = sorted(self.adapters, key=lambda run: -self.whole[run].correct)
        self.rank = {run: rank for rank, run in enumerate(ranked)}
        self.several = len({model for model, _ in self.runs}) > 1
        first = next(iter(self.whole.values()))
        self.n = {SPIDER: int(first.n), MMLU: int(next(iter(self.knowledge.values())).n)}
        self.hash = {SPIDER: first.data_sha256, MMLU: next(iter(self.knowledge.values())).data_sha256}
        self.level = language.percent(first.confidence_level)
        self.alpha = language.number(round(1 - first.confidence_level, 6), 4).rstrip("0")
        self.regression = self.tables["regression"]
        self.headline = self.regression[self.regression["category"] == ALL]
        self.parts = self.regression[self.regression["category"] != ALL]
        self.databases = len(set(next(iter(facts.records.values()))["db_id"]))

    def content(self) -> dict[str, Any]:
        facts, say = self.facts, self.say
        body = [
            *self.section("methodology", self.methodology()),
            *self.section("results", self.results()),
            *self.section("error_analysis", self.failures()),
            *self.section("discussion", self.discussion()),
            *self.section("limits", [{"kind": "list", "items": self.limits()}]),
            *self.section("reproducibility", self.reproducibility()),
        ]
        return {
            "title": say.plain("title"),
            "study": facts.study,
            "byline": say("byline", study=facts.study),
            "stamp": self.stamp(),
            "abstract": {"label": say.plain("abstract"), "body": self.abstract()},
            "body": body,
        }

    # -- building blocks -------------------------------------------------------------------------------------------

    def section(self, key: str, blocks: Iterable[dict], level: int = 1) -> list[dict]:
        """Return a heading and the blocks under it; nothing if there are none."""
        blocks = list(blocks)
        return [{"kind": "heading", "level": level, "text": self.say.plain(key)}, *blocks] if blocks else []

    def part(self, key: str, blocks: Iterable[dict]) -> list[dict]:
        return self.section(key, blocks, level=2)

    def number(self, kind: str) -> int:
        """Return the number of the next table or figure."""
        self.numbers[kind] += 1
        return self.numbers[kind]

    def table(
        self,
        caption: Spans,
        columns: Mapping[str, str],
        rows: Iterable[tuple[int | None, Sequence[Spans | str]]],
        note: Spans | None = None,
        wide: bool = True,
        file: str = "",
        more: str = "more_rows",
        number: int | None = None,
    ) -> dict:
        """Return a table.

        Args:
            columns: the key of each column's head, and left or right.
            rows: the rank of the adapter that each is about (None: always shown), and its cells.
            wide: over both columns of a page.
            file: the table that holds the rows which a short page leaves out.
            more: the key of the sentence that says what a short page leaves out.
        """
        cells = [
            {"rank": rank, "cells": [cell if isinstance(cell, list) else text(cell) for cell in row]}
            for rank, row in rows
        ]
        return {
            "kind": "table",
            "label": self.say.plain("table", n=number or self.number("table")),
            "caption": caption,
            "columns": [{"title": self.say.plain(key), "align": align} for key, align in columns.items()],
            "rows": cells,
            "note": note or [],
            "wide": wide,
            "more": more,
            "file": file,
        }

    def figures(self, *names: str) -> list[dict]:
        """Return the figures of these names that the study has."""
        return [
            {
                "kind": "figure",
                "label": self.say.plain("figure", n=self.number("figure")),
                "caption": self.say(FIGURES[name], level=self.level),
                "path": str(self.facts.figures[name]),
            }
            for name in names
            if name in self.facts.figures
        ]

    def paragraph(self, *sentences: Spans) -> list[dict]:
        body = joined(*sentences)
        return [{"kind": "paragraph", "body": body}] if body else []

    def name(self, run: Run) -> Spans:
        """Return a run's name, with its model where there are several."""
        return code(" ".join(run) if self.several else run[1])

    def verdict(self, word: str) -> str:
        """Return the name of a verdict of the tables.

        Raises:
            UserError: the tables say something else.
        """
        if word not in VERDICTS:
            raise UserError(
                f"tables/regression.csv or factors.csv, verdict: found {word!r}, expected one of "
                f"{', '.join(VERDICTS)}. Run `snakemake -R tables`."
            )
        return VERDICTS[word]

    def judged(self, word: str) -> str:
        return self.say.plain(f"verdict_{self.verdict(word)}")

    def semantics(self) -> str:
        return self.say.plain(self.facts.semantics)

    def data(self) -> dict[str, Any]:
        """Return what a note under a table of both measures says of its data."""
        return {
            "spider": self.say.whole(self.n[SPIDER]),
            "mmlu": self.say.whole(self.n[MMLU]),
            "spider_hash": self.hash[SPIDER][:DIGITS],
            "mmlu_hash": self.hash[MMLU][:DIGITS],
            "semantics": self.semantics(),
        }

    def accuracy(self, row: Any) -> str:
        return self.say.interval(row.accuracy_pct, row.ci_low, row.ci_high)

    def difference(self, row: Any) -> str:
        return self.say.interval(row.difference_pp, row.ci_low_pp, row.ci_high_pp, sign=True)

    def changed(self, row: Any) -> str:
        return self.say.change(row.difference_pp, row.ci_low_pp, row.ci_high_pp)

    def seen(self, figures: Sequence[dict]) -> str:
        """Return the figures' numbers in brackets."""
        return f" ({', '.join(figure['label'] for figure in figures)})" if figures else ""

    # -- front -----------------------------------------------------------------------------------------------------

    def stamp(self) -> dict | None:
        """Return what must stand above all results of a study whose method is known to be defective."""
        items = []
        if self.facts.accept_defect:
            items.append(self.say("defects_accepted", names=", ".join(self.facts.accept_defect)))
        items += [text(sentence) for sentence in self.facts.known_defects]
        return {"title": self.say.plain("defects_title"), "items": items} if items else None

    def abstract(self) -> Spans:
        say = self.say
        bases = [run for run in self.runs if run[1] == BASE]
        sentences = [
            say("question"),
            say(
                "abstract_setup" if self.adapters else "abstract_setup_base",
                models=capital(say.count("n_base", len(bases))),
                adapters=say.count("n_adapter", len(self.adapters)),
                databases=say.count("n_database", self.databases),
                **{key: value for key, value in self.data().items() if "hash" not in key},
            ),
        ]
        sentences += [
            say(
                "abstract_base",
                model=code(model),
                accuracy=self.with_percent(self.whole[model, BASE]),
                mmlu=self.with_percent(self.knowledge[model, BASE]),
            )
            for model, _ in bases[:3]
        ]
        if not self.adapters:
            return joined(*sentences, say("no_adapters"))
        for measure in (SPIDER, MMLU):
            rows = self.headline[self.headline["measure"] == measure]
            found = [self.verdict(word) for word in rows["verdict"]]
            measured = say.plain(f"in_{measure}")
            if len(rows) == 1:
                row = next(rows.itertuples())
                sentences.append(
                    say(
                        "abstract_one", measure=measured, difference=self.changed(row), verdict=self.judged(row.verdict)
                    )
                )
            else:
                sentences.append(
                    say(
                        "abstract_many",
                        measure=measured,
                        n=len(rows),
                        low=say.signed(rows["difference_pp"].min()),
                        high=say.signed(rows["difference_pp"].max()),
                        **{name: found.count(name) for name in ("better", "worse", "same")},
                    )
                )
        return joined(*sentences, say("abstract_tested"), say("abstract_defects") if self.stamp() else [])

    def with_percent(self, row: Any) -> str:
        return self.accuracy(row).replace(" (", "% (", 1)

    # -- methodology -----------------------------------------------------------------------------------------------

    def methodology(self) -> list[dict]:
        return [
            *self.part("pipeline", self.pipeline()),
            *self.part("data", self.data_part()),
            *self.part("models", self.models_part()),
            *self.part("adapters", self.adapters_part()),
            *self.part("metric", self.metric()),
            *self.part("statistics", self.statistics()),
            *self.part("prompts", self.prompts()),
        ]

    def pipeline(self) -> list[dict]:
        def step(name: str) -> dict:
            return {"title": self.say(f"step_{name}"), "detail": self.say(f"step_{name}_detail")}

        number = self.number("figure")
        stages = [["sources"], ["splits"], ["prompts"], ["train", "base"], ["answers"], ["score"], ["statistics"]]
        return [
            *self.paragraph(self.say("pipeline_text", figure=number)),
            {
                "kind": "pipeline",
                "label": self.say.plain("figure", n=number),
                "caption": self.say("pipeline_caption"),
                "stages": [[step(name) for name in stage] for stage in stages],
            },
        ]

    def data_part(self) -> list[dict]:
        facts, say = self.facts, self.say
        number = self.number("table")
        archive = facts.spider["archive_sha256"]
        chosen_on_dev = facts.splits["settings"]["validation"]["by"] == "dev"
        settings = facts.suite["settings"]
        splits = [
            (
                None,
                [
                    code(name),
                    say.whole(split["rows"]),
                    str(len(split["by_database"])),
                    " / ".join(str(split["by_hardness"][level]) for level in HARDNESS),
                    code(split["sha256"][:DIGITS]),
                ],
            )
            for name, split in facts.splits["splits"].items()
        ]
        columns = {"h_split": "left", "h_rows": "right", "h_databases": "right"}
        columns |= {"h_hardness": "right", "h_sha256": "left"}
        shots = facts.splits["shots"]
        return [
            *self.paragraph(
                say(
                    "spider_source_dev" if chosen_on_dev else "spider_source",
                    source=facts.spider["source"],
                    archive=say("archive", sha256=archive[:DIGITS]) if archive else "",
                    table=number,
                    shots=say.listed([code(shot) for shot in shots], most=8) if shots else say("none"),
                ),
                say("other_prompts" if BASE in facts.own_prompts else "same_prompts"),
            ),
            *self.paragraph(
                say(
                    "mmlu_source",
                    source=facts.mmlu["source"],
                    n=say.whole(facts.suite["rows"]),
                    categories=", ".join(f"{count} {name}" for name, count in facts.suite["by_category"].items()),
                    seed=settings["seed"],
                    shots=settings["shots"],
                    shots_from=say.plain(settings["shots_from"]),
                )
            ),
            *self.replayed(),
            self.table(
                say("splits_caption"),
                columns,
                splits,
                say(
                    "splits_note",
                    n=say.whole(self.n[SPIDER]),
                    databases=say.count("n_database", self.databases),
                    digits=DIGITS,
                ),
                wide=False,
                number=number,
            ),
        ]

    def replayed(self) -> list[dict]:
        """Return which rows were replayed, nothing where none were."""
        facts, say = self.facts, self.say
        adapters = [run for run, trained in facts.train.items() if "replay" in trained]
        if not adapters:
            return []
        return self.paragraph(
            say(
                "replay_source",
                adapters=say.count("n_adapter", len(adapters)),
                source=facts.replay_source["source"],
                n=say.whole(facts.replay["rows"]),
                seed=facts.replay["settings"]["seed"],
                dropped=say.whole(len(facts.replay["of_mmlu_dropped"])),
                repeated=say.whole(facts.replay["repeated_dropped"]),
                known=say.whole(facts.replay["checked_against"]),
            )
        )

    def models_part(self) -> list[dict]:
        say = self.say
        rows = []
        for model in self.facts.models:
            runs = [facts for (name, _, _), facts in self.facts.answers.items() if name == model["name"]]
            rows.append(
                (
                    None,
                    [
                        code(model["name"]),
                        code(model["source"]),
                        code(model["commit"][:DIGITS]) if model["commit"] else say("local_folder"),
                        code(model["sha256"][:DIGITS]),
                        ", ".join(sorted({facts["settings"]["precision"] for facts in runs})),
                        ", ".join(map(str, sorted({facts["batch_size_used"] for facts in runs}))),
                        "; ".join(sorted({facts["device"] for facts in runs})),
                    ],
                )
            )
        columns = {"h_model": "left", "h_source": "left", "h_commit": "left", "h_sha256": "left"}
        columns |= {"h_precision": "left", "h_batch": "right", "h_device": "left"}
        table = self.table(say("models_caption"), columns, rows)
        return [*self.paragraph(say("models_text", table=table["label"])), table]

    def adapters_part(self) -> list[dict]:
        say, train = self.say, self.facts.train
        if not train:
            return self.paragraph(say("no_adapters"))
        settings = {run: flat(facts["settings"]) for run, facts in train.items()}
        names = list(dict.fromkeys(name for values in settings.values() for name in values))
        values = {
            name: list(dict.fromkeys(chosen[name] for chosen in settings.values() if name in chosen)) for name in names
        }
        if any("replay.fraction" not in chosen for chosen in settings.values()) and "replay.fraction" in values:
            values["replay.fraction"].insert(0, "0.0")
        hyper, trained = self.number("table"), self.number("table")
        columns = {"h_adapter": "left", "h_rows": "right", "h_steps": "right", "h_trainable": "right"}
        columns |= {"h_loss": "right"}
        rows = [
            (
                self.rank.get(run),
                [
                    self.name(run),
                    say.whole(facts["rows"]),
                    say.whole(facts["steps"]),
                    f"{say.whole(facts['trainable_parameters'])} / {say.whole(facts['all_parameters'])}",
                    say.number(facts["history"][-1]["loss"] if facts["history"] else float("nan"), 3),
                ],
            )
            for run, facts in train.items()
        ]
        audits = [
            say(
                "audit_pass" if facts["pass"] else "audit_fail",
                model=code(model),
                rows=say.whole(facts["rows"]),
                checked=say.whole(facts["checked"]),
                truncated=say.whole(facts["truncated"]),
                shots=facts["few_shot_rows_in_train"],
                dev=facts["dev_rows_in_train"],
            )
            for model, facts in self.facts.audits.items()
        ]
        return [
            *self.paragraph(say("hyper_text", table=hyper, trained=trained)),
            self.table(
                say("hyper_caption"),
                {"h_parameter": "left", "h_value": "left"},
                [(None, [code(setting_name(name)), code("; ".join(values[name]))]) for name in names],
                wide=False,
                number=hyper,
            ),
            self.table(
                say("trained_caption"),
                columns,
                rows,
                say("trained_note"),
                file="runs/<model>/<variant>/train.json",
                number=trained,
            ),
            *self.paragraph(say("audit_lead"), *audits),
        ]

    def metric(self) -> list[dict]:
        semantics = self.facts.semantics
        meaning = self.say.plain(f"{semantics}_means")
        return [
            *self.paragraph(self.say("metric_text", semantics=self.semantics(), meaning=meaning)),
            *self.paragraph(self.say("mmlu_text")),
        ]

    def statistics(self) -> list[dict]:
        if not self.adapters:
            return []
        units = []
        for measure, cluster in ((SPIDER, "database"), (MMLU, "subject")):
            row = next(self.headline[self.headline["measure"] == measure].itertuples())
            if row.unit == cluster:
                units.append(self.say(f"unit_{cluster}", n=int(row.clusters)))
            else:
                units.append(self.say(f"unit_question_{'spider' if measure == SPIDER else 'mmlu'}"))
        return self.paragraph(
            self.say(
                "statistics_text",
                level=self.level,
                alpha=self.alpha,
                units=joined(*units),
                headline=len(self.headline),
                parts=len(self.parts),
            )
        )

    def prompts(self) -> list[dict]:
        blocks = []
        for key, prompts, where in (
            ("prompt_spider", self.facts.dev_prompts, "dev"),
            ("prompt_mmlu", self.facts.mmlu_prompts, "mmlu"),
        ):
            for model, facts in list(prompts.items())[:1]:
                if facts["first_prompt"]:
                    blocks += [
                        {"kind": "label", "body": self.say(key, model=code(model))},
                        {
                            "kind": "code",
                            "body": facts["first_prompt"],
                            "language": "text",
                            "most": "prompt",
                            "where": f"runs/{model}/prompts/{where}.jsonl",
                        },
                    ]
        return blocks

    # -- results ---------------------------------------------------------------------------------------------------

    def results(self) -> list[dict]:
        return [
            *self.part("change", self.change()),
            *self.part(SPIDER, self.accuracy_part()),
            *self.part(MMLU, self.mmlu_part()),
            *self.part("errors", self.errors_part()),
            *self.part("harness", self.harness_part()),
            *self.part("seeds", self.seeds_part()),
            *self.part("points", self.points_part()),
            *self.part("shots", self.shots_part()),
            *self.part("recommendation", self.recommendation_part()),
            *self.part("cost", self.cost_part()),
        ]

    def change(self) -> list[dict]:
        say = self.say
        if not self.adapters:
            return [*self.paragraph(say("no_adapters")), *self.figures("tradeoff")]
        columns = {"h_adapter": "left", "h_measure": "left", "h_base_tuned": "right", "h_difference": "right"}
        columns |= {"h_change": "right", "h_flips": "right", "h_p": "right", "h_detectable": "right"}
        columns |= {"h_verdict": "left"}

        def rows(frame: pd.DataFrame, measure: Callable[[Any], str]) -> Iterable[tuple[int, list]]:
            for row in frame.itertuples():
                run = (row.model, row.variant)
                yield (
                    self.rank[run],
                    [
                        self.name(run),
                        measure(row),
                        f"{say.number(row.base_accuracy_pct)} → {say.number(row.tuned_accuracy_pct)}",
                        self.difference(row),
                        say.signed(row.percent_change),
                        f"{int(row.gained)} / {int(row.lost)}",
                        say.p(row.p_holm),
                        say.number(row.minimum_detectable_pp),
                        self.judged(row.verdict),
                    ],
                )

        exchange = self.tables["exchange"]
        table = self.table(
            say("change_caption"),
            columns,
            rows(self.headline, lambda row: say.plain(f"of_{row.measure}")),
            say("change_note", **self.data()),
            file="tables/regression.csv",
        )
        blocks = [table, *self.figures("tradeoff", "differences")]
        if self.parts["category"].nunique() > 1:
            note = say("categories_note", table=table["label"])
            measured = rows(self.parts, lambda row: row.category)
            blocks.append(
                self.table(say("change_categories_caption"), columns, measured, note, file="tables/regression.csv")
            )
        if len(exchange):
            blocks.append(self.exchange_table(exchange))
        figures = [block for block in blocks if block["kind"] == "figure"]
        pairs = self.pairs()
        return [
            *self.paragraph(say("change_text", table=table["label"], figures=self.seen(figures))),
            {"kind": "list", "items": [self.finding(*pairs[run]) for run in self.rank], "most": True},
            *blocks,
        ]

    def pairs(self) -> dict[Run, tuple[Any, Any]]:
        """Return the rows on execution accuracy and on the whole of MMLU of each adapter."""
        found: dict[Run, dict[str, Any]] = {}
        for row in self.headline.itertuples():
            found.setdefault((row.model, row.variant), {})[row.measure] = row
        return {run: (rows[SPIDER], rows[MMLU]) for run, rows in found.items()}

    def finding(self, gain: Any, loss: Any) -> Spans:
        say = self.say
        return say(
            "finding",
            name=self.name((gain.model, gain.variant)),
            base_ex=say.number(gain.base_accuracy_pct),
            ex=say.number(gain.tuned_accuracy_pct),
            gain=self.changed(gain),
            gain_verdict=self.judged(gain.verdict),
            base_mmlu=say.number(loss.base_accuracy_pct),
            mmlu=say.number(loss.tuned_accuracy_pct),
            loss=self.changed(loss),
            loss_verdict=self.judged(loss.verdict),
        )

    def exchange_table(self, exchange: pd.DataFrame) -> dict:
        say = self.say
        columns = {"h_adapter": "left", "h_gain": "right", "h_lost": "right", "h_rate": "right"}
        rows = [
            (
                self.rank[row.model, row.variant],
                [
                    self.name((row.model, row.variant)),
                    say.interval(row.gain_pp, row.gain_ci_low_pp, row.gain_ci_high_pp, sign=True),
                    say.interval(row.loss_pp, row.loss_ci_low_pp, row.loss_ci_high_pp, sign=True),
                    say.interval(row.exchange_rate, row.ci_low, row.ci_high, digits=2),
                ],
            )
            for row in exchange.itertuples()
        ]
        self.exchange_number = self.number("table")
        note = say("exchange_note", **self.data())
        return self.table(
            say("exchange_caption"), columns, rows, note, file="tables/exchange.csv", number=self.exchange_number
        )

    def accuracy_part(self) -> list[dict]:
        say = self.say
        tables = [self.accuracy_table(), self.hardness_table()]
        figures = self.figures("hardness", "databases")
        best = max(self.whole, key=lambda run: self.whole[run].correct)
        named = ", ".join(table["label"] for table in tables) + self.seen(figures)
        if len(self.runs) == 1:
            lead = say("accuracy_text_alone", tables=named)
        elif self.whole[best].correct:
            lead = say(
                "accuracy_text", tables=named, name=self.name(best), accuracy=self.with_percent(self.whole[best])
            )
        else:
            lead = say("accuracy_text_zero", tables=named)
        return [*self.paragraph(lead), *tables, *figures]

    def accuracy_table(self) -> dict:
        say = self.say
        columns = {"h_run": "left", "h_right": "right", "h_accuracy": "right"} | dict.fromkeys(
            (f"h_{name}" for name in SEMANTICS), "right"
        )
        rows = [
            (
                self.rank.get(run),
                [
                    self.name(run),
                    f"{int(row.correct)} / {int(row.n)}",
                    self.accuracy(row),
                    *(say.number(getattr(row, f"{name}_pct")) for name in SEMANTICS),
                ],
            )
            for run, row in self.whole.items()
        ]
        caption = say("accuracy_caption", semantics=self.semantics())
        return self.table(caption, columns, rows, self.note(SPIDER), file="tables/execution_accuracy.csv")

    def note(self, measure: str) -> Spans:
        key = "spider_note" if measure == SPIDER else "mmlu_note"
        return self.say(key, n=self.say.whole(self.n[measure]), sha256=self.hash[measure][:DIGITS], level=self.level)

    def hardness_table(self) -> dict:
        frame = self.tables[SPIDER]
        cells = {(row.model, row.variant, row.questions): row for row in frame.itertuples()}
        levels = [level for level in HARDNESS if cells[*self.runs[0], level].n]
        table = self.table(
            self.say("hardness_caption", semantics=self.semantics()),
            {"h_run": "left"},
            [
                (self.rank.get(run), [self.name(run), *(self.accuracy(cells[*run, level]) for level in levels)])
                for run in self.runs
            ],
            self.note(SPIDER),
            file="tables/execution_accuracy.csv",
        )
        table["columns"] += [
            {"title": f"{level} (n = {int(cells[*self.runs[0], level].n)})", "align": "right"} for level in levels
        ]
        return table

    def mmlu_part(self) -> list[dict]:
        say, rows, table = self.say, self.knowledge.values(), self.mmlu_table()
        gap = max(abs(row.accuracy_pct - row.accuracy_generated_pct) for row in rows)
        invalid = max(row.invalid_pct for row in rows)
        lead = say("mmlu_result", table=table["label"], gap=say.number(gap), invalid=say.number(invalid))
        return [*self.paragraph(lead), table]

    def mmlu_table(self) -> dict:
        say, frame = self.say, self.tables[MMLU]
        cells = {(row.model, row.variant, row.category): row for row in frame.itertuples()}
        categories = [name for name in dict.fromkeys(frame["category"]) if name != ALL]
        categories = categories if 1 < len(categories) <= MOST_CATEGORIES else []
        # Where all subjects have as many questions the two averages are one.
        uneven = any(abs(row.macro_accuracy_pct - row.accuracy_pct) > 1e-6 for row in self.knowledge.values())
        columns = {"h_run": "left", "h_all": "right"} | ({"h_macro": "right"} if uneven else {})
        rows = []
        for run in self.runs:
            whole = self.knowledge[run]
            rows.append(
                (
                    self.rank.get(run),
                    [
                        self.name(run),
                        self.accuracy(whole),
                        *([say.number(whole.macro_accuracy_pct)] if uneven else []),
                        *(self.accuracy(cells[*run, name]) for name in categories),
                        say.number(whole.accuracy_generated_pct),
                        say.number(whole.invalid_pct),
                    ],
                )
            )
        note = [*self.note(MMLU), *say("macro_note")] if uneven else self.note(MMLU)
        table = self.table(say("mmlu_caption"), columns, rows, note, file="tables/mmlu.csv")
        table["columns"] += [
            *({"title": f"{name} (n = {int(cells[*self.runs[0], name].n)})", "align": "right"} for name in categories),
            *({"title": say.plain(key), "align": "right"} for key in ("h_generated", "h_invalid")),
        ]
        return table

    def errors_part(self) -> list[dict]:
        say, frame, table = self.say, self.tables["errors"], self.errors_table()
        commonest = []
        for run in self.runs:
            rows = frame[(frame["model"] == run[0]) & (frame["variant"] == run[1]) & (frame["error_class"] != "ok")]
            if rows["n"].max() > 0:
                row = rows.loc[rows["n"].idxmax()]
                commonest.append(say("error_of", name=self.name(run), error=code(row["error_class"]), n=int(row["n"])))
        lead = (
            say("errors_text", table=table["label"], classes=say.listed(commonest))
            if commonest
            else say("errors_text_none", table=table["label"])
        )
        return [*self.paragraph(lead), table, *(self.figures("error_flow") if self.adapters else [])]

    def errors_table(self) -> dict:
        frame = self.tables["errors"]
        occurring = list(dict.fromkeys(frame.loc[frame["n"] > 0, "error_class"]))
        counts = {(row.model, row.variant, row.error_class): int(row.n) for row in frame.itertuples()}
        table = self.table(
            self.say("errors_caption"),
            {"h_run": "left"},
            [
                (self.rank.get(run), [self.name(run), *(str(counts.get((*run, name), 0)) for name in occurring)])
                for run in self.runs
            ],
            self.say("errors_note", n=self.say.whole(self.n[SPIDER]), sha256=self.hash[SPIDER][:DIGITS]),
            file="tables/errors.csv",
        )
        # Spaces, so that a head may break.
        table["columns"] += [{"title": name.replace("_", " "), "align": "right"} for name in occurring]
        return table

    def harness_part(self) -> list[dict]:
        """Return what each verdict was found for on the tasks of lm-evaluation-harness, and the rows of the least p."""
        say, frame = self.say, self.facts.harness
        if frame is None:
            return []
        key = ["model", "task", "metric", "filter"]
        base = frame[frame["variant"] == BASE].set_index(key)["score"]
        frame = frame.sort_values("p_holm", kind="stable")
        compared = list(frame[frame["p"].notna()].itertuples())
        version = frame["lm_eval"].iloc[0]

        def measure(row: Any) -> Spans:
            chosen = "" if row.filter == "none" else f" ({row.filter})"
            return [*code(row.task), *text(f" {row.metric}{chosen}")]

        if not compared:
            values = [
                say("harness_value", measure=measure(r), value=say.number(r.score, 3), n=say.whole(r.n))
                for r in frame[frame["variant"] == BASE].itertuples()
            ]
            return self.paragraph(say("harness_base", version=version, values=say.listed(values)))
        found: dict[str, list] = {}
        for row in compared:
            found.setdefault(self.verdict(row.verdict), []).append(row)
        sentences = []
        for verdict in ("worse", "better"):
            names = [
                say(
                    "harness_change",
                    name=self.name((r.model, r.variant)),
                    measure=measure(r),
                    difference=say.change(100 * r.difference, 100 * r.ci_low, 100 * r.ci_high),
                )
                for r in found.get(verdict, [])
            ]
            if names:
                sentences.append(say(f"harness_{verdict}", k=len(names), n=len(compared), names=say.listed(names)))
        if same := found.get("same"):
            ends = {"low": min(r.ci_low for r in same), "high": max(r.ci_high for r in same)}
            ends = {end: say.signed(100 * value) for end, value in ends.items()}
            sentences.append(say("harness_same", k=len(same), n=len(compared), **ends))
        columns = {"h_adapter": "left", "h_measure": "left", "h_n": "right", "h_base_tuned": "right"}
        columns |= {"h_difference": "right", "h_p": "right", "h_verdict": "left"}
        rows = [
            (
                None,
                [
                    self.name((row.model, row.variant)),
                    measure(row),
                    say.whole(row.n),
                    " → ".join(say.number(100 * x) for x in (base[tuple(getattr(row, k) for k in key)], row.score)),
                    say.interval(*(100 * x for x in (row.difference, row.ci_low, row.ci_high)), sign=True),
                    say.p(row.p_holm),
                    self.judged(row.verdict),
                ],
            )
            for row in compared[:MOST_TASKS]
        ]
        note = say("harness_note", n=len(compared), level=self.level)
        if len(compared) > MOST_TASKS:
            rest = say("more_contrasts", shown=MOST_TASKS, all=len(compared), file="tables/harness.csv")
            note = joined(note, rest)
        table = self.table(say("harness_caption"), columns, rows, note, file="tables/harness.csv")
        lead = say("harness_text", table=table["label"], version=version)
        return [*self.paragraph(lead, *sentences), table]

    def seeds_part(self) -> list[dict]:
        say, frame = self.say, self.tables["seeds"]
        if frame.empty:
            return []
        columns = {"h_setting": "left", "h_measure": "left", "h_seeds": "right", "h_mean": "right", "h_sd": "right"}
        columns |= {"h_mean_difference": "right", "h_share": "right"}
        rows = [
            (
                rank,
                [
                    code(f"{row.model} {row.setting}" if self.several else row.setting),
                    say.plain(f"of_{row.measure}"),
                    str(int(row.seeds)),
                    say.number(row.mean_accuracy_pct),
                    say.number(row.sd_pp),
                    say.interval(row.mean_difference_pp, row.ci_low_pp, row.ci_high_pp, sign=True),
                    say.number(row.seed_share_pct, 0),
                ],
            )
            for rank, row in enumerate(frame.itertuples())
        ]
        table = self.table(
            say("seeds_caption"), columns, rows, say("seeds_note"), file="tables/seeds.csv", more="more_first"
        )
        figures = self.figures("seeds")
        return [*self.paragraph(say("seeds_text_result", table=table["label"] + self.seen(figures))), table, *figures]

    def points_part(self) -> list[dict]:
        say, points = self.say, self.facts.points
        frame = points[(points["category"] == ALL) & ~is_prompted(points)]
        if frame.empty:
            return []
        columns = {"h_run": "left", "h_measure": "left", "h_base_tuned": "right", "h_difference": "right"}
        columns |= {"h_p": "right", "h_verdict": "left"}
        rows = [
            (
                rank,
                [
                    self.name((row.model, row.variant)),
                    say.plain(f"of_{row.measure}"),
                    f"{say.number(row.base_accuracy_pct)} → {say.number(row.tuned_accuracy_pct)}",
                    self.difference(row),
                    say.p(row.p_holm),
                    self.judged(row.verdict),
                ],
            )
            for rank, row in enumerate(frame.itertuples())
        ]
        note = say("points_note", n=len(frame), level=self.level, **self.data())
        table = self.table(say("points_caption"), columns, rows, note, file="tables/regression.csv", more="more_first")
        figures = self.figures("strength", "trajectory")
        return [*self.paragraph(say("points_text", table=table["label"] + self.seen(figures))), table, *figures]

    def recommendation_part(self) -> list[dict]:
        """Return, of each model, what is recommended, by which half, and what the other half says of it."""
        say, frame = self.say, self.facts.recommendation
        if frame is None:
            return []
        first = frame.iloc[0]
        halves = {
            (half, measure): rows.iloc[0] for (half, measure), rows in frame.groupby(["half", "measure"], sort=False)
        }
        values = {f"{half}_{measure}": say.whole(row.n) for (half, measure), row in halves.items()}
        values["admitted"] = (
            say.plain("recommend_no_loss")
            if pd.isna(first.max_loss_pp)
            else say.plain("recommend_cap", cap=say.number(first.max_loss_pp), level=self.level)
        )
        blocks = self.paragraph(say("recommend_rule", **values))
        for model, rows in frame.groupby("model", sort=False):
            chosen = rows[rows["choice"] == RECOMMENDED].set_index(["half", "measure"])
            candidates = rows[(rows["half"] == "validation") & (rows["measure"] == SPIDER) & (rows["variant"] != BASE)]
            head = {"n": len(candidates), "model": code(model)}
            run = (model, chosen["variant"].iloc[0])
            if run[1] == BASE:
                blocks += self.paragraph(say("recommend_base", **head))
                continue
            gain, loss = (chosen.loc["report", measure] for measure in (SPIDER, MMLU))
            seen = chosen.loc["validation", MMLU].minimum_detectable_pp
            blocks += self.paragraph(
                say(
                    "recommended",
                    **head,
                    passed=int(candidates["choice"].isin([RECOMMENDED, GAINS_LESS]).sum()),
                    name=self.name(run),
                    gain=self.changed(gain),
                    gained=self.judged(gain.verdict),
                    loss=self.changed(loss),
                    lost=self.judged(loss.verdict),
                ),
                say("recommend_unseen", pp=say.number(seen))
                if pd.isna(first.max_loss_pp) and not pd.isna(seen)
                else [],
            )
        few = (frame["half"] == "report") & (frame["unit"] == "question")
        return [*blocks, *self.paragraph(say("recommend_few") if few.any() else [], say("recommend_where"))]

    def shots_part(self) -> list[dict]:
        say, points, own = self.say, self.facts.points, self.facts.shots
        frame = points[is_prompted(points)]
        if frame.empty:
            return []
        columns = {"h_run": "left", "h_base_prompted": "right", "h_difference": "right", "h_p": "right"}
        columns |= {"h_verdict": "left"}
        rows = [
            (
                rank,
                [
                    self.name((row.model, row.variant)),
                    f"{say.number(row.base_accuracy_pct)} → {say.number(row.tuned_accuracy_pct)}",
                    self.difference(row),
                    say.p(row.p_holm),
                    self.judged(row.verdict),
                ],
            )
            for rank, row in enumerate(frame.itertuples())
        ]
        note = say("shots_note", n=len(frame), level=self.level, **self.data())
        table = self.table(say("shots_caption"), columns, rows, note, file="tables/regression.csv", more="more_first")
        figures = self.figures("shots")
        sentences = [say("shots_text", table=table["label"] + self.seen(figures), own=say.count("n_example", own))]
        for model in list(dict.fromkeys(frame["model"]))[:3]:
            base = self.whole[model, BASE]
            tried = {own: base.accuracy_pct}
            tried |= {int(r.shots): r.tuned_accuracy_pct for r in frame[frame["model"] == model].itertuples()}
            # Of equals, the fewest.
            best = min(tried, key=lambda shots: (-tried[shots], shots))
            values = {"model": code(model), "shots": say.count("n_example", best), "accuracy": say.number(tried[best])}
            sentences.append(say("shots_best", **values))
            adapters = [run for run in self.adapters if run[0] == model]
            if adapters:
                first = min(adapters, key=self.rank.__getitem__)
                reached = self.whole[first].accuracy_pct
                sentences.append(
                    say(
                        "shots_adapter",
                        adapter=self.name(first),
                        accuracy=say.number(reached),
                        difference=say.signed(reached - tried[best]),
                    )
                )
        return [*self.paragraph(*sentences), table, *figures]

    def cost_part(self) -> list[dict]:
        say, frame = self.say, self.tables["cost"]
        if frame.empty:
            return []
        columns = {"h_run": "left", "h_task": "left", "h_seconds": "right", "h_gpu_hours": "right"}
        columns |= {"h_rate_rows": "right", "h_rate_tokens": "right", "h_memory": "right"}
        rows = [
            (
                self.rank.get((row.model, row.variant)),
                [
                    self.name((row.model, row.variant)),
                    say.plain(row.task),
                    say.number(row.seconds, 0),
                    say.number(row.gpu_hours, 2),
                    say.number(row.rows_per_second),
                    say.number(row.tokens_per_second, 0),
                    say.number(row.peak_memory_mib / 1024),
                ],
            )
            for row in frame.itertuples()
        ]
        note = say("cost_note", devices="; ".join(sorted(set(frame["device"]))))
        table = self.table(say("cost_caption"), columns, rows, note, file="tables/cost.csv")
        figures = self.figures("loss") if self.adapters else []
        key = "cost_text_loss" if figures else "cost_text"
        lead = say(key, table=table["label"], figure=figures[0]["label"] if figures else "")
        return [*self.paragraph(lead), table, *figures]

    # -- error analysis --------------------------------------------------------------------------------------------

    def failures(self) -> list[dict]:
        say = self.say
        shown = self.adapters or [run for run in self.runs if run[1] == BASE]
        blocks = self.paragraph(say("failures_rule" if self.adapters else "failures_rule_base"), say("escaped"))
        if self.adapters:
            blocks.append({"kind": "shown", "all": len(self.adapters)})
        for place, run in enumerate(sorted(shown, key=lambda run: self.rank.get(run, 0))):
            blocks += [block | {"rank": place} for block in self.failures_of(run)]
        return blocks

    def failures_of(self, run: Run) -> list[dict]:
        """Return what is said of one run's wrong answers, and those chosen."""
        say, facts = self.say, self.facts
        frame = facts.records[run]
        base = facts.records[run[0], BASE] if run[1] != BASE else None
        chosen = choose_failures(frame, base, facts.semantics)
        wrong = int((frame[facts.semantics] == 0).sum())
        values = {"run": self.name(run), "n": say.whole(len(frame)), "semantics": self.semantics()}
        if not wrong:
            return self.paragraph(say("no_failures", **values))
        if base is None:
            lead = say("failures_of_base", wrong=say.whole(wrong), **values)
        else:
            lost = int(((frame[facts.semantics] == 0) & (aligned(base, frame)[facts.semantics] == 1)).sum())
            lead = say("failures_of", wrong=say.whole(wrong), forgotten=say.whole(lost), **values)
        blocks: list[dict] = [{"kind": "label", "body": lead, "apart": True}]
        for rule, row in chosen:
            if rule == "commonest":
                reason = say.plain("by_commonest", n=int((wrong_ones(frame, facts.semantics) == row.error_class).sum()))
            else:
                reason = say.plain(f"by_{rule}")
            head = say("failure_head", id=row.id, database=row.db_id, hardness=row.hardness, rule=reason)
            message = say("failure_message", message=shortened(row.message)) if row.message else []
            why = say("failure_why", error=row.error_class, means=say(f"e_{row.error_class}"), message=message)
            blocks += [
                {"kind": "label", "body": head, "apart": True, "question": row.id},
                {"kind": "detail", "body": say("failure_question", question=shortened(row.question))},
                {"kind": "label", "body": say("failure_gold")},
                {"kind": "code", "body": row.gold, "language": "sql", "most": "answer"},
                {"kind": "label", "body": joined(say("failure_answer"), [] if row.answer else say("failure_empty"))},
                *([{"kind": "code", "body": row.answer, "language": "text", "most": "answer"}] if row.answer else []),
                {"kind": "detail", "body": why},
            ]
        return blocks

    # -- discussion ------------------------------------------------------------------------------------------------

    def discussion(self) -> list[dict]:
        if not self.adapters:
            return self.paragraph(self.say("no_adapters"))
        return [
            *self.part("worth", self.worth()),
            *self.part("factors", self.factors()),
            *self.part("indistinct", self.indistinct()),
        ]

    def worth(self) -> list[dict]:
        """Return one sentence for each pair of verdicts that occurs, with the adapters of that pair."""
        say = self.say
        pairs = self.pairs()
        gains = {run: gain for run, (gain, _) in pairs.items()}
        losses = {run: loss for run, (_, loss) in pairs.items()}
        groups: dict[str, list[Run]] = {}
        for run in self.adapters:
            pair = f"{self.verdict(gains[run].verdict)}_{self.verdict(losses[run].verdict)}"
            groups.setdefault(pair, []).append(run)
        items = []
        for pair, runs in groups.items():
            values = {
                "gain": self.range([gains[run] for run in runs]),
                "loss": self.range([losses[run] for run in runs]),
                "low": say.signed(min(losses[run].ci_low_pp for run in runs)),
                "rate": self.rate(runs) if pair == "better_worse" else "",
            }
            names = say.listed([self.name(run) for run in runs])
            items.append(say("group", names=names, sentence=joined(say(pair, **values))))
        return [{"kind": "list", "items": items}, *self.paragraph(self.by_semantics())]

    def range(self, rows: Sequence[Any]) -> str:
        """Return one difference with its interval, or the range of several."""
        if len(rows) == 1:
            return self.changed(rows[0])
        low, high = (self.say.signed(pick(row.difference_pp for row in rows)) for pick in (min, max))
        return self.say.plain("pp", value=low) if low == high else self.say.plain("short_range", low=low, high=high)

    def rate(self, runs: Sequence[Run]) -> Spans:
        """Return the sentence on the exchange rates of adapters that gained SQL and lost knowledge."""
        say, frame = self.say, self.tables["exchange"]
        found = [
            row for row in frame.itertuples() if (row.model, row.variant) in runs and not pd.isna(row.exchange_rate)
        ]
        if not found:
            return []
        if len(found) == 1 and not pd.isna(found[0].ci_low):
            row = found[0]
            values = {"rate": row.exchange_rate, "low": row.ci_low, "high": row.ci_high}
            return say("rate_one", **{key: say.number(value, 2) for key, value in values.items()})
        rates = [row.exchange_rate for row in found]
        return say(
            "rate_many", low=say.number(min(rates), 2), high=say.number(max(rates), 2), table=self.exchange_number
        )

    def by_semantics(self) -> Spans:
        """Return whether a difference in execution accuracy has another sign under another semantics."""
        changing = []
        for run in self.adapters:
            base, tuned = self.whole[run[0], BASE], self.whole[run]
            signs = [getattr(tuned, f"{s}_correct") - getattr(base, f"{s}_correct") for s in SEMANTICS]
            if min(signs) < 0 < max(signs):
                changing.append(self.name(run))
        return self.say("semantics_differ", names=self.say.listed(changing)) if changing else self.say("semantics_same")

    def factors(self) -> list[dict]:
        """Return which contrasts between adapters are distinguishable, and the table of all."""
        say = self.say
        frame = self.tables["factors"]
        seeds = self.tables["seeds"]
        seed_text = []
        if len(seeds):
            values = {"low": say.number(seeds["sd_pp"].min()), "high": say.number(seeds["sd_pp"].max())}
            seed_text = self.paragraph(say("factors_seeds", **values))
        if frame.empty:
            return [*self.paragraph(say("factors_none")), *seed_text]
        # The least p first; among equals, as in the table.
        frame = frame.sort_values("p_holm", kind="stable")
        found = [row for row in frame.itertuples() if self.verdict(row.verdict) != "same"]
        rest = [row for row in frame.itertuples() if self.verdict(row.verdict) == "same"]

        def name(row: Any) -> Spans:
            return say(
                "factor_name",
                axis=code(f"{row.model} {setting_name(row.axis)}" if self.several else setting_name(row.axis)),
                low=row.low,
                high=row.high,
                measure=say.plain(f"in_{row.measure}"),
            )

        blocks = []
        if found:
            key = "factors_one_found" if len(found) == 1 else "factors_some_found"
            blocks += self.paragraph(say(key, n=len(frame), found=len(found)))
            blocks.append({"kind": "list", "items": [self.factor_sentence(row) for row in found], "most": True})
            if rest:
                key = "factors_rest_one" if len(rest) == 1 else "factors_rest"
                blocks += self.paragraph(say(key, names=say.listed([name(row) for row in rest])))
        else:
            detectable = frame["minimum_detectable_pp"]
            low, high = say.number(detectable.min()), say.number(detectable.max())
            key = "factors_one_none" if len(frame) == 1 else "factors_none_found"
            blocks += self.paragraph(say(key, n=len(frame), low=low, high=high))
        columns = {"h_factor": "left", "h_values": "left", "h_measure": "left", "h_accuracies": "right"}
        columns |= {"h_difference": "right", "h_p": "right", "h_detectable": "right", "h_verdict": "left"}
        rows = [
            (
                rank,
                [
                    code(f"{row.model} {setting_name(row.axis)}" if self.several else setting_name(row.axis)),
                    f"{row.low} → {row.high}",
                    say.plain(f"of_{row.measure}"),
                    f"{say.number(row.low_accuracy_pct)} → {say.number(row.high_accuracy_pct)}",
                    self.difference(row),
                    say.p(row.p_holm),
                    say.number(row.minimum_detectable_pp),
                    self.judged(row.verdict),
                ],
            )
            for rank, row in enumerate(frame.itertuples())
        ]
        note = say("factors_note", **self.data())
        table = self.table(
            say("factors_caption"), columns, rows, note, file="tables/factors.csv", more="more_contrasts"
        )
        return [*blocks, table, *self.mitigation(), *seed_text]

    def mitigation(self) -> list[dict]:
        """Return whether what is meant to soften forgetting did, a sentence for each contrast in MMLU."""
        say, frame = self.say, self.tables["factors"]
        names = ("replay.fraction", "replay.kl", "training.weight_decay")
        items = [
            say(
                f"mitigation_{self.verdict(row.verdict)}",
                what=say.plain(f"mitigation_{row.axis}"),
                low=row.low,
                high=row.high,
                difference=self.changed(row),
                p=say.p_is(row.p_holm),
                detectable=say.number(row.minimum_detectable_pp),
                model=say("factor_of_model", model=code(row.model)) if self.several else "",
            )
            for row in frame[(frame["measure"] == MMLU) & frame["axis"].isin(names)].itertuples()
            if float(row.low) < float(row.high)
        ]
        return [{"kind": "list", "items": items, "most": True}] if items else []

    def factor_sentence(self, row: Any) -> Spans:
        say = self.say
        return say(
            "factor_found",
            axis=code(setting_name(row.axis)),
            low=row.low,
            high=row.high,
            measure=say.plain(f"in_{row.measure}"),
            verdict=self.judged(row.verdict),
            difference=self.changed(row),
            p=say.p_is(row.p_holm),
            model=say("factor_of_model", model=code(row.model)) if self.several else "",
        )

    def indistinct(self) -> list[dict]:
        say = self.say
        same = [row for row in self.headline.itertuples() if self.verdict(row.verdict) == "same"]
        sentences = []
        if same:
            detectable = [row.minimum_detectable_pp for row in same if not pd.isna(row.minimum_detectable_pp)]
            names = [
                [*self.name((row.model, row.variant)), *text(f": {say.plain(f'in_{row.measure}')}")] for row in same
            ]
            sentences.append(
                say(
                    "indistinct_one" if len(same) == 1 else "indistinct_some",
                    same=len(same),
                    n=len(self.headline),
                    names=say.listed(names),
                    spider=say.whole(self.n[SPIDER]),
                    mmlu=say.whole(self.n[MMLU]),
                    low=say.number(min(detectable, default=float("nan"))),
                    high=say.number(max(detectable, default=float("nan"))),
                )
            )
        else:
            sentences.append(say("indistinct_none", n=len(self.headline)))
        if self.parts["category"].nunique() > 1:
            missed = self.parts[[self.verdict(word) == "same" for word in self.parts["verdict"]]]
            sentences.append(
                say(
                    "indistinct_categories",
                    n=len(self.parts),
                    same=len(missed),
                    high=say.number(self.parts["minimum_detectable_pp"].max()),
                )
            )
        at_chance = self.headline[(self.headline["measure"] == MMLU) & self.headline["percent_change"].isna()]
        if len(at_chance):
            sentences.append(say("at_chance", names="MMLU"))
        return self.paragraph(*sentences)

    # -- limits and reproducibility --------------------------------------------------------------------------------

    def limits(self) -> list[Spans]:
        sampled = any(facts["settings"].get("do_sample") for facts in self.facts.answers.values())
        keys = ["limit_execution", "limit_observed", "limit_sampled" if sampled else "limit_prompt", "limit_mmlu"]
        keys += ["limit_clusters"]
        if self.adapters and self.tables["seeds"].empty:
            keys.append("limit_seed")
        return [self.say(key) for key in keys]

    def reproducibility(self) -> list[dict]:
        facts, say = self.facts, self.say
        reports = [*facts.train.values(), *facts.answers.values()]
        seeds = sorted({str(flat(report["settings"])[SEED]) for report in facts.train.values()}, key=str)
        sampled = sorted(
            {
                str(report["settings"]["seed"])
                for report in facts.answers.values()
                if report["settings"].get("do_sample")
            }
        )
        chosen = [f"face={facts.face}"] * (facts.face != "corrected") + [f"scale={facts.scale}"] * (
            facts.scale != "full"
        )
        options = f" --config {' '.join(chosen)}" if chosen else ""
        rows: list[tuple[int | None, list]] = []

        def add(rank: int | None, key: str, sha256: str | None, **values: str) -> None:
            if sha256:
                rows.append((rank, [say(key, **values), code(sha256[:DIGITS])]))

        add(None, "w_archive", facts.spider["archive_sha256"])
        add(None, "w_mmlu", facts.mmlu.get("archive_sha256"))
        for name, split in facts.splits["splits"].items():
            add(None, "w_split", split["sha256"], name=code(name))
        add(None, "w_suite", facts.suite["sha256"])
        for model in facts.models:
            add(None, "w_model", model["sha256"], name=code(model["name"]))
        prompts = {}
        for (model, variant, task), report in facts.answers.items():
            own = task == "predict_spider" and variant in facts.own_prompts
            key = "w_own_prompts" if own else "w_spider_prompts" if task == "predict_spider" else "w_mmlu_prompts"
            prompts[key, model, variant if own else ""] = report["prompts_sha256"]
        for (key, model, variant), sha256 in prompts.items():
            add(None, key, sha256, model=code(model), variant=code(variant))
        for run, report in facts.train.items():
            sha256 = report.get("adapter_sha256", {}).get("adapter_model.safetensors")
            add(self.rank.get(run), "w_adapter", sha256, name=self.name(run))
        libraries: dict[str, set[str]] = {}
        for report in reports:
            for library, version in report.get("versions", {}).items():
                libraries.setdefault(library, set()).add(version)
        several = any(len(found) > 1 for found in libraries.values()) or len({r["device"] for r in reports}) > 1
        return [
            *self.paragraph(say("reproduce_text")),
            {
                "kind": "code",
                "body": f"snakemake -n --configfile FILE{options}\nsnakemake --cores all --configfile FILE{options}",
                "language": "sh",
                "most": "answer",
            },
            *self.paragraph(
                say(
                    "seeds_text",
                    splits=facts.splits["settings"]["seed"],
                    mmlu=facts.suite["settings"]["seed"],
                    training=", ".join(seeds) or say.plain("none"),
                    answers=say.plain("seeds_answers", seed=", ".join(sampled)) if sampled else "",
                ),
                say("different_devices") if several else [],
            ),
            self.table(
                say("hashes_caption", digits=DIGITS),
                {"h_what": "left", "h_sha256": "left"},
                rows,
                wide=False,
                file="runs/<model>/<variant>/train.json",
            ),
            self.table(
                say("versions_caption"),
                {"h_library": "left", "h_version": "left"},
                [(None, [code(name), code(", ".join(sorted(found)))]) for name, found in sorted(libraries.items())],
                wide=False,
            ),
        ]


def choose_failures(frame: pd.DataFrame, base: pd.DataFrame | None, semantics: str) -> list[tuple[str, Any]]:
    """Return up to three wrong answers of one run as (rule, record), each question once.

    forgotten: the first that the base has right; commonest: the first of the commonest error class, the one met first
    among equals; near_miss: the first of the highest hardness among `NEAR_MISSES`. A rule that finds none gives none.

    Args:
        frame: the run's Spider records in the order of dev.
        base: those of its base model, None for the base itself.
    """
    wrong = frame[frame[semantics] == 0]
    chosen: list[tuple[str, Any]] = []

    def take(rule: str, part: pd.DataFrame) -> None:
        part = part[~part["id"].isin([row.id for _, row in chosen])]
        if len(part):
            chosen.append((rule, next(part.itertuples())))

    if base is not None:
        take("forgotten", wrong[(aligned(base, frame)[semantics] == 1).loc[wrong.index]])
    if len(wrong):
        counts = wrong["error_class"].value_counts(sort=False)
        take("commonest", wrong[wrong["error_class"] == counts.idxmax()])
    near = wrong[wrong["error_class"].isin(NEAR_MISSES)]
    for level in reversed(HARDNESS):
        if (near["hardness"] == level).any():
            before = len(chosen)
            take("near_miss", near[near["hardness"] == level])
            if len(chosen) > before:
                break
    return chosen


def wrong_ones(frame: pd.DataFrame, semantics: str) -> pd.Series:
    """Return the error classes of the wrong answers."""
    return frame.loc[frame[semantics] == 0, "error_class"]


def aligned(base: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """Return the base's records in the order and with the index of `frame`."""
    return base.set_index("id").loc[frame["id"]].set_axis(frame.index)


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested settings as one level, the keys joined by dots."""
    result = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            result |= flat(value, f"{prefix}{name}.")
        else:
            result[prefix + name] = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return result


def capital(words: str) -> str:
    """Return words with a capital letter in front."""
    return words[:1].upper() + words[1:]


def shortened(words: str, most: int = 300) -> str:
    """Return a text on one line, its end left out if it is long."""
    words = " ".join(words.split())
    return words if len(words) <= most else f"{words[:most]}…"
