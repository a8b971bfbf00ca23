"""Write what is recommended of each model into a folder that plain PEFT or transformers load, with its model card."""

import os
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

import _path  # noqa: F401
from common.files import ADAPTER_FILES, FULL, UserError, check_files, fully_tuned, read_json, sha256_file, write_json
from common.job import job, versions
from common.weights import QUANTISED, check_adapter
from present.conclusion import conclusion
from present.format import Say
from present.templates import render
from present.values import ALL, RIGHT
from study.unfold import BASE, recommended_folder
from tasks.registry import measured

# The numbers of questions of the official release, whose name and licence the model card then gives.
SPIDER = {"train_spider": 7000, "train_others": 1659, "dev": 1034}
PROMPT = "prompt.txt"


def export_recommended(inputs: Mapping[str, Any], folder: str | Path, settings: Mapping[str, Any]) -> None:
    """Write the folder, of several models one folder each in it; all of it appears at once, in place of an older one.

    Each has README.md (the model card), recommendation.json, prompt.txt (the study's first question as a prompt), and
    the adapter or the merged model; neither where the base model itself is recommended. The adapters are looked for in
    runs/<model>/ beside the folder.

    Args:
        inputs: `decision`: what `recommend` chose; of each model `records`, and `prompts` and `base_prompts`: the
            reports of the target's prompts for adapters and the base model; `source`: the manifest of its data.
        settings: the rule's. `folders`: of each variant the folder of its adapter, below its model's; `precisions`: of
            each model its precision, and `base_precisions` of those whose base has another one, if any; `merge`: write
            whole models, with the adapter merged into the weights (of full fine-tuning they are written anyway);
            `merge_adapters`: whether the study evaluated its adapters merged.

    Raises:
        UserError: an adapter or a model cannot be read.
    """
    folder = Path(folder)
    staging = folder.with_name(f".{folder.name}.{platform.node()}.{os.getpid()}.tmp")
    models = {record["name"]: record for record in map(read_json, inputs["records"])}
    prompts = {
        name: {Path(path).parent.name: read_json(path) for path in inputs[name]} for name in ("prompts", "base_prompts")
    }
    manifest = read_json(inputs["source"])
    try:
        for chosen in read_json(inputs["decision"]):
            model, variant = chosen["model"], chosen["variant"]
            record, place = models[model], recommended_folder(staging, models, model)
            place.mkdir(parents=True)
            if variant != BASE:
                source = folder.parent / "runs" / model / settings["folders"][variant]
                strength = chosen["point"].get("strength", 1.0)
                write_adapter(source, place, record, strength)
                chosen["adapter"] = read_json(place / ADAPTER_FILES[1])
                whole = fully_tuned(place)
                if settings["merge"] or whole:
                    from llm.adapters import merge_into  # torch takes seconds

                    merge_into(record, settings["precisions"][model], place, strength if whole else 1.0)
            own = prompts["base_prompts" if variant == BASE else "prompts"]
            chosen["merged"] = variant != BASE and not (place / ADAPTER_FILES[0]).exists()
            facts = chosen | describe(place, record, own[model], settings)
            if variant == BASE:
                facts["precision"] = settings.get("base_precisions", {}).get(model, facts["precision"])
            write_json(place / "recommendation.json", facts)
            local = record["source"]
            if not Path(local).is_absolute():
                local = os.path.relpath(Path(local).resolve(), (folder / place.relative_to(staging)).resolve())
            (place / "README.md").write_text(card(facts, manifest, local, settings), encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        staging.replace(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def describe(place: Path, record: Mapping, prompts: Mapping, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Write prompt.txt, and say of what the folder is made; the adapter or the model lies there already."""
    # As bytes: a prompt may hold any line ends.
    (place / PROMPT).write_bytes(prompts["first_prompt"].encode())
    return {
        "study": settings["study"],
        "base": {key: record[key] for key in ("source", "commit", "sha256")},
        "precision": settings["precisions"][record["name"]],
        "prompts": {key: prompts[key] for key in ("settings", "shots", "template", "sha256")},
        "versions": versions(),
        "files": {path.name: sha256_file(path) for path in sorted(place.iterdir())},
    }


def write_adapter(source: Path, place: Path, record: Mapping, strength: float) -> None:
    """Write an adapter with its strength in its configuration: lora_alpha is multiplied by it, the weights stay.

    So PEFT computes the very numbers of the evaluation, (alpha / r) B A x, and the file has the training's hash. Files
    of full fine-tuning are copied as they are, for `llm.adapters.merge_into`.
    """
    config = read_json(source / ADAPTER_FILES[1])

    def scaled(alpha: float) -> float:
        alpha *= strength
        return int(alpha) if float(alpha).is_integer() else alpha

    if config["peft_type"] != FULL:
        config["lora_alpha"] = scaled(config["lora_alpha"])
        config["alpha_pattern"] = {name: scaled(alpha) for name, alpha in (config.get("alpha_pattern") or {}).items()}
    config |= {"base_model_name_or_path": record["source"], "revision": record["commit"]}
    write_json(place / ADAPTER_FILES[1], config)
    try:
        check_adapter(source)
        shutil.copyfile(source / ADAPTER_FILES[0], place / ADAPTER_FILES[0])
    except FileNotFoundError as error:
        raise UserError(
            f"{error.filename}: no such file. Run snakemake again: the adapter is then made anew."
        ) from None


def card(facts: Mapping[str, Any], manifest: Mapping, local: str, settings: Mapping[str, Any]) -> str:
    """Write the model card, in the hub's format: what it is, its measured trade-off, how it was chosen, its limits.

    Args:
        facts: what recommendation.json holds.
        manifest: that of the target's data.
        local: where the base model, if it is a folder, lies as seen from the model card.
        settings: those of `export_recommended`.
    """
    from huggingface_hub import ModelCardData

    base, own = facts["base"], facts["variant"] != BASE
    measures = measured(settings["tasks"])
    say = Say(settings["language"], measures)
    target, on_hub = next(iter(measures)), base["commit"] is not None
    official = settings["tasks"][target]["kind"] == "spider" and manifest["counts"] == SPIDER
    head = ModelCardData(
        language="en",
        license="other" if on_hub else "unknown",
        license_name="that-of-the-base-model" if on_hub else None,
        license_link=f"https://huggingface.co/{base['source']}" if on_hub else None,
        library_name="peft" if own and not facts["merged"] else "transformers",
        pipeline_tag="text-generation",
        base_model=base["source"] if on_hub else None,
        datasets=["xlangai/spider"] if official else None,
        tags=["text-to-sql"] * (measures[target].form == "sql")
        + ["lora"] * (own and facts["adapter"].get("peft_type") != FULL),
    )
    values = {"front_matter": Markup(head.to_yaml()), "official": official, "source": manifest["source"]}
    values["base_precision"] = settings.get("base_precisions", {}).get(facts["model"]) if own else None
    values |= {"local": local, "tasks": list(measures), "quantised": facts["precision"] in QUANTISED}
    own_row = {"model": facts["model"], "setting": facts["setting"], "category": ALL, "measure": RIGHT}
    own_row |= {"margin_pp": facts["criterion"]["margin_pp"]}
    found = pd.DataFrame([row | own_row | {"task": task} for task, row in facts["figures"].items()])
    values["answer"] = [Markup(line) for line in conclusion(found, None, say)] if own else []
    values["knowledge"] = any(use["kind"] == "mmlu" for use in settings["tasks"].values())
    return render(f"model_card.{say.language}.md.j2", say, {**settings, **facts, **values})


if __name__ == "__main__":
    with job(snakemake.log[0]):
        folders = {Path(file).parent for file in snakemake.input.adapters}
        if snakemake.params.settings["merge"] or any(map(fully_tuned, folders)):
            for record in snakemake.input.records:
                check_files(record)
        export_recommended(dict(snakemake.input.items()), snakemake.output.folder, snakemake.params.settings)
