"""The words of a language: `words.<language>.yaml` as one nested mapping, read once."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent
LANGUAGES = ("en", "pt")


@cache
def read_words(language: str) -> dict[str, Any]:
    """Return the words of a language, one of `LANGUAGES`, as nested mappings of text."""
    return yaml.safe_load((FOLDER / f"words.{language}.yaml").read_text(encoding="utf-8"))
