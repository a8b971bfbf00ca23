"""Average several LoRA adapters of one base model into one (a model soup, Wortsman et al. 2022, arXiv:2203.05482)."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM

import _path  # noqa: F401
from common.files import UserError, read_json
from common.job import job
from llm.training import write_adapter


def soup(adapter_dirs: Sequence[str | Path], record: str | Path, output_dir: str | Path) -> None:
    """Write the adapter that adds to each weight the mean of what the given ones add.

    That is the mean of (alpha / r) B A over the adapters, not of A and of B, whose product is another matrix. PEFT's
    combination "cat" puts the A below each other and the B beside each other, so that the sum of the products is exact;
    its rank is the sum of the ranks. No weight of the base model is read.

    Args:
        adapter_dirs: folders of adapters on the model of `record`.
        record: the model record.
        output_dir: the folder for adapter_model.safetensors and adapter_config.json.

    Raises:
        UserError: an adapter cannot be read.
    """
    base = read_json(record)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base["path"], local_files_only=True))
    # Memory that is never written takes no room: PEFT must find the layers, not their weights.
    model.to_empty(device="cpu")
    names = [f"adapter{number}" for number in range(len(adapter_dirs))]
    for name, folder in zip(names, map(str, adapter_dirs), strict=True):
        options = {"adapter_name": name, "torch_device": "cpu", "local_files_only": True}
        try:
            if name == names[0]:
                model = PeftModel.from_pretrained(model, folder, **options)
            else:
                model.load_adapter(folder, **options)
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(
                f"{folder}: cannot be read as an adapter of {base['source']} ({error}). Delete it and run snakemake "
                "again: it is then trained anew."
            ) from None
    # PEFT draws weights and multiplies them by 0 where an adapter has none, which keeps their sign.
    torch.manual_seed(0)
    model.add_weighted_adapter(names, [1 / len(names)] * len(names), "soup", combination_type="cat")
    with tempfile.TemporaryDirectory() as made:
        model.save_pretrained(made, selected_adapters=["soup"])
        write_adapter(Path(made, "soup"), Path(output_dir), base["source"])


if __name__ == "__main__":
    with job(snakemake.log[0]):
        torch.set_num_threads(snakemake.threads)
        soup(
            # Two files of each adapter.
            adapter_dirs=list(dict.fromkeys(str(Path(file).parent) for file in snakemake.input.adapters)),
            record=snakemake.input.record,
            output_dir=Path(snakemake.output.weights).parent,
            **snakemake.params.settings,
        )
