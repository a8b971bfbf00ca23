"""One answer of a model against one gold query: the core under the metric and under `score_spider`. No DeepEval.

with Judge(timeout_s=5, jobs=4) as judge:
    verdict = judge.judge("concert_singer.sqlite", "SELECT count(*) FROM singer", "```sql\nSELECT 6\n```")
    verdicts = judge.judge_all([(database, gold, answer), …])
"""

import atexit
import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from queue import LifoQueue, SimpleQueue

from sqlglot import exp
from tqdm import tqdm

from custom_metrics.compare import SEMANTICS as SEMANTICS
from custom_metrics.engines import ENGINES, readable, shown
from custom_metrics.further import FURTHER, together
from custom_metrics.hardness import parse
from custom_metrics.process import Process
from custom_metrics.results import Results
from custom_metrics.sql_text import has_outer_order_by

# What became of the query of an answer, in the order of tables. All but `ok` are 0 under `bag` or `ordered`.
CLASSES = {
    "ok": "is right as `bag` and as `ordered`",
    "wrong_rows": "ran, and is none of the other classes of rows",
    "wrong_columns": "is right as `columns_any_order`, or has as many rows and another number of columns",
    "wrong_order_only": "is right as `bag`, and not as `ordered`",
    "extra_or_missing_columns": "is right as `columns_any_order` if columns are left out of it or of the gold's",
    "duplicate_only": "is right as `set`: the rows are there, not equally often",
    "syntax_error": "is not understood by the engine",
    "no_such_table": "names a table that does not exist",
    "no_such_column": "names a column that does not exist",
    "ambiguous_column": "names a column that two of its tables have",
    "other_sql_error": "fails otherwise, or ended the process that ran it",
    "timeout": "had no result in time",
    "too_large": "needs more memory, more rows or a longer text than a query may",
    "forbidden": "would do something other than read, or is several statements",
    "no_sql": "is not there: the answer is empty, or does not begin like a statement",
    "missing": "is not there: there is no answer at all (given by those who count, not by `Judge`)",
}
ERROR_CLASSES = tuple(CLASSES)
GOLD_FLAGS = ("gold_empty", "gold_duplicate_rows", "gold_double_quoted")

# Questions that a process gets at once, at most.
CHUNK = 64
# Seconds of a day, the most that a query may take: no clock of the system counts to any number.
DAY_S = 86_400


class GoldError(ValueError):
    """The gold query itself cannot be run: an error in the data, not in the answer. `error_class` is its class."""

    error_class = "other_sql_error"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one answer.

    Attributes:
        sql: the query taken out of the answer (`extract.extract_sql`).
        correct: for each of `SEMANTICS`, whether `sql` is right; by gold results, for each that has a meaning there
            (`results.WITH_ROWS`) and for `results.RULE`.
        correct_raw: the same for the answer as it is.
        error_class: of `sql`; one of `ERROR_CLASSES` but `missing`.
        message: the engine's message, or how the rows differ; "" if the class is ok.
        gold_rows: rows of the gold query.
        predicted_rows: rows of `sql`, None if it did not run.
        flags: which of `GOLD_FLAGS` hold for the gold query: it has no rows; it has the same row twice; it writes a
            string in double quotes, which only SQLite forgives.
        soft_f1: of the rows of `sql`, see `compare.soft_f1`; 0 if it did not run.
        previews: if the `Judge` was asked for them, the first rows of both results, as `gold` and `predicted` (None if
            `sql` did not run); see `preview.preview`.
        further: for each of `further.FURTHER` that the `Judge` was asked for, 0 or 1, or the reward of `r_ves`.
    """

    sql: str
    correct: dict[str, bool]
    correct_raw: dict[str, bool]
    error_class: str
    message: str
    gold_rows: int
    predicted_rows: int | None
    flags: tuple[str, ...]
    soft_f1: float
    previews: dict | None = None
    further: dict[str, float] = field(default_factory=dict)

    def cells(self, missing: bool = False) -> dict[str, str | int | None]:
        """Write the verdict as cells of a table, one for each criterion; `missing` where there was no answer at all."""
        return {
            **{name: int(right) for name, right in self.correct.items()},
            **{f"{name}_raw": int(right) for name, right in self.correct_raw.items()},
            "error_class": "missing" if missing else self.error_class,
            "gold_rows": self.gold_rows,
            "predicted_rows": self.predicted_rows,
            "message": "no answer to this question" if missing else self.message,
            "flags": " ".join(self.flags),
            "sql": self.sql,
            **{name: score if name == "r_ves" else int(score) for name, score in self.further.items()},
        }


def everywhere(verdicts: Sequence[Verdict | GoldError]) -> Verdict | GoldError:
    """Return one verdict of those on several databases: right where all of them are, and else that of the first wrong.

    The error of a gold query on one of them is returned as it is.
    """
    failed = [verdict for verdict in verdicts if isinstance(verdict, GoldError)]
    if failed or len(verdicts) == 1:
        return (failed or verdicts)[0]
    least = min(verdicts, key=lambda verdict: sum(verdict.correct.values()))
    return _judged(least, verdicts, all)


def best(verdicts: Sequence[Verdict | GoldError]) -> Verdict | GoldError:
    """Return one verdict of those by several gold queries: right wherever one of them is, and else the best one's.

    The error of a gold query is returned only if none of them runs.
    """
    found = [verdict for verdict in verdicts if isinstance(verdict, Verdict)]
    if not found or len(verdicts) == 1:
        return verdicts[0]
    chosen = max(found, key=lambda verdict: sum(verdict.correct.values()))
    return _judged(chosen, found, any)


def _judged(shown: Verdict, verdicts: Sequence[Verdict], by: Callable[[Iterable[bool]], bool]) -> Verdict:
    """Return `shown` with what all or any of the verdicts say under each criterion."""
    correct, raw = (
        {name: by(getattr(verdict, kind)[name] for verdict in verdicts) for name in SEMANTICS}
        for kind in ("correct", "correct_raw")
    )
    further = together([verdict.further for verdict in verdicts], min if by is all else max)
    return replace(shown, correct=correct, correct_raw=raw, further=further)


class Judge(AbstractContextManager):
    """Runs gold queries and answers in processes of its own, and compares; to be closed, or used in a `with`.

    The processes (`worker`) start when they are first needed, stay for all questions and keep databases open and the
    results of gold queries. One that does not come back in time is killed and replaced. Time is that of the processor,
    so that the load of the machine decides no verdict; a query that has no result after four times as long by the clock
    is given up, and judged a second time while this Judge runs nothing else, and that counts. So is one whose process
    the system ended for lack of memory. May be used by several threads.

    Args:
        timeout_s: seconds of processor time that a query may take.
        jobs: the number of processes.
        previews: whether verdicts come with the first rows of both results.
        fence: which of an answer's fenced blocks is looked at first, see `extract.extract_sql`.
        further: criteria of `further.FURTHER` that are wanted too. `r_ves` runs what is right a hundred times.

    Raises:
        ValueError: timeout_s is not above 0 or more than a day, or jobs not at least 1, or a criterion is none of
            `further.FURTHER`.
    """

    def __init__(
        self,
        timeout_s: float = 30.0,
        jobs: int = 1,
        previews: bool = False,
        fence: str = "last",
        further: Collection[str] = (),
    ):
        if not 0 < timeout_s <= DAY_S or jobs < 1:
            raise ValueError(
                f"Found timeout_s {timeout_s} and jobs {jobs}, expected more than 0 s, at most {DAY_S}, and a job."
            )
        if unknown := set(further) - FURTHER.keys():
            raise ValueError(f"further: found {', '.join(sorted(unknown))}, expected some of {', '.join(FURTHER)}.")
        self.further = [name for name in FURTHER if name in further]
        self.timeout_s = timeout_s
        self.jobs = jobs
        self.previews = previews
        self.fence = fence
        self._closed = False
        self._databases: dict[str, tuple] = {}
        self._all = [Process(self._databases) for _ in range(jobs)]
        # The last that came back goes out first: its caches are warm, and fewer processes may do.
        self._idle: LifoQueue[Process] = LifoQueue()
        for process in reversed(self._all):
            self._idle.put(process)
        self._alone = threading.Lock()

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes; a second time does nothing."""
        self._closed = True
        for process in self._all:
            process.kill()

    def version(self, engine: str) -> str:
        """Return name and version of one of `engines.ENGINES`, once it has run queries; "" before."""
        return next((process.versions[engine] for process in self._all if engine in process.versions), "")

    def judge(self, database: str | Path, gold: str | Results, answer: str) -> Verdict:
        """Run a gold query and an answer on one database and compare their rows.

        Args:
            database: the path of a SQLite or DuckDB file, or the address of a PostgreSQL database.
            gold: the gold query, or gold results; these have neither previews nor further criteria.
            answer: SQL or a model's whole answer.

        Raises:
            ValueError: there are gold results, and this Judge was asked for previews or further criteria.
            FileNotFoundError: there is no such database.
            sandbox.UnmergedError: some of its rows are in a file beside it.
            engines.UnavailableError: it cannot be opened, or its engine is not installed.
            GoldError: the gold query does not run.
        """
        self._refuse_extras(gold)
        task = self._task(readable(database), gold, answer)
        with self._borrowed(1) as process:
            found = process.assess([task])[0]
        return self._verdict(task, *found)

    def judge_all(
        self, items: Sequence[tuple[str | Path, str | Results, str]], progress: bool = False
    ) -> list[Verdict | GoldError]:
        """Judge (database, gold, answer) triples with all processes at once; the verdicts come in the same order.

        A gold query that does not run is one question's error, and stands in the place of its verdict.

        Args:
            progress: show a bar on the error stream.

        Raises:
            ValueError, FileNotFoundError, sandbox.UnmergedError: as of `judge`; nothing was run then.
            engines.UnavailableError: as of `judge`.
        """
        for item in items:
            self._refuse_extras(item[1])
        places = {name: readable(name) for name in dict.fromkeys(item[0] for item in items)}
        # Known before the first process starts, which then reads them all.
        for place in places.values():
            self._all[0].knows(*place)

        def task(index: int) -> dict:
            name, gold, answer = items[index]
            return self._task(places[name], gold, answer)

        def neighbour(index: int) -> tuple[str, ...]:
            name, gold, _ = items[index]
            return *places[name][::-1], "" if isinstance(gold, Results) else gold

        # Neighbours share a database, and maybe a gold query, which a process has to open and to run once.
        order = sorted(range(len(items)), key=neighbour)
        size = max(1, min(CHUNK, len(items) // (8 * self.jobs)))
        results: list[tuple[dict, bool] | Verdict | GoldError | None] = [None] * len(items)
        done: SimpleQueue[int | BaseException] = SimpleQueue()

        def work(chunk: Sequence[int]) -> None:
            try:
                with self._borrowed(1) as process:
                    found = process.assess([task(index) for index in chunk])
                for place, index in enumerate(chunk):
                    if place in found:
                        results[index] = found[place]
                    else:
                        pool.submit(work, [index])
                done.put(len(found))
            except BaseException as error:
                done.put(error)

        bar = tqdm(total=len(items), unit="question", mininterval=5, disable=not progress)
        with bar, ThreadPoolExecutor(self.jobs) as pool:
            try:
                for _, found in groupby(order, lambda index: _served(*places[items[index][0]])):
                    group = list(found)
                    for start in range(0, len(group), size):
                        pool.submit(work, group[start : start + size])
                left = len(items)
                while left:
                    number = done.get()
                    if isinstance(number, BaseException):
                        raise number
                    left -= number
                    bar.update(number)
            except BaseException:
                # Not to wait for what is still to be run.
                pool.shutdown(wait=False, cancel_futures=True)
                self.close()
                raise
        # In their place, since there may be many.
        for index, result in enumerate(results):
            try:
                results[index] = self._verdict(task(index), *result)
            except GoldError as error:
                results[index] = error
        return results

    def _refuse_extras(self, gold: str | Results) -> None:
        if isinstance(gold, Results) and (self.previews or self.further):
            raise ValueError("Gold results have neither previews nor further criteria; expected a Judge without them.")

    def _task(self, place: tuple[str, str], gold: str | Results, answer: str) -> dict:
        database, engine = place
        rows = isinstance(gold, Results)
        return {
            "database": database,
            "engine": engine,
            "gold": vars(gold) if rows else gold,
            "ordered": not rows and orders_rows(gold, engine),
            "answer": answer,
            "timeout_s": self.timeout_s,
            "previews": self.previews,
            "fence": self.fence,
            "further": self.further,
        }

    def _verdict(self, task: dict, result: dict, certain: bool) -> Verdict:
        if not certain and self.jobs > 1:
            with self._alone, self._borrowed(self.jobs) as process:
                result, _ = process.assess([task])[0]
        if "gold_error" in result:
            error_class, message = result["gold_error"]
            error = GoldError(
                f"{shown(task['database'])}: the gold query fails ({error_class}: {message}): {task['gold']}"
            )
            error.error_class = error_class
            raise error
        return Verdict(**result["verdict"] | {"flags": tuple(result["verdict"]["flags"])})

    @contextmanager
    def _borrowed(self, number: int) -> Iterator[Process]:
        """Wait for so many processes, and give one of them."""
        processes = [self._idle.get() for _ in range(number)]
        try:
            if self._closed:
                raise ValueError("This Judge is closed.")
            yield processes[-1]
        finally:
            for process in processes:
                self._idle.put(process)


def _served(database: str, engine: str) -> tuple[str, str]:
    """Tell which questions one process can serve at a time: those on SQLite files, or on one other database."""
    return engine, "" if ENGINES[engine].at_once == 0 else database


@lru_cache(maxsize=20_000)
def orders_rows(gold: str, dialect: str = "sqlite") -> bool:
    """Tell whether a query has an ORDER BY of its own, not only in a subquery or a window."""
    if "order" not in gold.lower():
        return False
    tree = parse(gold, dialect)
    if tree is None:
        return has_outer_order_by(gold)
    while isinstance(tree, exp.Subquery) and not tree.args.get("order"):
        tree = tree.this
    return tree.args.get("order") is not None


def cores() -> int:
    """Return how many cores this process may use, which a scheduler can set below those that the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_making = threading.Lock()


@lru_cache
def _shared(timeout_s: float) -> Judge:
    opened = Judge(timeout_s, jobs=cores())
    atexit.register(opened.close)
    return opened


def judge(database: str | Path, gold: str, answer: str, timeout_s: float = 30.0) -> Verdict:
    """Judge one answer with a `Judge` that all calls share and that ends with the program; raises as `Judge.judge`."""
    with _making:
        shared = _shared(timeout_s)
    return shared.judge(database, gold, answer)


def judge_best(database: str | Path, golds: Iterable[str], answer: str, timeout_s: float = 30.0) -> Verdict | GoldError:
    """Judge one answer by several gold queries, of which one is enough; see `best`.

    Raises:
        FileNotFoundError: there is no such database.
    """

    def one(gold: str) -> Verdict | GoldError:
        try:
            return judge(database, gold, answer, timeout_s)
        except GoldError as error:
            return error

    return best([one(gold) for gold in golds])
