"""Train the demo's base model from nothing: tokenizer, then a small Llama. One CUDA GPU, about ten minutes.

    python resources/demo/build/pretrain.py

The text is an endless stream of three kinds of chat, in the words of the workflow's own prompts:
  * text-to-SQL over random schemas, with the question types and phrasings that `grammar.py` marks for pre-training;
  * multiple-choice questions about the facts of `facts.py`, in random order with random wrong answers;
  * the same facts as plain question and answer.
The demo's databases, its questions, and its test questions with their choices in their order are not in the stream.
"""

import argparse
import json
import math
import random
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[3] / "scripts")]

import torch
from domains import DEV, OTHERS, TRAIN
from facts import facts, options
from grammar import KINDS, Impossible, Schema, ask, parse_domain, random_schema
from make_data import fingerprint, held_out
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tasks import choice, text_to_sql
from tasks.sql_schema import compact_schema

DEMO = Path(__file__).parents[1]
SPECIAL = ["<pad>", "<s>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPIDER_SYSTEM = "You translate questions into SQLite queries. Reply with one SQL query and nothing else."
MMLU_SYSTEM = "Answer with the letter of the correct choice."
FACT_SYSTEM = "Answer the question."
ROW = 1024
# Most of the loss is on answers; the rest of the text is there to be read.
ANSWER, TEXT = 1.0, 0.05


class Stream:
    """Draws chats as lists of (text, weight of its tokens in the loss)."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.domains = [parse_domain(name, text) for name, text in {**TRAIN, **OTHERS, **DEV}.items()]
        self.own = {frozenset(t.name for t in s.tables) for s in self.domains}
        self.kinds = [k for k in KINDS if k.known]
        self.held_out = held_out()
        self.facts: dict[str, list] = {}
        for number, fact in enumerate(facts()):
            # Nobody knows everything: one fact in eight is never told, so that the base is not perfect.
            if number % 8:
                self.facts.setdefault(fact.subject, []).append(fact)

    def schema(self) -> Schema:
        while True:
            schema = random_schema(self.rng, self.domains)
            if frozenset(t.name for t in schema.tables) not in self.own:
                return schema

    def solved(self) -> dict:
        while True:
            schema = self.schema()
            for _ in range(4):
                try:
                    chosen = self.rng.choice(self.kinds)
                    question, query = ask(self.rng, schema, chosen, chosen.known)
                except Impossible:
                    continue
                return {"schema": compact_schema(schema.tables_json()), "question": question, "query": query}

    def sql(self) -> list[tuple[str, float]]:
        shots = [self.solved() for _ in range(self.rng.choice((0, 1, 2, 3, 3, 3, 3)))]
        last = self.solved()
        user = text_to_sql.user_turn(last, shots)
        parts = [(f"<s><|system|>{SPIDER_SYSTEM}<|end|><|user|>", TEXT)]
        rest = user
        for shot in shots:
            head, rest = rest.split(f"SQL: {shot['query']}\n\n", 1)
            parts += [(head + "SQL:", TEXT), (f" {shot['query']}\n\n", ANSWER)]
        return [*parts, (rest + "<|end|><|assistant|>", TEXT), (last["query"] + "<|end|>", ANSWER)]

    def choice(self, subject: str) -> dict:
        while True:
            fact = self.rng.choice(self.facts[subject])
            choices, answer = options(self.rng, fact)
            if fingerprint(fact.question, choices) not in self.held_out:
                return {"question": fact.question, "choices": choices, "answer": answer}

    def mcq(self) -> list[tuple[str, float]]:
        subject = self.rng.choice(list(self.facts))
        shots = [self.choice(subject) for _ in range(self.rng.choice((0, 2, 4, 4, 4, 5)))]
        last = self.choice(subject)
        rest = choice.user_turn(subject, shots, last["question"], last["choices"])
        parts = [(f"<s><|system|>{MMLU_SYSTEM}<|end|><|user|>", TEXT)]
        for shot in shots:
            head, rest = rest.split(f"Answer: {shot['answer']}\n\n", 1)
            parts += [(head + "Answer:", TEXT), (f" {shot['answer']}\n\n", ANSWER)]
        return [*parts, (rest + "<|end|><|assistant|>", TEXT), (last["answer"] + "<|end|>", ANSWER)]

    def recall(self) -> list[tuple[str, float]]:
        parts = [(f"<s><|system|>{FACT_SYSTEM}<|end|>", TEXT)]
        for _ in range(4):
            fact = self.rng.choice(self.facts[self.rng.choice(list(self.facts))])
            if fact.question.startswith("Which of"):
                continue
            parts += [(f"<|user|>{fact.question}<|end|><|assistant|>", TEXT), (fact.answer + "<|end|>", ANSWER)]
        return parts

    def draw(self) -> list[tuple[str, float]]:
        return self.rng.choices((self.sql, self.mcq, self.recall), weights=(0.92, 0.06, 0.02))[0]()


def train_tokenizer() -> PreTrainedTokenizerFast:
    """Train a byte-level BPE of 2,560 tokens; each digit is a token, so that numbers are copied digit by digit."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r"\d"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    stream = Stream(seed=1)
    trainer = trainers.BpeTrainer(
        vocab_size=2560,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(("".join(text for text, _ in stream.draw()) for _ in range(20000)), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="<|end|>",
        pad_token="<pad>",
        additional_special_tokens=SPECIAL[2:5],
        clean_up_tokenization_spaces=False,
        model_max_length=8192,
    )
    fast.chat_template = TEMPLATE
    return fast


class Rows(IterableDataset):
    """Endless rows of ROW + 1 tokens with their weights; chats follow one another."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
        self.tokenizer, self.seed = tokenizer, seed

    def __iter__(self):
        worker = get_worker_info()
        stream = Stream(seed=self.seed + 1000 * (worker.id + 1 if worker else 0))
        encode = self.tokenizer._tokenizer.encode_batch
        ids: list[int] = []
        weights: list[float] = []
        while True:
            parts = stream.draw()
            for (_, weight), encoding in zip(
                parts, encode([t for t, _ in parts], add_special_tokens=False), strict=True
            ):
                ids += encoding.ids
                weights += [weight] * len(encoding.ids)
            while len(ids) > ROW:
                yield torch.tensor(ids[: ROW + 1]), torch.tensor(weights[: ROW + 1])
                ids, weights = ids[ROW:], weights[ROW:]


def config(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=8,
        # Room for the longest real Spider prompts; training rows are ROW tokens long.
        max_position_embeddings=8192,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attention_dropout=0.0,
    )


def pretrain(
    out: Path, steps: int, batch: int, peak: float, workers: int, seed: int = 7, minutes: float = 60.0
) -> None:
    """Train for `steps` steps of `batch` rows; learning rate warms up over 200 steps and falls to zero by a cosine."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(seed)
    torch.set_float32_matmul_precision("high")
    tokenizer = train_tokenizer()
    model = LlamaForCausalLM(config(tokenizer)).to(device)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters on {device}", flush=True)
    step_model = torch.compile(model) if device == "cuda" else model
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=peak, betas=(0.9, 0.95), weight_decay=0.05, fused=device == "cuda"
    )
    loader = DataLoader(
        Rows(tokenizer, seed), batch_size=batch, num_workers=workers, prefetch_factor=8 if workers else None
    )
    started = time.time()
    progress = 0.0
    for step, (ids, weights) in enumerate(loader):
        # `minutes` is for a trial on borrowed time: the schedule then ends with the clock.
        progress = max(step / steps, (time.time() - started) / (60 * minutes))
        if progress >= 1:
            break
        rate = peak * min(1.0, (step + 1) / 200) * 0.5 * (1 + math.cos(math.pi * progress))
        for group in optimizer.param_groups:
            group["lr"] = rate
        ids, weights = ids.to(device, non_blocking=True), weights.to(device, non_blocking=True)
        with torch.autocast(device, dtype=torch.bfloat16):
            logits = step_model(input_ids=ids[:, :-1], use_cache=False).logits
        losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none")
        weight = weights[:, 1:].flatten()
        loss = (losses * weight).sum() / weight.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 200 == 0:
            answers = losses[weight == ANSWER].mean()
            print(f"step {step} of {steps}  loss on answers {answers:.4f}  {time.time() - started:.0f} s", flush=True)
    print(f"{step} steps of {batch * ROW:,} tokens in {time.time() - started:.0f} s", flush=True)
    save(model, tokenizer, out)


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write the folder that `fetch_model` reads; weights are rounded to bfloat16, which halves the repository."""
    model.generation_config.eos_token_id = [tokenizer.eos_token_id]
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    print(json.dumps({p.name: p.stat().st_size for p in sorted(out.iterdir())}, indent=1), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=DEMO / "model")
    parser.add_argument("--steps", type=int, default=7000)
    parser.add_argument("--batch", type=int, default=128, help=f"rows of {ROW} tokens a step")
    parser.add_argument("--peak", type=float, default=2e-3, help="highest learning rate")
    parser.add_argument("--workers", type=int, default=15)
    parser.add_argument("--minutes", type=float, default=60.0, help="end the schedule after this time at the latest")
    arguments = parser.parse_args()
    pretrain(
        arguments.out, arguments.steps, arguments.batch, arguments.peak, arguments.workers, minutes=arguments.minutes
    )
