"""What a worker process is doing, in memory that it shares with the program.

It is written before each query, and read only when the process does not come back: that is far cheaper than a message.
What stands in it is taken for a name and two numbers, whoever wrote it.
"""

import mmap
import struct
import tempfile
import time
from typing import BinaryIO

_LAYOUT = struct.Struct("<Id32s")


class Stage:
    """Which of its tasks a process works at, at what in it, and since when by the clock that processes share.

    Args:
        descriptor: of a file that `new_file` made.
    """

    def __init__(self, descriptor: int):
        self._memory = mmap.mmap(descriptor, _LAYOUT.size)
        self._place = 0

    @staticmethod
    def new_file() -> BinaryIO:
        """Return a file without a name that both sides can map."""
        file = tempfile.TemporaryFile()  # noqa: SIM115 - whoever asks for it closes it
        file.truncate(_LAYOUT.size)
        return file

    def begin(self, place: int) -> None:
        """Note which task is worked at, counted from 0."""
        self._place = place
        self.tell("gold")

    def tell(self, name: str) -> None:
        """Note what comes next in it."""
        _LAYOUT.pack_into(self._memory, 0, self._place, time.monotonic(), name.encode())

    def read(self) -> tuple[int, str, float]:
        """Return the place of the task, the name of what is done, and for how many seconds that has been so."""
        place, since, name = _LAYOUT.unpack_from(self._memory)
        return place, name.rstrip(b"\0").decode(errors="replace"), time.monotonic() - since

    def close(self) -> None:
        self._memory.close()
