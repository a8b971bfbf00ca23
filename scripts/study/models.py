"""The keys of a study about what it loads: models, their quantization, adapters by name."""

from typing import Any, Literal

from study.library import passes_on
from tasks.imported import Answers
from tasks.sections import ABSENT, AtLeast1, Name, Positive, Section, TaskName, Text


@passes_on("BitsAndBytesConfig")
class Quantization(Section):
    """How weights are quantised, by keys of BitsAndBytesConfig: those of 4 bits with precision: nf4, llm_int8_* with
    int8."""

    bnb_4bit_quant_type: Literal["nf4", "fp4"] = "nf4"
    """The 4-bit numbers: nf4, made for weights that are normally distributed, or fp4."""
    bnb_4bit_use_double_quant: bool = True
    """Quantise the constants of the quantization too, which saves 0.4 bits a weight."""


class Model(Section):
    """An instruct model, and how it is loaded, for training and for inference alike."""

    source: Text | None = None
    """A local folder (config, weights, tokenizer with a chat template), or a repository on the Hugging Face hub such as
    mistralai/Mistral-7B-Instruct-v0.2; null if all answers were given elsewhere."""
    revision: str | None = None
    """The commit on the hub, 40 hexadecimal digits; a branch or a tag may move. null for a local folder."""
    precision: Literal["fp32", "bf16", "fp16", "nf4", "int8"] = "bf16"
    """fp32, bf16, fp16 (needs a GPU; models that were made in bf16 may have numbers too large for it), nf4 (QLoRA:
    4-bit weights with double quantization, computing in bf16; needs a CUDA GPU) or int8 (LLM.int8(): 8-bit weights;
    needs a CUDA GPU)."""
    base_precision: Literal["fp32", "bf16", "fp16", "nf4", "int8"] | None = ABSENT
    """Another precision for the base's own answers, such as bf16 beside adapters on nf4. Each difference then holds
    what the precision changes too, and the report says so. null: the same for both."""
    quantization: Quantization = Quantization()
    thinking: bool = False
    """Whether a model that can think before it answers does so, in base and adapters alike. It is then asked twice, for
    a thought and for the answer behind it, and an adapter learns to answer without a thought, since no row to train on
    has one. false ends the thought where the chat template opens one."""
    thinking_tokens: AtLeast1 = 1024
    """The most tokens of a thought, with thinking: true. A longer one is ended there."""
    gated: bool = False
    """Whether the hub asks you to accept a licence first. Then a run without a token ends before its first job."""
    parameters: Positive | None = None
    """Size in billions of parameters. Only `make studies` and `make plan` use it, to estimate memory."""
    vocabulary: AtLeast1 | None = None
    """Tokens in the vocabulary. Only `make studies` and `make plan` use it, to estimate memory."""
    answers: dict[TaskName, Answers] = ABSENT
    """Answers of the base that were given elsewhere, by task, such as {spider: {source: base.csv, question: question}};
    docs/answers.md. May be left out."""


class Adapter(Section):
    """A setting with a name of its own: what is written here holds over the study's lora, training and replay.

    With a source, an adapter that was made elsewhere: it is asked like a trained one, and never trained. Before it
    answers, its first tokens are held against those of its base model, so that an adapter that does nothing is not
    taken for one that changes nothing.
    """

    lora: dict[str, Any] = {}
    """Keys of lora."""
    training: dict[str, Any] = {}
    """Keys of training."""
    replay: dict[str, Any] = {}
    """Keys of replay."""
    source: Text | None = None
    """hub:<repository> such as hub:someone/llama3-spider-lora, or a local folder with adapter_model.safetensors and
    adapter_config.json; null for an adapter that the study trains."""
    revision: str | None = None
    """The commit on the hub, 40 hexadecimal digits; null for a local folder."""
    model: Name | None = None
    """Which of `models` an adapter from a source, or whose answers stand here, is made for; null if there is one
    alone."""
    answers: dict[TaskName, Answers] = ABSENT
    """Answers of this setting that were given elsewhere, by task, as of `models`. Nothing of it is trained or asked.
    May be left out."""
