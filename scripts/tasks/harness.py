"""The tasks of lm-evaluation-harness. Whoever fetches them needs the network, which `llm` shuts off."""

from collections.abc import Sequence
from pathlib import Path

from common.files import UserError


def load_tasks(tasks: Sequence[str], include_path: str | None):
    """Make the harness's manager of tasks, and put the data sets of `tasks` into the cache if they are not there.

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
