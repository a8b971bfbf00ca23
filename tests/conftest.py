"""What tests share: the real data where there is some, and whole runs of the workflow in a copy of the repository."""

import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from hypothesis import settings

from _folders import tiny
from _runs import OFFLINE, forked

REPO = Path(__file__).parents[1]
# Neither what earlier runs made nor what a user put in: a copy has to work from what is in version control.
NOT_COPIED = (".*", "results", "data", "__pycache__", "tests")
# The same examples in every run, none too slow for a busy machine, none kept.
settings.register_profile("tests", deadline=None, derandomize=True, database=None)
settings.load_profile("tests")
# For Python that a test starts: what pytest has by `pythonpath`.
os.environ["PYTHONPATH"] = os.pathsep.join(
    str(REPO / folder) for folder in (".", "scripts", "scripts/steps", "tests/support")
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the random kills of tests/workflow/test_soak.py be more, or others."""
    parser.addoption("--kills", type=int, default=5, help="random kills of one study (default: 5)")
    parser.addoption("--seed", type=int, default=21, help="what draws them (default: 21)")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with whole runs: two processes that take a file after the other then end at about the same time."""
    items.sort(key=lambda item: item.path.parent.name not in ("workflow", "golden"))


def pytest_collection_finish() -> None:
    """Have the garbage collector pass over the modules and tests, which stay."""
    gc.freeze()


@pytest.fixture(scope="session")
def repo() -> Path:
    """The repository's root."""
    return REPO


@pytest.fixture(scope="module")
def two_threads() -> Iterator[None]:
    """Two threads of torch while a module's tests run, as the rules' jobs have: sums depend on how many there are."""
    import torch  # of which most tests know nothing

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the real Spider and MMLU archives, `spider/spider_data.zip` and `mmlu/mmlu_data.tar.gz`."""
    folder = Path(os.environ.get("LORA_TRADEOFF_DATA", REPO.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}; name its folder in LORA_TRADEOFF_DATA")
    return folder


@pytest.fixture(scope="session")
def copy_repo(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function that copies the repository into a new folder, for runs that shall not touch the user's results."""

    def copy(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name) / "repo"

        def ignore(directory: str, names: list[str]) -> set[str]:
            at_root = Path(directory) == REPO
            return set(shutil.ignore_patterns(*(NOT_COPIED if at_root else ("__pycache__",)))(directory, names))

        shutil.copytree(REPO, folder, ignore=ignore)
        return folder

    return copy


@pytest.fixture(scope="session")
def start_snakemake() -> Callable[..., subprocess.Popen]:
    """A function that starts snakemake in a folder, offline, on two cores, in this environment."""

    def start(folder: Path, *arguments: str, **options) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "snakemake", "--cores", "2", *arguments],
            cwd=folder,
            env=os.environ | OFFLINE,
            stderr=subprocess.STDOUT,
            text=True,
            **options,
        )

    return start


@pytest.fixture(scope="session")
def snakemake(start_snakemake) -> Callable[..., subprocess.CompletedProcess]:
    """A function that runs snakemake to its end: `snakemake(folder, "--dry-run")`; its `stdout` holds all output."""

    def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
        process = start_snakemake(folder, *arguments, stdout=subprocess.PIPE)
        output, _ = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, output)

    return run


@pytest.fixture(scope="session")
def snakemake_forked() -> Callable[..., subprocess.CompletedProcess]:
    """The same with jobs that are forks, which takes a fraction of the time: for tests of what a run makes.

    `models=True` where jobs load models.
    """

    def run(folder: Path, *arguments: str, models: bool = False) -> subprocess.CompletedProcess:
        return forked(folder, {"run": ["--cores", "2", *arguments]}, models=models)["run"]

    return run


@pytest.fixture(scope="session")
def demo_run(copy_repo, snakemake_forked) -> Path:
    """A copy of the repository in which the demo has run once, with few steps and questions, and no noise floor."""
    folder = copy_repo("demo")
    study = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    study["tasks"]["spider"] |= {"train_questions": 64, "questions": 16, "max_new_tokens": 16}
    study["tasks"]["mmlu"]["questions_per_category"] = 6
    study["training"] |= {"max_steps": 2, "per_device_train_batch_size": 2}
    # Of two runs more, which studies/demo-full.yaml has too.
    study["evaluation"]["noise_floor"] = False
    (folder / "config.yaml").write_text(yaml.safe_dump(study, sort_keys=False), encoding="utf-8")
    run = snakemake_forked(folder, models=True)
    assert run.returncode == 0, run.stdout[-8000:]
    return folder


@pytest.fixture(scope="session")
def small_study() -> dict:
    """The demo study cut down to one adapter, a few steps and a few questions, for tests that run it several times."""
    study = yaml.safe_load((REPO / "config.yaml").read_text(encoding="utf-8"))
    study["study"] = "small"
    study["tasks"]["spider"]["questions"] = 48
    study["tasks"]["mmlu"]["questions_per_category"] = 8
    study["sweep"] = {"training.learning_rate": [0.001]}
    study["training"] |= {"num_train_epochs": 1, "max_steps": 12, "save_steps": 3}
    # Small batches, so that there is a middle in which to kill a run.
    study["inference"] |= {"batch_size": 4}
    return study


@pytest.fixture(scope="session")
def small_run(copy_repo, snakemake, small_study) -> Path:
    """A copy of the repository in which the small study has run once, undisturbed."""
    folder = copy_repo("small")
    (folder / "small.yaml").write_text(yaml.safe_dump(small_study), encoding="utf-8")
    run = snakemake(folder, "--configfile", "small.yaml")
    assert run.returncode == 0, run.stdout[-8000:]
    return folder


@pytest.fixture(scope="session")
def tiny_study() -> dict:
    """The least of the demo study that trains, saves checkpoints, answers in batches and makes tables."""
    return tiny()


@pytest.fixture(scope="session")
def tiny_run(copy_repo, snakemake, tiny_study) -> Path:
    """A copy of the repository in which the tiny study has run once, undisturbed."""
    folder = copy_repo("tiny")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(tiny_study), encoding="utf-8")
    run = snakemake(folder, "--configfile", "tiny.yaml")
    assert run.returncode == 0, run.stdout[-8000:]
    return folder
