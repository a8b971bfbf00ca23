"""Python programs in processes of their own that need not import torch and trl, which takes seconds.

They are forks of one process that has imported these and done nothing else, so no thread and no state is handed on.
Where there is a CUDA GPU, which an import may begin to use, each imports them itself: CUDA does not survive a fork.
"""

import json
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

SCRIPTS = Path(__file__).parents[2] / "scripts"
SERVER = """
import gc, json, os, sys, traceback
from llm import trainer, training
gc.freeze()
for line in sys.stdin:
    given = json.loads(line)
    child = os.fork()
    if child == 0:
        for number, path in ((1, given["stdout"]), (2, given["stderr"])):
            os.dup2(os.open(path, os.O_WRONLY), number)
        sys.argv = ["-c", *given["arguments"]]
        status = 1
        try:
            exec(compile(given["program"], "<program>", "exec"), {"__name__": "__main__"})
            status = 0
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@cache
def _server() -> subprocess.Popen:
    """The process to fork from; it ends with this one, whose end closes its standard input."""
    return subprocess.Popen(
        [sys.executable, "-c", SERVER], cwd=SCRIPTS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def run(program: str, *arguments: str) -> subprocess.CompletedProcess:
    """Run a program as `python -c` does, in the folder of the scripts; a signal that ended it is a negative status."""
    import torch

    if torch.cuda.is_available():
        command = [sys.executable, "-c", program, *arguments]
        return subprocess.run(command, cwd=SCRIPTS, capture_output=True, text=True, check=False)
    server = _server()
    with tempfile.NamedTemporaryFile("r") as stdout, tempfile.NamedTemporaryFile("r") as stderr:
        given = {"program": program, "arguments": arguments, "stdout": stdout.name, "stderr": stderr.name}
        print(json.dumps(given), file=server.stdin, flush=True)
        answer = server.stdout.readline()
        assert answer, "the process to fork from has ended"
        return subprocess.CompletedProcess(arguments, int(answer), stdout.read(), stderr.read())
