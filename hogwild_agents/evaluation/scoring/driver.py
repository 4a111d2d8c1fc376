"""Runs one program for `programs`, in a restricted process. Imports only the standard library.

    python -I driver.py PROGRAM SECONDS MEMORY [FUNCTION] < input > output

The program reads the standard input and writes to the standard output. With FUNCTION, the input
holds one argument per line, as JSON, and the output is what the function returns, as JSON.

This stops what a program may do by accident: running without end, filling the memory or the disk,
starting processes, writing or deleting files outside its folder, using the network. It is not a
security boundary: a hostile program can break out of a Python process.
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
"""Largest size of a file in bytes, including the output."""

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
"""Audit events that are never allowed; https://docs.python.org/3/library/audit_events.html."""

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
"""Audit events that change files; they are allowed in the program's folder only."""

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
"""Flags of files that are opened for writing."""

MODULES = (
    *("string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random"),
    *("statistics", "itertools", "functools", "operator", "io", "sys", "json", "typing"),
)
"""Modules that a program may use without importing them, as in LiveCodeBench's own harness."""


def main(program: str, seconds: str, memory: str, function: str = "") -> None:
    """Runs a program."""
    limit(float(seconds), int(memory))
    with open(program, encoding="utf-8") as file:
        code = compile(file.read(), "answer.py", "exec", dont_inherit=True)
    names = namespace()
    arguments = sys.stdin.read() if function else ""
    results = os.fdopen(os.dup(1), "w", encoding="utf-8")
    if function:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # only the returned value counts
    sys.addaudithook(guard(os.getcwd() + os.sep))
    try:
        exec(code, names)
    except SystemExit as end:
        if end.code not in (None, 0):
            raise
    if function:
        owner = names["Solution"]() if "Solution" in names else None
        target = getattr(owner, function) if owner is not None else names[function]
        value = target(*map(json.loads, arguments.split("\n")))
        json.dump(value, results)
        results.flush()


def limit(seconds: float, memory: int) -> None:
    """Sets the limits of this process and its children."""
    cpu = int(seconds) + 1
    limits = {
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_CPU: cpu,
        resource.RLIMIT_FSIZE: FILE,
        resource.RLIMIT_NOFILE: 64,
    }
    if os.getpid() == 1:  # in a process namespace, where no other processes count
        limits[resource.RLIMIT_NPROC] = 64
    for kind, value in limits.items():
        hard = resource.getrlimit(kind)[1]
        allowed = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with contextlib.suppress(ValueError, OSError):  # macOS does not support all of them
            resource.setrlimit(kind, (allowed, allowed))
    sys.setrecursionlimit(50_000)  # as in LiveCodeBench


def namespace() -> dict[str, Any]:
    """The global names that a program starts with."""
    names: dict[str, Any] = {}
    modules = {name: importlib.import_module(name) for name in MODULES}
    for module in modules.values():
        public = getattr(module, "__all__", None) or [n for n in vars(module) if n[0] != "_"]
        names.update({name: getattr(module, name) for name in public})
    return names | vars(builtins) | modules | {"__name__": "__main__"}


def guard(folder: str) -> Callable[[str, tuple[Any, ...]], None]:
    """An audit hook that refuses forbidden events."""

    def outside(path: object) -> bool:
        if not isinstance(path, str | bytes | os.PathLike):  # an open file, or not a file
            return False
        return not os.path.realpath(os.fsdecode(path)).startswith(folder)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event.startswith(FORBIDDEN):
            raise PermissionError(f"{event} is not allowed here.")
        if event == "open":
            paths = arguments[:1] if arguments[2] & WRITES else ()
        else:
            paths = arguments if event.startswith(CHANGES) else ()
        if any(map(outside, paths)):
            raise PermissionError(f"{event}{arguments!r} is outside of the folder.")

    return hook


if __name__ == "__main__":
    main(*sys.argv[1:])
