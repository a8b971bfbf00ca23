"""Tiny models with random weights, made from nothing, whose tokenizers and templates behave like the large ones'."""

import json
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from common.files import sha256_file, sha256_json, write_json, write_jsonl
from tasks.spider import FIELDS
from thinkers import PLAIN, THINKERS

CORPUS = [
    "SELECT name , count(*) FROM singer WHERE age > 20 GROUP BY country ORDER BY name DESC LIMIT 1",
    "singer (singer_id, name, country) Question: How many singers are there? SQL: SELECT count(*) FROM singer",
    "The following are multiple choice questions (with answers) about world religions. A. B. C. D. Answer: A",
    "You translate questions into SQLite queries. Reply with one SQL query and nothing else.",
] * 3

LLAMA3 = (
    "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}"
    "{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% if message['role'] == 'assistant' %}{% set role = 'model' %}{% else %}"
    "{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim"
    " + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)

SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

# Template, special tokens, BOS, EOS, pad, and the EOS of the generation config, of each kind.
KINDS = {
    "llama3": {
        "template": LLAMA3,
        "special": [
            "<|begin_of_text|>",
            "<|end_of_text|>",
            "<|start_header_id|>",
            "<|end_header_id|>",
            "<|eot_id|>",
            "<|reserved_special_token_0|>",
        ],
        "bos": "<|begin_of_text|>",
        "eos": "<|eot_id|>",
        "pad": None,
        "generation_eos": ["<|end_of_text|>", "<|eot_id|>"],
    },
    "mistral": {
        "template": MISTRAL,
        "special": ["<unk>", "<s>", "</s>"],
        "bos": "<s>",
        "eos": "</s>",
        "pad": None,
        "generation_eos": ["</s>"],
    },
    "gemma": {
        "template": GEMMA,
        "special": ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"],
        "bos": "<bos>",
        "eos": "<eos>",
        "pad": "<pad>",
        # As google/gemma-2b-it has it: the end of turn is not among them.
        "generation_eos": ["<eos>"],
    },
    # BOS begins every turn, pad is EOS, and nothing is called a token to pad with.
    "smollm2": {
        "template": SMOLLM2,
        "special": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        "bos": "<|im_start|>",
        "eos": "<|im_end|>",
        "pad": "<|im_end|>",
        "unk": "<|endoftext|>",
        "generation_eos": ["<|im_end|>"],
    },
}
EVERY = KINDS | PLAIN | THINKERS
BYTE_LEVEL = ("llama3", "smollm2", *PLAIN, *THINKERS)


def make_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """Return a tokenizer of the `kind`: byte-level BPE for some, BPE over "▁" as SentencePiece does it for others."""
    facts = EVERY[kind]
    special = facts["special"]
    if kind in BYTE_LEVEL:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        if kind == "mistral":  # Llama's: a space before a text, dropped again when decoding
            tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
            last = [decoders.Strip(" ", 1, 0)]
        else:
            tokenizer.normalizer = normalizers.Replace(" ", "▁")
            last = []
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *last]
        )
        alphabet = [chr(i) for i in range(33, 127)] + ["▁", "\n"]
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=special + ([] if kind in BYTE_LEVEL else [f"<0x{i:02X}>" for i in range(256)]),
        initial_alphabet=alphabet,
        show_progress=False,
    )
    pieces = CORPUS if kind in BYTE_LEVEL else [w for line in CORPUS for w in line.split()]
    tokenizer.train_from_iterator(pieces, trainer)
    if kind not in BYTE_LEVEL:
        # What the trainer took for special are ordinary pieces of the vocabulary, only the named ones are special.
        state = json.loads(tokenizer.to_str())
        state["added_tokens"] = []
        tokenizer = Tokenizer.from_str(json.dumps(state))
        tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    bos = facts["bos"]
    if bos and kind != "smollm2":
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=bos,
        eos_token=facts["eos"],
        pad_token=facts["pad"],
        unk_token=facts.get("unk", "<unk>" if "<unk>" in special else None),
        chat_template=facts["template"],
    )


def make_model(folder: Path, kind: str = "llama3", context: int = 2048, seed: int = 0, **special) -> Path:
    """Write a two-layer Llama with random weights and a tokenizer of the `kind` into `folder`, and return its record.

    The record, a JSON file as `fetch_model` writes it, lies beside the folder. `special` overrides the tokenizer's
    attributes, such as chat_template=None.
    """
    tokenizer = make_tokenizer(kind)
    for name, value in special.items():
        setattr(tokenizer, name, value)
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=context,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            initializer_range=0.3,  # so that the logits of a random model differ clearly
        )
    )
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids(EVERY[kind]["generation_eos"])
    # What checkpoints recommend for sampling must not leak into greedy decoding.
    model.generation_config.update(do_sample=True, temperature=0.6, top_p=0.9)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
        for path in sorted(folder.iterdir())
        if path.is_file()
    }
    record = folder.with_name(f"{folder.name}.json")
    write_json(
        record,
        {
            "name": "tiny",
            "source": "example/tiny",
            "revision": None,
            "commit": None,
            "path": str(folder),
            "files": files,
            "sha256": sha256_json(files),
        },
    )
    return record


SCHEMA = {
    "db_id": "concert",
    "table_names_original": ["singer", "song"],
    "column_names_original": [[-1, "*"], [0, "singer_id"], [0, "name"], [0, "age"], [1, "song_id"], [1, "singer_id"]],
    "column_types": ["text", "number", "text", "number", "number", "number"],
    "primary_keys": [1, 4],
    "foreign_keys": [[5, 1]],
}


def spider_rows(stem: str, count: int, offset: int = 0) -> list[dict]:
    """Return `count` questions on the database of `SCHEMA`, as `prepare` writes them."""
    return [
        {
            "id": f"{stem}-{i:05d}",
            "db_id": "concert",
            "question": f"Which singers are older than {i}?" + " Please." * (i % 3),
            "query": f"SELECT name  ,  age FROM singer WHERE age > {i}" + " AND name != 'Zoë , it''s'" * (i % 2),
            "hardness": "easy",
        }
        for i in range(offset, offset + count)
    ]


def write_splits(folder: Path, train: int = 12, test: int = 6, validation: int = 0) -> None:
    """Write data/ and splits/ of a study below `folder`: Spider's files, shots, train, validation and test."""
    rows = spider_rows("dev", test, offset=500)
    write_json(folder / "data/spider/tables.json", [SCHEMA])
    write_json(folder / "data/spider/manifest.json", {})
    write_json(folder / "data/spider/dev.json", [{key: row[key] for key in FIELDS} for row in rows])
    write_jsonl(folder / "splits/shots.jsonl", spider_rows("train_spider", 2))
    write_jsonl(folder / "splits/train.jsonl", spider_rows("train_spider", train, offset=2))
    write_jsonl(folder / "splits/validation.jsonl", spider_rows("train_spider", validation, offset=300))
    write_jsonl(folder / "splits/test.jsonl", rows)


ABOUT = {"kind": "spider", "name": "tasks.spider", "role": "target", "shots": 2}
SPIDER_SETTINGS = ABOUT | {"system": "You write SQL.", "schema": "compact", "sample_rows": 3}
OF_PART = {True: {"max_new_tokens": 12}, False: {"loss_on": "completion"}}


def words(name: str) -> Path:
    """A prompt template of the repository."""
    return Path(__file__).parents[2] / f"resources/prompts/{name}.jinja"


def render(folder: Path, record: Path, part: str, template: str = "text_to_sql", **settings) -> Path:
    """Render a part that `write_splits` wrote, and return the prompts file; its report lies beside it."""
    from render import render as step

    prompts = folder / "prompts" / f"{part}.jsonl"
    inputs = {
        "rows": folder / f"splits/{part.partition('_')[0]}.jsonl",
        "shots": folder / "splits/shots.jsonl",
        "manifest": folder / "data/spider/manifest.json",
        "record": record,
    }
    step(inputs, words(template), {**SPIDER_SETTINGS, **OF_PART[part.startswith("test")], **settings}, prompts)
    return prompts


def audited_study(folder: Path) -> Path:
    """A study up to the audit of its rows to train on, below `folder`; returns the model's record."""
    write_splits(folder)
    record = make_model(folder / "model")
    render(folder, record, "train")
    audit(folder, record)
    return record


def audit(folder: Path, record: Path, max_length: int | None = 1024, **settings) -> Path:
    """Audit the rendered training prompts, and the validation prompts if there are any; return the report."""
    from audit_labels import audit_labels

    files = {"prompts": folder / "prompts/train.jsonl", "record": record}
    files |= {"rows": folder / "splits/train.jsonl", "shots": folder / "splits/shots.jsonl"}
    files["manifest"] = folder / "data/spider/manifest.json"
    if (folder / "prompts/validation.jsonl").is_file():
        files["validation"] = folder / "splits/validation.jsonl"
        files["validation_prompts"] = folder / "prompts/validation.jsonl"
    report = folder / "audit_labels.json"
    audit_labels(files, {**ABOUT, "cluster": "db_id", "max_length": max_length, **settings}, report)
    return report
