"""Put `scripts/` and the repository's root on the path: Snakemake makes only the script's own folder importable.

`--sdm conda` empties PYTHONPATH, so every step imports this module before it imports another of ours.
"""

import gc
import sys
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [path for path in (str(SCRIPTS), str(SCRIPTS.parent)) if path not in sys.path]

# A job of Snakemake's imports its libraries next, which makes a million objects and no garbage. To look for some takes
# a sixth of that time or more. `common.job.job` looks again.
if hasattr(sys.modules["__main__"], "snakemake"):
    gc.disable()
