"""The only room that imports the model libraries."""

import logging

# On a CPU bitsandbytes advises, at its import, to install a library that downloads programs from a hub.
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(lambda record: "pip install" not in record.getMessage())
