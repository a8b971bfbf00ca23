"""Get the data sets of lm-evaluation-harness's tasks into the cache, where there is a network."""

from collections.abc import Sequence
from pathlib import Path

import _path  # noqa: F401
from common.files import UserError, write_json
from common.job import job


def load_tasks(tasks: Sequence[str], include_path: str | None):
    """Return the harness's manager of tasks; the data sets of `tasks` are then in the cache, or were.

    Raises:
        UserError: a task that the harness does not know, or whose data cannot be had.
    """
    from lm_eval.tasks import TaskManager, get_task_dict  # seconds to import

    if include_path is not None and not Path(include_path).is_dir():
        raise UserError(f"evaluation.harness.include_path: {include_path} is no folder.")
    manager = TaskManager(include_path=include_path)
    for name in tasks:
        try:
            get_task_dict([name], manager)
        except KeyError as error:
            raise UserError(
                f"evaluation.harness.tasks: lm-evaluation-harness cannot make {name} ({error}). "
                "`lm-eval ls tasks` lists what it has; tasks of your own need include_path."
            ) from None
        except (OSError, ValueError) as error:
            raise UserError(f"evaluation.harness.tasks: the data of {name} cannot be had ({error}).") from error
    return manager


def fetch_harness(tasks: Sequence[str], include_path: str | None, manifest: str | Path) -> None:
    """Fetch the data sets of the tasks, and write which version of the harness they are for."""
    from lm_eval import __version__

    load_tasks(tasks, include_path)
    write_json(manifest, {"lm_eval": __version__, "tasks": list(tasks), "include_path": include_path})


if __name__ == "__main__":
    with job(snakemake.log[0]):
        fetch_harness(**snakemake.params.settings, manifest=snakemake.output.manifest)
