"""Which keys TRL, PEFT, bitsandbytes and transformers take, and of what type: what `study/library_keys.json` holds."""

import enum
import re
import types
import typing
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

from peft import LoraConfig
from transformers import BitsAndBytesConfig, GenerationConfig
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from trl import SFTConfig

# The types of JSON, and what Python and docstrings call them.
TYPES = {
    "boolean": ("bool",),
    "integer": ("int",),
    "number": ("float",),
    "string": ("str",),
    "array": ("list", "tuple"),
    "object": ("dict",),
    "null": ("NoneType", "None"),
}
PACKAGES = ("trl", "peft", "transformers")
# What a study may misspell as a word.
WORDS = ("optim", "lr_scheduler_type")
NO_KEYS = ("kwargs", "quant_method", "transformers_version")


def library_keys() -> dict[str, dict[str, Any]]:
    """The versions of the libraries, and of each class that a study passes keys on to each key's types.

    Types are those of JSON, as in "number|null". A key without a type takes objects of Python alone. `words` are the
    names that a key of SFTConfig may have, where the library lists them.
    """
    hints = typing.get_type_hints(SFTConfig)
    words = {key: [str(word.value) for word in _enumerated(hints[key])] for key in WORDS}
    words["report_to"] = sorted(INTEGRATION_TO_CALLBACK)
    found: dict[str, dict[str, Any]] = {"words": words, "versions": {name: version(name) for name in PACKAGES}}
    for cls in (SFTConfig, LoraConfig):
        hints = typing.get_type_hints(cls)
        found[cls.__name__] = {key: _types(_names(hints[key])) for key in cls.__dataclass_fields__}
    for cls in (BitsAndBytesConfig, GenerationConfig):
        # Their arguments have no annotations. Docstrings say: key (`int`, *optional*): ...
        said = re.findall(r"^ +(\w+) ?\(`?(.+?)(?:, \*optional\*.*|, defaults .*)?\) ?:", cls.__doc__, re.MULTILINE)
        types_of = {key: _types(re.findall(r"\w+", words.partition("[")[0])) for key, words in said}
        keys = [key for key in (*types_of, *vars(cls())) if not key.startswith("_") and key not in NO_KEYS]
        found[cls.__name__] = {key: types_of.get(key, "") for key in dict.fromkeys(keys)}
    return found


def _enumerated(hint: Any) -> type[enum.Enum]:
    """The enumeration in an annotation."""
    return next(one for one in (hint, *typing.get_args(hint)) if isinstance(one, type) and issubclass(one, enum.Enum))


def _names(hint: Any) -> list[str]:
    """What Python calls the types of an annotation; of a choice of words, those of the words."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return [name for one in typing.get_args(hint) for name in _names(one)]
    if origin is typing.Literal:
        return [type(word).__name__ for word in typing.get_args(hint)]
    kind = origin or hint
    return ["str" if isinstance(kind, type) and issubclass(kind, enum.Enum) else getattr(kind, "__name__", "")]


def _types(names: Iterable[str]) -> str:
    return "|".join(kind for kind, called in TYPES.items() if set(called) & set(names))
