"""Every key of a study: its type, its default, its bounds and what it means, each said once.

`config.yaml`, `config.schema.json` and `docs/config.md` are generated from these classes by

    python scripts/studies.py document
"""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from study.library import WORDS, passes_on
from study.models import Adapter, Model
from tasks.records import CRITERIA
from tasks.sections import (
    ABSENT,
    AtLeast1,
    Column,
    Count,
    Limit,
    Modules,
    Name,
    NotNegative,
    Number,
    Positive,
    Section,
    Set,
    Share,
    Some,
    StudyName,
    TaskName,
    Text,
    Unique,
    contradiction,
    either,
    real,
    whole,
)


@passes_on("LoraConfig")
class Lora(Section):
    """The adapter. Any key of PEFT's LoraConfig may stand here, such as use_dora, use_rslora or rank_pattern.

    To compare several values, list them under `sweep`, or give them to named `adapters`.
    """

    r: AtLeast1 = 8
    """The rank."""
    lora_alpha: AtLeast1 = 16
    """The scale: what the adapter adds is multiplied by lora_alpha / r."""
    lora_dropout: Share = 0.05
    """Dropout before the adapter."""
    target_modules: Modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    """The linear layers that get an adapter: their names, all-linear, or a regular expression of whole names."""


class Rows(Section):
    """Train on some of the training rows alone, such as {fraction: 0.25} or {count: 1000, balance: hardness}; null for
    all. Not an option of SFTConfig.

    Rows are drawn by their ids, so that neither their order nor their number changes which come first: with the same
    seed and balance, fewer rows are a part of more rows. Prompts are rendered and proved once, for all rows.
    """

    count: AtLeast1 = ABSENT
    """How many rows. Either this or fraction."""
    fraction: real(gt=0, lt=1) = ABSENT
    """Which share of all rows, rounded up."""
    balance: Column = ABSENT
    """hardness or database; of a task of kind jsonl, a key of its rows. Equally many rows of each of its values are
    drawn. A value with too few rows gives all it has, and the others give more. May be left out."""
    seed: Count = 42
    """Draws the rows, for every seed of training the same ones."""

    @model_validator(mode="after")
    def _one_number(self) -> "Rows":
        if (self.count is None) == (self.fraction is None):
            found = "neither" if self.count is None else "both"
            raise contradiction("count", f"found {found} of count and fraction. Write one of them.")
        # Complete wherever it stands, so that equal choices are equal values in a sweep too.
        self.model_fields_set.update(type(self).model_fields)
        return self


@passes_on("SFTConfig")
class Training(Section):
    """The training. Any key of TRL's SFTConfig may stand here that the workflow does not set itself.

    Write 1.0e-4 or 0.0001: YAML reads 1e-4 as text.
    """

    method: Literal["lora", "full"] = ABSENT
    """lora: an adapter beside the model's own weights, as `lora` says. full: all weights of the language model,
    embeddings and head among them; `lora` says nothing then. That takes 18 bytes of GPU memory a parameter and more,
    a learning rate far below an adapter's, such as 1.0e-5, and no nf4 or int8. May be left out; then it is lora. Not an
    option of SFTConfig."""
    learning_rate: Positive = 1e-4
    """Highest learning rate of the schedule."""
    num_train_epochs: Positive = 1.0
    """Epochs: how often the training goes through the rows."""
    max_steps: Limit = -1
    """Stop after N optimizer steps, whatever the epochs; -1 for no limit."""
    rows: Rows | None = ABSENT
    loss_on: Literal["completion", "assistant", "text", "prompt"] = "completion"
    """What the loss covers of a row of the target. completion: the answer. assistant: each turn of the assistant, such
    as few-shot examples that are turns. text: prompt and answer. prompt: the prompt alone, a defect that accept_defect
    must name. Of a replayed row it is always the answer. Not an option of SFTConfig."""
    mode: Literal["faithful", "fast"] = "faithful"
    """faithful: an optimizer step has per_device_train_batch_size x gradient_accumulation_steps rows, in whatever
    number of micro-batches. fast: a step has as many rows as one micro-batch holds in the GPU's memory, so that there
    are fewer steps. Not an option of SFTConfig."""
    share_prefix: bool = True
    """Compute what all rows begin with, such as few-shot examples, once in each micro-batch. The loss and the gradient
    are the same, but rows then share one draw of lora_dropout on these tokens. Not an option of SFTConfig."""
    per_device_train_batch_size: AtLeast1 = 8
    """Rows in one optimizer step, before multiplication by gradient_accumulation_steps. The size of a micro-batch
    follows from the GPU's memory."""
    gradient_accumulation_steps: AtLeast1 = 1
    """Multiplies the rows in one optimizer step; see per_device_train_batch_size."""
    optim: Literal[*WORDS["optim"]] = "adamw_torch"
    """The optimizer, by its name in transformers."""
    weight_decay: NotNegative = 0.0
    """Decoupled weight decay. It draws the adapter's matrices A and B, and so what they add to the weights, towards
    zero; with method: full, the weights themselves."""
    max_grad_norm: NotNegative = 1.0
    """The norm of the gradient is clipped to this value."""
    warmup_steps: NotNegative = 0.03
    """Optimizer steps in which the learning rate rises; below 1, a share of all steps."""
    lr_scheduler_type: Literal[*WORDS["lr_scheduler_type"]] = "cosine"
    """How the learning rate falls after the warmup."""
    max_length: AtLeast1 = 1024
    """Longest training row in tokens. A longer row stops the run, unless truncate is true."""
    truncate: bool = False
    """Cut rows that are longer than max_length, and the answer with them: a defect that accept_defect must name. Not an
    option of SFTConfig."""
    gradient_checkpointing: bool = False
    """Save memory by computing the activations twice."""
    save_steps: AtLeast1 = 50
    """Optimizer steps between two checkpoints. A killed training goes on from the last one."""
    save_total_limit: whole(ge=2) = 2
    """Checkpoints kept at a time. One is too few: a kill may cut the newest."""
    eval_strategy: Literal["no", "steps", "epoch"] = "no"
    """When the validation loss is computed: "no" (never; write the quotes), steps (every eval_steps), or epoch."""
    eval_steps: AtLeast1 = 50
    """Optimizer steps between two evaluations, with eval_strategy: steps."""
    per_device_eval_batch_size: AtLeast1 = 8
    """Validation rows in one forward pass."""
    load_best_model_at_end: bool = False
    """Keep the checkpoint with the best metric_for_best_model instead of the last one."""
    metric_for_best_model: Literal["eval_loss"] = "eval_loss"
    """What decides which checkpoint is best and when to stop early. Less is better."""
    early_stopping_patience: AtLeast1 | None = None
    """Stop after N evaluations without a better one; null for never. Not an option of SFTConfig."""
    train_sampling_strategy: Literal["random", "group_by_length"] = "random"
    """How rows are put into batches: at random, or with rows of similar length, which needs less padding."""
    report_to: Literal["none", *WORDS["report_to"]] = "none"
    """Where losses go besides train.json: tensorboard, or another tracker that transformers knows, if it is installed.
    What it keeps in files goes to results/<study>/trackers/<tracker>/, as far as it lets others say so; accounts and
    addresses are those of its own environment variables."""
    logging_steps: AtLeast1 = 5
    """Optimizer steps between two losses in train.json."""
    seed: either(Count, Some[Count], list) = 42
    """Draws the adapter's first weights, the order of the rows and the dropout. A list such as [1, 2, 3] trains every
    setting once with each seed."""


class Replay(Section):
    """Rows of the task of role replay, mixed into the training against forgetting; see studies/demo-replay.yaml."""

    fraction: real(ge=0, le=1) = 0.0
    """Replayed rows for each row of the target; 0 for none. They are added and replace nothing, so an epoch has more
    optimizer steps."""
    kl: NotNegative = 0.0
    """Weight of KL(base || tuned) at each label of a replayed row, added to the cross entropy there; 0 for cross
    entropy alone. As in learning without forgetting (Li and Hoiem 2016, arXiv:1606.09282), but the labels are kept
    beside the distribution of the base model (DER++, Buzzega et al. 2020, arXiv:2004.15211)."""


@passes_on("GenerationConfig")
class Inference(Section):
    """How models answer: greedily, unless do_sample is true.

    Of GenerationConfig's keys, further ones may stand here: repetition_penalty and no_repeat_ngram_size; and with
    do_sample top_k, min_p, typical_p, epsilon_cutoff and eta_cutoff. With any of them `generate` of transformers
    answers, which is slower.
    """

    batch_size: either(AtLeast1, Literal["auto"], str) = "auto"
    """Prompts in one batch. auto fills the free memory of a GPU, and is 32 on a CPU."""
    merge_adapters: bool = False
    """Merge each adapter into the model's weights before it answers. That is faster, but the sum is rounded to the
    precision of the weights, so in bf16 a few answers differ. Not with nf4."""
    do_sample: bool = False
    """Draw each token at random instead of taking the likeliest one, to repeat a study that did."""
    temperature: Positive = 1.0
    """With do_sample: below 1 sharpens the probabilities, above 1 flattens them."""
    top_p: real(gt=0, le=1) = 1.0
    """With do_sample: draw among the likeliest tokens whose probabilities together reach this value."""
    seed: either(Count, Some[Count], list) = 42
    """With do_sample: draws the tokens. Each question has its own generator, so the size of batches changes nothing. A
    list such as [1, 2, 3] draws every answer of base and adapters once with each seed; a question then counts as the
    share of its draws that are right. Letters of multiple choice are not drawn and not asked again."""


class Harness(Section):
    """Tasks of lm-evaluation-harness as a further yardstick of every run. `make harness` installs it."""

    tasks: Set[str] = []
    """Tasks or groups by their names in the harness, such as [arc_easy, hellaswag]; none to leave it out."""
    num_fewshot: Count | None = None
    """Few-shot examples before each question; null for each task's own number."""
    limit: AtLeast1 | None = None
    """Ask the first N questions of each task; null for all."""
    include_path: str | None = None
    """A folder with tasks of your own, as YAML files of the harness."""


class Evaluation(Section):
    """What to evaluate besides base and adapters, each a row of its own in the tables; studies/demo-full.yaml shows it.

    But for checkpoints nothing is trained again, and one more value is one more evaluation.
    """

    adapters: Unique[str] | None = None
    """The settings whose interpolations and checkpoints are evaluated, by their names, such as [lr0.012]; null for all.
    One adapter of several seeds is lr0.012-seed1."""
    interpolate: Unique[NotNegative] = []
    """Interpolation between base and adapter: factors for what the adapter adds to the weights, such as [0.25, 0.5,
    0.75]. 0 is the base model and 1 the adapter; both are there anyway."""
    checkpoints: Unique[AtLeast1] = []
    """Checkpoints to evaluate: numbers of optimizer steps. Each adapter is kept there for good. A further step trains
    an adapter again if the adapter is evaluated there. One step less changes nothing."""
    shots: Unique[Count] = []
    """Numbers of few-shot examples in the base model's prompts of the target, such as [0, 1, 3, 5]: what prompting
    alone gains. The first are those that its shots set aside; further ones are training rows, drawn with its seed. The
    number that the base has anyway is left out."""
    soups: dict[Name, Unique[str]] = {}
    """Means of adapters, under names of your choice, such as {both: [lr0.003, lr0.012]}: of settings with several seeds
    once for each seed, of single adapters once."""
    noise_floor: bool = False
    """Measure what the machine itself changes: ask each base again in other batches, and one of its adapters again,
    merged into the weights (with inference.merge_adapters beside them; with nf4 not at all). Two further evaluations of
    each model, which stand in the table noise alone."""
    repair: whole(ge=0, le=1) = 0
    """1: where the SQL of an answer to the target does not run, tell the model what the database says of it and let it
    answer once more. No gold query is looked at, so an answer with wrong rows stands. Each base and each adapter is
    asked again (of several draws the first); what that changes stands in the table repair alone."""
    repair_prompt: Text | None = None
    """With repair: 1, a template of your own for what the model is told (docs/tasks.md); null for the one that comes
    with the workflow."""
    harness: Harness = Harness()


class Tables(Section):
    """What the tables show."""

    confidence_level: real(gt=0, lt=1) = 0.95
    """Coverage of every interval."""
    margin_pp: Annotated[Number, Field(ge=0, lt=100)] = 3.0
    """Margin of forgetting, in percentage points: a loss of no more does not matter. A verdict says of each setting
    whether it lost more, no more, or whether that is undecided at this number of questions. Choose it before the run:
    `make plan` says which margin a study can certify."""


class Recommend(Section):
    """Recommend one setting, interpolation, checkpoint or soup of each model; null for no recommendation.

    It is the one that gains most on the target among those shown to lose no more than tables.margin_pp on every
    yardstick. It is written to results/<study>/recommended/, ready to load.
    """

    merge: bool = False
    """Write the whole model with the adapter merged into its weights, instead of the adapter alone. This takes the
    memory and disk space of the model. Not with nf4."""


class Report(Section):
    """How the report is written."""

    language: Literal["en", "pt"] = "en"
    """Language of report.md, report.pdf, the tables and the figures: English or Portuguese."""
    title: str = ""
    """The report's title; left empty, one that names the target."""
    authors: list[Text] = []
    """Who stands under the title, each as it is to be printed."""
    affiliation: str = ""
    """Where the authors work or study."""
    course: str = ""
    """The course or the event that the report is for."""
    date: str = ""
    """The date under the title, as it is to be printed. There is none by default: equal results make equal reports."""


class Protocols(Section):
    """What each protocol changes in the study. It is merged over the study before anything else is read; a list
    replaces a list, and null removes a section. studies/souza.yaml is an example."""

    corrected: dict[str, Any] = {}
    """What the corrected protocol changes: often nothing, since the study itself is written corrected."""
    as_reported: dict[str, Any] = {}
    """What a published report did otherwise, where that can be run."""
    reanalysed: dict[str, Any] = Field(default={}, exclude_if=lambda value: not value)
    """The answers behind a published report in place of ours, where they are public: nothing is trained or asked."""


class Stated(Section):
    """One number that the report states."""

    what: str
    """What it is the number of."""
    value: Number
    """The number."""
    part_of: Annotated[list[Number], Field(min_length=2, max_length=2)] = ABSENT
    """Two numbers: the report says that the stated one is the first in percent of the second. May be left out."""
    decimals: Count = 0
    """Digits after the point, as printed."""


class PublishedTable(Section):
    """One table of the report, or the figures of one passage."""

    table: str
    """Its name in the report."""
    task: str
    """The task that it is about."""
    criterion: Literal[CRITERIA] = ABSENT
    """By which criterion the report counts as right, where the study has another; with _raw of the answers as they are.
    May be left out."""
    decimals: Count
    """Digits after the point of the percentages, as printed."""
    n: dict[str, AtLeast1 | None]
    """Questions behind each column; null where the report does not say. A column is all, a category of
    published.subjects, or an MMLU subject."""
    subset: str | None = None
    """Which questions of the official split these are, if not all, as the report says it; null if it does not say."""
    accuracy: dict[str, dict[str, Number]]
    """The percentages of each variant, by its name in this study, for each column of n."""
    correct: dict[str, dict[str, Count]] = {}
    """The numbers of right answers of each variant, where the report prints them."""
    change: dict[str, dict[str, Number]] = {}
    """Changes against the base model that the report prints with a percent sign, of each variant."""
    change_of: Literal["figures", "subjects"] = ABSENT
    """What the changes are made of. figures: of the percentages in the same column. subjects: each is the mean of the
    changes of the column's subjects. May be left out; then it is figures."""


class Published(Section):
    """The figures that a report printed, to stand beside ours in tables/published; studies/souza.yaml shows it.

    No job that computes anything sees them.
    """

    report: str = ""
    """Author, title and year of the report."""
    model: str | None = None
    """Which of this study's models the figures are of; null if there are no figures."""
    subjects: dict[str, Some[str]] = {}
    """The MMLU subjects of each of the report's categories, under the names that the report gives them."""
    stated: list[Stated] = []
    """Other numbers that the report states."""
    tables: list[PublishedTable] = []
    """The report's tables of results."""


class Study(Section):
    """What to train on what data, how to evaluate it, and what to put in the tables."""

    study: StudyName
    """Name of the study. Its results go to results/<study>/."""
    scale: Literal["full", "smoke"] = "full"
    """smoke puts rules/smoke.yaml over the study: a run of a minute which shows that all steps work. Meant for the
    command line: --config scale=smoke. Its results go to results/<study>-smoke/."""
    protocol: Literal["corrected", "as_reported", "reanalysed"] = "corrected"
    """A study that repeats a published one can have three protocols: corrected, as_reported with the report's defects,
    and reanalysed, which analyses the report's own answers. --config protocol=as_reported runs the second one, in
    results/<study>-as_reported/."""
    protocols: Protocols = Protocols()
    known_defects: Unique[Text] = []
    """What is known to be wrong with the study's method, in sentences that stand in its tables."""
    accept_defect: Set[Literal["dev_used_to_choose", "target_not_in_loss", "truncated"]] = []
    """Failures of the audit with which the study runs all the same: target_not_in_loss, truncated, dev_used_to_choose.
    They are recorded, and stand in the tables."""
    models: Annotated[dict[Name, Model], Field(min_length=1)]
    """The models to study, by names of your choice. Each is evaluated as it is (`base`) and with every adapter."""
    tasks: Annotated[dict[TaskName, dict[str, Any]], Field(min_length=1)]
    """What the models are trained and evaluated on, by names of your choice, which stand in rules, folders and tables.
    One task has the role target. docs/tasks.md lists the kinds of task and the keys of each."""
    lora: Lora = Lora()
    training: Training = Training()
    sweep: dict[str, Some[Any]] = {}
    """Values to compare, by their places: {training.learning_rate: [1.0e-4, 5.0e-5], lora.r: [8, 32]} trains the four
    combinations, which are named after the values (lr0.0001-r8). Keys of lora, training and replay may stand here, and
    train_questions of the target. A further value trains its own adapters only. Without a value, only the tables
    change. Seeds are no setting: write them as training.seed: [1, 2, 3]."""
    adapters: dict[Name, Adapter] = {}
    """Further settings under names of your choice, and adapters that were made elsewhere, such as {gentle: {training:
    {learning_rate: 2.0e-5}}, public: {source: hub:someone/llama3-spider-lora, revision: <commit>}}. A study without
    `sweep` trains those that stand here alone; with neither, one called `adapter`."""
    replay: Replay = Replay()
    inference: Inference = Inference()
    evaluation: Evaluation = Evaluation()
    tables: Tables = Tables()
    recommend: Recommend | None = None
    report: Report = Report()
    published: Published = Published()
