"""Headless Chromium, controlled over a pipe; needs no package and no port."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)


class Browser:
    """One page.

    Attributes:
        complaints: Messages of the console and the security policy.
    """

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read, self._buffer, self._count = write, read, b"", 0
        self._session = ""
        self.complaints: list[str] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Log", "Runtime"):
            self._call(f"{domain}.enable")

    def open(self, file: Path, part: str = "", *, width: int = 1280, dark: bool = False) -> None:
        """Loads a file anew, and waits until its script has run."""
        self.complaints.clear()
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=False,
        )
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        self._call("Page.navigate", url="about:blank")
        self._call("Page.navigate", url=f"{file.absolute().as_uri()}{part}")
        deadline = time.monotonic() + 20
        while self.run("location.protocol + document.readyState") != "file:complete":
            assert time.monotonic() < deadline, "the page does not load"
            time.sleep(0.02)

    def run(self, script: str) -> Any:
        """The value of an expression."""
        outcome = self._call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in outcome, outcome
        return outcome["result"].get("value")

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            reply = self._next()
            if reply.get("id") == self._count:
                assert "error" not in reply, reply
                result: dict[str, Any] = reply["result"]
                return result
            if reply.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown"):
                self.complaints.append(json.dumps(reply["params"]))

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            more = os.read(self._read, 1 << 16)
            assert more, "the browser has gone"
            self._buffer += more
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """Starts one with a profile of its own, and ends it."""
    assert PROGRAM
    their_read, our_write = os.pipe()
    our_read, their_write = os.pipe()
    command = (
        f'exec "$0" --headless=new --no-sandbox --disable-gpu --remote-debugging-pipe '
        f'--user-data-dir="$1" 3<&{their_read} 4>&{their_write}'
    )
    process = subprocess.Popen(
        ["bash", "-c", command, PROGRAM, str(folder)],
        pass_fds=(their_read, their_write),
        stderr=subprocess.DEVNULL,
    )
    os.close(their_read)
    os.close(their_write)
    try:
        yield Browser(our_write, our_read)
    finally:
        os.close(our_write)
        process.terminate()
        process.wait(20)
        os.close(our_read)
