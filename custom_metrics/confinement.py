"""Take from a process, through the Linux kernel and without root, all that running a query does not need.

What holds even for arbitrary code, such as a flaw in SQLite or DuckDB would let run:

- Landlock (Linux 5.13): of all files and folders, the contents of the given databases can be read, and nothing else be
  read, written, made or removed. From Linux 6.7 no TCP connection, from 6.12 no signal to other processes.
- seccomp (x86-64): no socket, no new process or program, no signal, no change of a file's name, owner, rights or times,
  no look into other processes, none of the large interfaces of the kernel that the past found flaws in.
- no_new_privs: no program that would run has more rights. Both need it.

Each is tried after it was set (`confine` returns the names of those that do not hold). Not held: sizes and times of
files can be seen, and the processor and memory be used up to the limits that `worker` and `process` set.
"""

import ctypes
import os
import platform
import socket
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
# include/uapi/linux/landlock.h. The numbers of these calls are the same on all machines.
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_LANDLOCK_VERSION, _LANDLOCK_PATH_BENEATH = 1, 1
_READ_FILE = 1 << 2
# Rights over files that each version of Landlock knows: the first has 13, then come REFER, TRUNCATE and IOCTL_DEV.
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
_LATER_RIGHTS = 16

# Numbers of x86-64 (arch/x86/entry/syscalls/syscall_64.tbl).
_REFUSED = (
    41, 42, 43, 49, 50, 53, 288,  # socket, connect, accept, bind, listen, socketpair, accept4
    56, 57, 58, 59, 322, 435,  # clone, fork, vfork, execve, execveat, clone3
    62, 200, 234, 424, 434, 438,  # kill, tkill, tgkill, pidfd_send_signal, pidfd_open, pidfd_getfd
    76, 82, 83, 84, 85, 86, 87, 88, 258, 259, 263, 264, 265, 266, 316,  # truncate, rename, mkdir, …, renameat2
    90, 91, 92, 93, 94, 132, 235, 260, 261, 268, 280, 452,  # chmod, chown, utime and their kin
    133, 188, 189, 190, 197, 198, 199,  # mknod, setxattr, removexattr
    101, 310, 311, 312,  # ptrace, process_vm_readv, process_vm_writev, kcmp
    135, 155, 161, 165, 166, 272, 308,  # personality, pivot_root, chroot, mount, umount2, unshare, setns
    175, 176, 248, 249, 250, 298, 304, 313, 319, 321, 323, 425, 426, 427,  # modules, keys, perf, handles, bpf, io_uring
)  # fmt: skip
_AUDIT_ARCH_X86_64 = 0xC000003E
_X32 = 0x40000000
_ALLOW, _EPERM = 0x7FFF0000, 0x00050000 | 1
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06


def confine(databases: Iterable[str]) -> list[str]:
    """Confine this process for good; return the names of what the kernel does not hold, each as its canary found it.

    Args:
        databases: files that it may still read. One that is not there is left out.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    if platform.system() == "Linux" and libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0:
        _landlock(libc, databases)
        if platform.machine() == "x86_64":
            _seccomp(libc)
    return [name for name, tried in _CANARIES.items() if not _is_refused(tried)]


def _landlock(libc: ctypes.CDLL, databases: Iterable[str]) -> None:
    version = libc.syscall(_LANDLOCK_CREATE, None, 0, _LANDLOCK_VERSION)
    if version < 1:
        return
    files = (1 << _RIGHTS.get(version, _LATER_RIGHTS)) - 1
    # Rights over files, over TCP (bind, connect), and scopes (abstract sockets, signals), as far as they are known.
    attributes = struct.pack("QQQ", files, 3, 3)[: 8 if version < 4 else 16 if version < 6 else 24]
    rules = libc.syscall(_LANDLOCK_CREATE, attributes, len(attributes), 0)
    if rules < 0:
        return
    for path in databases:
        with suppress(OSError):
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
            rule = struct.pack("=Qi", _READ_FILE, descriptor)
            libc.syscall(_LANDLOCK_ADD, rules, _LANDLOCK_PATH_BENEATH, rule, 0)
            os.close(descriptor)
    libc.syscall(_LANDLOCK_RESTRICT, rules, 0)
    os.close(rules)


def _seccomp(libc: ctypes.CDLL) -> None:
    """Load a filter: another machine's calls and those of `_REFUSED` fail with EPERM, all others pass."""
    refuse = len(_REFUSED) + 2

    def jump(code: int, value: int, equal: int, other: int) -> bytes:
        return struct.pack("HBBI", code, equal, other, value)

    program = [
        jump(_LOAD, 4, 0, 0),  # the machine
        jump(_EQUAL, _AUDIT_ARCH_X86_64, 0, refuse + 1),
        jump(_LOAD, 0, 0, 0),  # the number of the call
        jump(_AT_LEAST, _X32, refuse - 1, 0),
    ]
    program += [jump(_EQUAL, number, len(_REFUSED) - place, 0) for place, number in enumerate(_REFUSED)]
    program += [jump(_RETURN, _ALLOW, 0, 0), jump(_RETURN, _EPERM, 0, 0)]
    code = ctypes.create_string_buffer(b"".join(program))
    filters = struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))
    libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.c_char_p(filters), 0, 0)


def _read_another_file() -> None:
    os.close(os.open("/proc/self/cmdline", os.O_RDONLY))


def _fork() -> None:
    if (child := os.fork()) == 0:
        os._exit(0)
    os.waitpid(child, 0)


_CANARIES = {"Landlock": _read_another_file, "seccomp": lambda: (socket.socket().close(), _fork())}


def _is_refused(action: Callable[[], object]) -> bool:
    try:
        action()
    except PermissionError:
        return True
    except OSError:
        return False
    return False
