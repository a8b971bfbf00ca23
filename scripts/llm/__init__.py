"""The only room that imports the model libraries."""

import logging
import os

# On a CPU bitsandbytes advises, at its import, to install a library that downloads programs from a hub.
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(lambda record: "pip install" not in record.getMessage())

# Nothing is compiled by torch here. At its import bitsandbytes asks for it, and torch would import its whole compiler.
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
