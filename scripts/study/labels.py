"""What the names of settings are made of: swept values, as short as can be."""

from decimal import Decimal
from typing import Any

from common.files import sha256_json
from study.schema import Rows

ROWS = "training.rows"
# The last part of a place in a label, if not the key itself; these come first, in this order.
SHORT = {
    "learning_rate": "lr", "r": "r", "lora_alpha": "alpha", "lora_dropout": "dropout", "target_modules": "modules",
    "num_train_epochs": "epochs", "max_steps": "steps", "per_device_train_batch_size": "batch",
    "train_questions": "rows", "rows": "rows", "weight_decay": "decay", "fraction": "replay", "kl": "kl", "method": "",
}  # fmt: skip


def plain(value: float) -> str:
    """Write a number without an exponent: 5e-05 as 0.00005, 2.0 as 2."""
    text = format(Decimal(repr(value)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def rows_label(rows: dict[str, Any] | None) -> str:
    """What a choice of training rows is called: all, 1000, 0.25, 1000-hardness, 1000-hardness-draw7."""
    if rows is None:
        return "all"
    number, seed = plain(rows["count"] if "count" in rows else rows["fraction"]), rows["seed"]
    usual = Rows.model_fields["seed"].default
    return "-".join([number, *filter(None, [rows.get("balance")]), *([f"draw{seed}"] if seed != usual else [])])


def in_label(value: Any, place: str = "") -> str:
    """A swept value in the name of a run."""
    if place == ROWS:
        return rows_label(value)
    if isinstance(value, list):
        return "+".join(map(in_label, value))
    if isinstance(value, dict):
        return sha256_json(value)[:6]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return plain(value)
    return "all" if value is None else str(value).lower()
