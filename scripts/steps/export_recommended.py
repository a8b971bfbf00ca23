"""Write what is recommended of each model into a folder that plain PEFT or transformers load, with its model card."""

import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import _path  # noqa: F401
from common.files import ADAPTER_FILES, UserError, read_json, sha256_file, write_json
from common.job import job, versions
from present.stamp import stamp
from study.unfold import BASE, recommended_folder

# The numbers of questions of the official release, whose name and licence the card then gives.
SPIDER = {"train_spider": 7000, "train_others": 1659, "dev": 1034}
MEASURES = {"execution_accuracy": "Spider execution accuracy", "mmlu": "MMLU"}
DTYPES = {"fp32": "torch.float32", "bf16": "torch.bfloat16", "nf4": "torch.bfloat16"}
PROMPT = "prompt.txt"
WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "config.json")


def export_recommended(
    decision: str | Path,
    runs: str | Path,
    records: Sequence[str | Path],
    prompts: Sequence[str | Path],
    base_prompts: Sequence[str | Path],
    spider: str | Path,
    folder: str | Path,
    study: str,
    folders: Mapping[str, str],
    precisions: Mapping[str, str],
    merge: bool,
    merge_adapters: bool,
    known_defects: Sequence[str] = (),
    accept_defect: Sequence[str] = (),
) -> None:
    """Write the folder, of several models one folder each in it; all of it appears at once, in place of an older one.

    Each has README.md (the model card), recommendation.json, prompt.txt (the study's first question as a prompt), and
    the adapter or the merged model; neither where the base model itself is recommended.

    Args:
        decision: what `recommend` chose.
        runs: the folder of <model>/<variant>/.
        records, prompts, base_prompts, spider: of each model the record and the reports of its prompts, of adapters and
            of the base model; the manifest of `fetch_spider`.
        study: the study's name.
        folders: of each variant the folder of its adapter, below its model's.
        precisions: of each model fp32, bf16 or nf4.
        merge: write whole models, with the adapter merged into the weights.
        merge_adapters: whether the study evaluated its adapters merged.
        known_defects, accept_defect: what is said of the method, and which failures of the audit it ran with.

    Raises:
        UserError: an adapter or a model cannot be read.
    """
    folder = Path(folder)
    staging = folder.with_name(f".{folder.name}.{platform.node()}.{os.getpid()}.tmp")
    decided, data = read_json(decision), read_json(spider)
    models = {record["name"]: record for record in map(read_json, records)}
    reports = {
        of_base: {Path(path).parts[-3]: read_json(path) for path in paths}
        for of_base, paths in ((False, prompts), (True, base_prompts))
    }
    try:
        for chosen in decided:
            model, variant = chosen["model"], chosen["variant"]
            place = recommended_folder(staging, models, model)
            place.mkdir(parents=True)
            record, report = models[model], reports[variant == BASE][model]
            if variant != BASE:
                source = Path(runs) / model / folders[variant]
                write_adapter(source, place, record, chosen["point"].get("strength", 1.0))
                chosen["adapter"] = read_json(place / ADAPTER_FILES[1])
                if merge:
                    merge_into(record, precisions[model], place)
            # As bytes: a prompt may hold any line ends.
            (place / PROMPT).write_bytes(report["first_prompt"].encode())
            facts = {
                "study": study,
                "base": {key: record[key] for key in ("source", "commit", "sha256")},
                "precision": precisions[model],
                "merged": merge and variant != BASE,
                "prompts": {key: report[key] for key in ("settings", "shots", "template", "sha256")},
                "versions": versions(),
                "files": {path.name: sha256_file(path) for path in sorted(place.iterdir())},
            }
            write_json(place / "recommendation.json", chosen | facts)
            defects = stamp(known_defects, accept_defect)
            local = record["source"]
            if not Path(local).is_absolute():
                local = os.path.relpath(Path(local).resolve(), (folder / place.relative_to(staging)).resolve())
            page = card(chosen | facts, data, merge_adapters, defects, local)
            (place / "README.md").write_text(page, encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        staging.replace(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def write_adapter(source: Path, place: Path, record: Mapping, strength: float) -> None:
    """Write an adapter with its strength in its configuration: lora_alpha is multiplied by it, the weights stay.

    So PEFT computes the very numbers of the evaluation, (alpha / r) B A x, and the file has the training's hash.
    """
    config = read_json(source / ADAPTER_FILES[1])

    def scaled(alpha: float) -> float:
        alpha *= strength
        return int(alpha) if float(alpha).is_integer() else alpha

    config["lora_alpha"] = scaled(config["lora_alpha"])
    config["alpha_pattern"] = {name: scaled(alpha) for name, alpha in (config.get("alpha_pattern") or {}).items()}
    config |= {"base_model_name_or_path": record["source"], "revision": record["commit"]}
    write_json(place / ADAPTER_FILES[1], config)
    try:
        shutil.copyfile(source / ADAPTER_FILES[0], place / ADAPTER_FILES[0])
    except FileNotFoundError as error:
        raise UserError(
            f"{error.filename}: no such file. Run snakemake again: the adapter is then made anew."
        ) from None


def merge_into(record: Mapping, precision: str, place: Path) -> None:
    """Put the whole model, its adapter merged into the weights, and its tokenizer in the adapter's place.

    The sum is rounded to the precision of the weights. On the CPU, so that no card is needed.

    Raises:
        UserError: the adapter does not fit the model, or merged weights are not finite.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, GenerationConfig

    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    path = Path(record["path"])
    try:
        model = AutoModelForCausalLM.from_pretrained(path, local_files_only=True, dtype=dtype)
        model = PeftModel.from_pretrained(model, str(place), torch_device="cpu").merge_and_unload(safe_merge=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{path}: the recommended adapter cannot be merged into it ({error}).") from None
    for name in ADAPTER_FILES:
        (place / name).unlink()
    # What a checkpoint recommends for sampling need not be valid, which is refused here; its file is copied below.
    model.generation_config = GenerationConfig()
    model.save_pretrained(place)
    for name in record["files"]:
        if not any(Path(name).match(pattern) for pattern in WEIGHTS):
            shutil.copyfile(path / name, place / name)


def card(facts: Mapping[str, Any], spider: Mapping, merge_adapters: bool, defects: str, local: str) -> str:
    """Return the model card, in the hub's format: what it is, its measured trade-off, how it was chosen, its limits.

    `local` is where the base model, if it is a folder, lies as seen from the card.
    """
    from huggingface_hub import ModelCardData

    base, variant, own = facts["base"], facts["variant"], facts["variant"] != BASE
    official, on_hub = spider["counts"] == SPIDER, base["commit"] is not None
    head = ModelCardData(
        language="en",
        license="other" if on_hub else "unknown",
        license_name="that-of-the-base-model" if on_hub else None,
        license_link=f"https://huggingface.co/{base['source']}" if on_hub else None,
        library_name="peft" if own and not facts["merged"] else "transformers",
        pipeline_tag="text-generation",
        base_model=base["source"] if on_hub else None,
        datasets=["xlangai/spider"] if official else None,
        tags=["text-to-sql", *(["lora"] if own else [])],
    )
    name = f"`{base['source']}`" + (f" at commit `{base['commit']}`" if on_hub else "")
    sections = [
        f"---\n{head.to_yaml()}\n---",
        f"# {facts['study']}: {facts['model']} {variant}",
        what(facts, name),
        "## Measured trade-off\n\n" + tradeoff(facts),
        "## How it was chosen\n\n" + chosen_how(facts),
        "## How to load it\n\n" + loading(facts, merge_adapters, local),
        "## The prompt that it needs\n\n" + prompting(facts),
        "## Limits\n\n" + limits(facts) + ("\n" + defects.rstrip() if defects else ""),
        "## Licences and data\n\n" + licences(facts, spider, official, on_hub),
        "## What it is made of\n\n" + made_of(facts),
    ]
    return "\n\n".join(sections) + "\n"


def what(facts: Mapping, name: str) -> str:
    """Return what is recommended, in a paragraph."""
    study, variant = facts["study"], facts["variant"]
    if variant == BASE:
        return (
            f"**The study `{study}` recommends no adapter.** On the half of its questions that chose, none was shown "
            "to gain execution accuracy at an admitted loss of MMLU. What is recommended is the base model itself, "
            f"{name}: no weights lie here."
        )
    point, adapter = facts["point"], facts["adapter"]
    kind = f"the LoRA adapter `{variant}`"
    if "strength" in point:
        kind = f"the LoRA adapter `{point['of'][0]}` at strength {point['strength']:g}"
        kind += " (what it adds to each weight is multiplied by that; "
        kind += f"{'the weights have' if facts['merged'] else 'the `lora_alpha` in this folder has'} it already)"
    elif "step" in point:
        kind = f"the LoRA adapter `{point['of'][0]}` as it was after {point['step']} optimizer steps"
    elif "soup" in point:
        kind = f"the mean of the LoRA adapters {', '.join(f'`{one}`' for one in point['of'])}"
    swept = ", ".join(f"{key} {value}" for key, value in facts["settings"].items())
    merged = " merged into the weights" if facts["merged"] else ""
    return (
        f"{kind[0].upper()}{kind[1:]}{merged}, on {name}, trained to translate questions into SQLite queries. Rank "
        f"{adapter['r']}, lora_alpha {adapter['lora_alpha']:g}{f', {swept}' if swept else ''}. It is what the study "
        f"`{study}` of the LoRA Trade-off workflow recommends."
    )


def tradeoff(facts: Mapping) -> str:
    """Return the figures of the report half, as a table."""
    level, rows = f"{100 * facts['criterion']['confidence_level']:g}%", []
    for measure, found in facts["report"]["figures"].items():
        difference, p = "n/a", "n/a"
        if facts["variant"] != BASE:
            difference = interval(found)
            p = "< 0.001" if found["p"] < 0.001 else f"{found['p']:.3f}"
        cells = [MEASURES[measure], f"{found['n']} ({found['clusters']})", f"{found['base_accuracy_pct']:.1f}"]
        cells += [f"{found['tuned_accuracy_pct']:.1f}", difference, p, found["verdict"]]
        rows.append(f"| {' | '.join(cells)} |")
    units = {found["unit"] for found in facts["report"]["figures"].values()}
    text = (
        f"| Measure | n (databases, subjects) | Base % | This % | Difference pp ({level} interval) | p | Verdict |\n"
        "| --- | --: | --: | --: | --: | --: | --- |\n" + "\n".join(rows) + "\n\n"
        "On the half of the study's questions that had no part in the choice: these figures are not the best of "
        f"several. Execution accuracy with {facts['criterion']['semantics']} semantics on Spider's dev questions or a "
        "part of them. Base and this model were given the same questions; the differences are paired."
    )
    if "question" in units and facts["variant"] != BASE:
        text += (
            " Where there are few databases or subjects, the questions are taken as drawn at random, and interval and "
            "verdict hold for these databases or subjects alone."
        )
    return text


def chosen_how(facts: Mapping) -> str:
    """Return the rule, and what the half that chose says."""
    figures, cap = facts["validation"]["figures"], facts["criterion"]["max_loss_pp"]
    level = f"{100 * facts['criterion']['confidence_level']:g}%"
    gain, loss = figures["execution_accuracy"], figures["mmlu"]
    rule = (
        "whose loss of MMLU cannot be told from none"
        if cap is None
        else f"whose loss of MMLU stays within {cap:g} pp, by its {level} interval"
    )
    text = (
        f"On the validation half ({gain['n']} Spider questions, {loss['n']} of MMLU; seed {facts['seed']}) the "
        f"candidate that gains most execution accuracy among those that are shown to gain and {rule}: "
        f"{facts['admissible']} of {facts['candidates']} adapters, strengths, steps and soups."
    )
    if facts["variant"] == BASE:
        return text
    text += (
        f" There execution accuracy changed by {interval(gain)} pp and MMLU by {interval(loss)} pp; these two are the "
        "figures of a winner and more likely too good than too bad."
    )
    if cap is None and loss["minimum_detectable_pp"] is not None:
        text += (
            f" A loss of less than {loss['minimum_detectable_pp']:.1f} pp would more often than one time in five have "
            "gone unseen there."
        )
    return text


def interval(found: Mapping) -> str:
    """Return a difference with its interval, zero without a sign."""
    values = (f"{found[key]:+.1f}" for key in ("difference_pp", "ci_low_pp", "ci_high_pp"))
    value, low, high = ("0.0" if text in ("+0.0", "-0.0") else text for text in values)
    return f"{value} ({low} to {high})"


def loading(facts: Mapping, merge_adapters: bool, local: str) -> str:
    """Return Python code that loads it and answers prompt.txt as the study did."""
    base, precision, own = facts["base"], facts["precision"], facts["variant"] != BASE
    prompts = facts["prompts"]
    revision = f", revision={base['commit']!r}" if base["commit"] else ""
    at_base = f"{base['source']!r}{revision}".replace("'", '"')
    whole = '"."' if facts["merged"] else at_base
    options = f"dtype={DTYPES[precision]}"
    lines = ["from pathlib import Path", "", "import torch"]
    lines += ["from peft import PeftModel"] if own and not facts["merged"] else []
    imports = ["AutoModelForCausalLM", "AutoTokenizer"]
    if precision == "nf4":
        imports.append("BitsAndBytesConfig")
    lines += [f"from transformers import {', '.join(imports)}", ""]
    if precision == "nf4":
        lines += [
            "quantization = BitsAndBytesConfig(",
            '    load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,',
            "    bnb_4bit_compute_dtype=torch.bfloat16,",
            ")",
        ]
        options += ", quantization_config=quantization"
    lines += [
        f"model = AutoModelForCausalLM.from_pretrained({whole}, {options})",
        *(['model = PeftModel.from_pretrained(model, ".")'] if own and not facts["merged"] else []),
        f"tokenizer = AutoTokenizer.from_pretrained({whole})",
        f'prompt = Path("{PROMPT}").read_bytes().decode()',
        'given = tokenizer(prompt, add_special_tokens=False, return_tensors="pt").to(model.device)',
        "answer = model.generate(",
        f"    **given, do_sample=False, max_new_tokens={prompts['settings']['max_new_tokens']},",
        f"    eos_token_id={prompts['template']['stop_ids']}, pad_token_id={prompts['template']['pad_id']},",
        ")",
        'print(tokenizer.decode(answer[0, given["input_ids"].shape[1] :], skip_special_tokens=True))',
    ]
    where = "In this folder"
    if not base["commit"] and not facts["merged"]:
        where += ", `base` being where the base model lies, as seen from here"
        lines = [line.replace(at_base, "base") for line in lines]
        place = next(i for i, line in enumerate(lines) if line.startswith(("quantization =", "model =")))
        lines.insert(place, f'base = "{local}"')
    text = f"{where}:\n\n```python\n" + "\n".join(lines) + "\n```\n\n"
    text += f"The study computed in {precision}; in another precision the figures above do not hold exactly."
    if facts["merged"] != merge_adapters and own:
        beside, merged = "beside the weights", "merged into them"
        asked, here = (merged, beside) if merge_adapters else (beside, merged)
        text += (
            f" It evaluated the adapter {asked}; here it is {here}, which rounds otherwise: a few answers may differ."
        )
    return text


def prompting(facts: Mapping) -> str:
    """Return how a prompt is made."""
    settings = facts["prompts"]["settings"]
    return (
        f"`{PROMPT}` is the study's first question as the model saw it: the model's own chat template around the "
        f"system text \u201c{settings['system']}\u201d, {len(facts['prompts']['shots'])} solved examples, the schema "
        f"(form `{settings['schema']}`, style `{settings['style']}`) and the question. Tokenise it without special "
        "tokens. Prompts of another form were not measured."
    )


def limits(facts: Mapping) -> str:
    """Return what it is not to be used for."""
    return (
        "* The figures are for SQLite on the databases of the study, in English. They say nothing of other dialects, "
        "languages or schemas far larger than these.\n"
        "* MMLU stands for general knowledge alone. What else training changed (instruction following, safety, other "
        "tasks) was not measured.\n"
        "* Do not run its SQL with rights to write, or on data that who asks may not read: it may be wrong or harmful."
    )


def licences(facts: Mapping, spider: Mapping, official: bool, on_hub: bool) -> str:
    """Return what is known of the licences."""
    source = facts["base"]["source"]
    data = (
        "Trained on Spider (Yu et al. 2018), CC BY-SA 4.0: name it where you pass this on."
        if official
        else f"Trained on questions in Spider's format from `{spider['source']}`, whose licence is its own."
    )
    if facts["variant"] == BASE:
        data = ""
    model = (
        f"The base model's licence holds for what is made of it, and so do the terms of a gated model: see "
        f"https://huggingface.co/{source}."
        if on_hub
        else f"The base model is the folder `{source}`, of whose licence nothing is recorded; it holds for what is "
        "made of it."
    )
    return " ".join(part for part in (model, data) if part)


def made_of(facts: Mapping) -> str:
    """Return hashes and versions, as a list."""
    lines = [f"* Base model, all files: sha256 `{facts['base']['sha256']}`"]
    lines += [f"* `{name}`: sha256 `{sha256}`" for name, sha256 in facts["files"].items()]
    for half in ("validation", "report"):
        for measure, sha256 in facts[half]["sha256"].items():
            lines.append(f"* {MEASURES[measure]} questions, {half} half: sha256 `{sha256}`")
    lines.append("* " + ", ".join(f"{name} {version}" for name, version in facts["versions"].items()))
    return "\n".join(lines)


if __name__ == "__main__":
    with job(snakemake.log[0]):
        export_recommended(
            decision=snakemake.input.decision,
            runs=Path(snakemake.output.folder).parent / "runs",
            records=snakemake.input.records,
            prompts=snakemake.input.prompts,
            base_prompts=snakemake.input.base_prompts,
            spider=snakemake.input.spider,
            folder=snakemake.output.folder,
            **snakemake.params.settings,
        )
