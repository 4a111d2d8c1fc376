"""Runs one program for `programs`, in a process that may do little; stands alone.

    python -I driver.py PROGRAM SECONDS MEMORY [FUNCTION] < input > output

The program reads the test's input and writes to the output; or, if a function is named, the input
has one argument per line, as JSON, and the output is what the function returns, as JSON.

It ends what a program does by accident: running on, filling the memory or the disk, starting
processes, writing or deleting files outside its folder, using the network. It is no security
boundary: whoever wants to get out of a Python process gets out.
"""

from __future__ import annotations

import builtins
import contextlib
import importlib
import json
import os
import resource
import sys
from collections.abc import Callable
from typing import Any

FILE = 16 * 2**20
"""Bytes that a file may have, the output among them."""

FORBIDDEN = (
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.kill",
    "os.killpg",
    "os.posix_spawn",
    "os.spawn",
    "os.startfile",
    "os.system",
    "pty.spawn",
    "subprocess.Popen",
    "socket.",
)
"""Audit events that no answer needs; https://docs.python.org/3/library/audit_events.html."""

CHANGES = (
    "os.chmod",
    "os.chown",
    "os.link",
    "os.mkdir",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.symlink",
    "os.truncate",
    "os.utime",
    "shutil.",
)
"""Audit events of changes to the disk, which are allowed in its folder."""

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
"""Flags of files that are opened to be changed."""

MODULES = (
    *("string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random"),
    *("statistics", "itertools", "functools", "operator", "io", "sys", "json", "typing"),
)
"""What a program may use without importing it, as in LiveCodeBench's own harness."""


def main(program: str, seconds: str, memory: str, function: str = "") -> None:
    """Runs a program."""
    limit(float(seconds), int(memory))
    with open(program, encoding="utf-8") as file:
        code = compile(file.read(), "answer.py", "exec", dont_inherit=True)
    names = namespace()
    given = sys.stdin.read() if function else ""
    results = os.fdopen(os.dup(1), "w", encoding="utf-8")
    if function:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what it prints is not what it returns
    sys.addaudithook(guard(os.getcwd() + os.sep))
    try:
        exec(code, names)
    except SystemExit as end:
        if end.code not in (None, 0):
            raise
    if function:
        owner = names["Solution"]() if "Solution" in names else None
        called = getattr(owner, function) if owner is not None else names[function]
        returned = called(*map(json.loads, given.split("\n")))
        json.dump(returned, results)
        results.flush()


def limit(seconds: float, memory: int) -> None:
    """Sets the limits of this process and of those that it might start."""
    cpu = int(seconds) + 1
    limits = {
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_CPU: cpu,
        resource.RLIMIT_FSIZE: FILE,
        resource.RLIMIT_NOFILE: 64,
    }
    if os.getpid() == 1:  # a namespace of its own: no others count
        limits[resource.RLIMIT_NPROC] = 64
    for kind, most in limits.items():
        hard = resource.getrlimit(kind)[1]
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        with contextlib.suppress(ValueError, OSError):  # macOS knows some of them by name only
            resource.setrlimit(kind, (least, least))
    sys.setrecursionlimit(50_000)  # as in LiveCodeBench


def namespace() -> dict[str, Any]:
    """The names that a program starts with."""
    names: dict[str, Any] = {}
    modules = {name: importlib.import_module(name) for name in MODULES}
    for module in modules.values():
        public = getattr(module, "__all__", None) or [n for n in vars(module) if n[0] != "_"]
        names.update({name: getattr(module, name) for name in public})
    return names | vars(builtins) | modules | {"__name__": "__main__"}


def guard(folder: str) -> Callable[[str, tuple[Any, ...]], None]:
    """A hook that refuses what no answer needs."""

    def outside(path: object) -> bool:
        if not isinstance(path, str | bytes | os.PathLike):  # a file that is open, or no file
            return False
        return not os.path.realpath(os.fsdecode(path)).startswith(folder)

    def hook(event: str, given: tuple[Any, ...]) -> None:
        if event.startswith(FORBIDDEN):
            raise PermissionError(f"{event} is not allowed here.")
        if event == "open":
            changed = given[:1] if given[2] & WRITES else ()
        else:
            changed = given if event.startswith(CHANGES) else ()
        if any(map(outside, changed)):
            raise PermissionError(f"{event}{given!r} is outside of the folder.")

    return hook


if __name__ == "__main__":
    main(*sys.argv[1:])
