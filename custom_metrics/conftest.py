"""DeepEval's settings for `test_text_to_sql.py`: nothing is sent anywhere, and nothing is written case by case.

As it comes, DeepEval writes the whole run to its cache folder after every case, which makes the time quadratic in their
number, and two runs in one folder overwrite each other's files. Its read-only mode keeps the run in memory.
"""

import atexit
import importlib
import os
import shutil
import sys
import tempfile

os.environ["DEEPEVAL_TELEMETRY_OPT_OUT"] = "YES"
os.environ["DEEPEVAL_DISABLE_DOTENV"] = "1"
os.environ["DEEPEVAL_FILE_SYSTEM"] = "READ_ONLY"
# Empty, because a key from a file would fill an absent one; with a key, DeepEval uploads every run.
os.environ["CONFIDENT_API_KEY"] = ""

if "deepeval" not in sys.modules:
    # What DeepEval writes or deletes all the same belongs to this run alone.
    if "DEEPEVAL_CACHE_FOLDER" not in os.environ:
        os.environ["DEEPEVAL_CACHE_FOLDER"] = tempfile.mkdtemp(prefix="deepeval-")
        atexit.register(shutil.rmtree, os.environ["DEEPEVAL_CACHE_FOLDER"], ignore_errors=True)
else:
    # `deepeval test run`, or pytest with DeepEval's plugin, has imported it before this file. What the mode does on
    # import is to leave out the library that locks the files, without which none is written; so the same is done late.
    for name in ("deepeval.test_run.test_run", "deepeval.test_run.cache", "deepeval.evaluate.local_store"):
        importlib.import_module(name).portalocker = None
