"""The answers so far, in a file that outlives a killed job."""

import json
import os
from pathlib import Path
from typing import Any


class Partial:
    """Answers by question, in a file whose first line says what they belong to; each other line is one batch.

    A line is flushed to disk. A last line that a kill has cut is dropped, and its batch is answered again as the same
    batch. The last line of a process that answered a share of the questions says how it did so: `facts`.
    """

    def __init__(self, path: Path, bound_to: str):
        self.path, self.bound_to = path, bound_to
        self.facts: dict[str, Any] = {}
        self.rows: dict[str, dict] = {}
        self.batch_size: int | None = None
        path.parent.mkdir(parents=True, exist_ok=True)
        self.stream = path.open("a+b")
        good = self._read()
        self.stream.truncate(good)
        if good == 0:
            self._write({"bound_to": bound_to})

    def _read(self) -> int:
        """Take over the answers in the file; how many of its bytes are good."""
        good = 0
        self.stream.seek(0)
        for line in self.stream:
            try:
                if not line.endswith(b"\n"):
                    raise ValueError
                entry = json.loads(line)
            except ValueError:
                print(f"{self.path}: its last line is cut and is dropped.", flush=True)
                break
            if good == 0 and entry != {"bound_to": self.bound_to}:
                print(f"{self.path}: answers to other prompts or settings found; starting over.", flush=True)
                break
            good += len(line)
            if "rows" in entry:
                self.rows |= {row["id"]: row for row in entry["rows"]}
                self.batch_size = entry["batch_size"]
            self.facts = entry.get("facts", {})
        return good

    def add(self, rows: list[dict], batch_size: int) -> None:
        """Keep the answers of one batch."""
        self.rows |= {row["id"]: row for row in rows}
        self.batch_size = batch_size
        self._write({"rows": rows, "batch_size": batch_size})

    def note(self, facts: dict[str, Any]) -> None:
        """Keep how the answers were made."""
        self._write({"facts": facts})

    def collect(self, path: Path) -> dict[str, Any]:
        """Take over the answers of another process, delete its file, and return its `facts`."""
        other = Partial(path, self.bound_to)
        fresh = [row for name, row in other.rows.items() if name not in self.rows]
        if fresh:
            self.add(fresh, min(size for size in (self.batch_size, other.batch_size) if size is not None))
        other.close(remove=True)
        return other.facts

    def _write(self, entry: dict) -> None:
        self.stream.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
        self.stream.flush()
        os.fsync(self.stream.fileno())

    def close(self, remove: bool) -> None:
        """Close the file; delete it if its answers are written elsewhere."""
        self.stream.close()
        if remove:
            self.path.unlink()


def share_paths(answers: str | Path) -> list[Path]:
    """The files that processes on several GPUs have left: `<answers>.partial.gpu<N>.jsonl`."""
    answers = Path(answers)
    return sorted(answers.parent.glob(f"{answers.name}.partial.gpu*.jsonl"))
