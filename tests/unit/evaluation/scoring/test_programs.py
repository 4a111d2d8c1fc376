"""Programs: right ones pass, wrong ones do not, and bad ones do no harm."""

from __future__ import annotations

import shutil
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from hogwild_agents.evaluation.scoring import programs
from tests.unit.evaluation.scoring.marking import cases_of, score

SUMS = cases_of(("2 3\n", "5\n"), ("10 -4\n", "6\n"))


def run(program: str, tests: str = SUMS, **extra: Any) -> float:
    """The score of a program in a reply."""
    text = f"Let me think.\n\n```python\n{program}\n```\nThat is it."
    return score("code", "passes", text, tests=[tests], **{"seconds": 5, **extra})


ADD = "a, b = map(int, input().split())\nprint(a + b)"


def indented(program: str) -> str:
    """A program inside of a block."""
    return program.replace("\n", "\n    ")


@pytest.fixture(params=["isolated", "bare"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With namespaces of its own where there are any, and without them."""
    if request.param == "bare":
        monkeypatch.setattr(programs, "isolation", lambda: None)
    elif programs.isolation() is None:
        pytest.skip("this system gives no namespaces")


anywhere = pytest.mark.usefixtures("place")


@anywhere
def test_programs_that_read_and_print() -> None:
    assert run(ADD) == 1
    assert run(ADD.replace("+", "*")) == 0
    assert run("import sys\nprint(sum(map(int, sys.stdin.read().split())))") == 1
    assert run("print(sum(map(int, open(0).read().split())))") == 1
    assert run(f"if __name__ == '__main__':\n    {indented(ADD)}") == 1
    assert run(f"{ADD}\nexit()") == 1
    assert run(f"{ADD}\n1 / 0") == 0
    assert run("print(5)") == 0  # right once is not right


def test_all_fields_of_tests_count() -> None:
    text = f"```python\n{ADD}\n```"
    more = cases_of(("1 1", "3"))
    assert score("code", "passes", text, tests=[SUMS, ""]) == 1
    assert score("code", "passes", text, tests=[SUMS, more]) == 0
    assert score("code", "passes", text, tests=["", ""]) == 0


@pytest.mark.parametrize(
    ("text", "right"),
    [
        (f"```python\nprint(0)\n```\nNo:\n```python\n{ADD}\n```", 1),
        (f"```python\n{ADD}\n```\nNo:\n```python\nprint(0)\n```", 0),
        (f"```\n{ADD}\n```", 1),
        (f"```python\n{ADD}", 1),
        (ADD, 1),
        ("I cannot.", 0),
        ("```python\ndef broken(:\n```", 0),
        ("", 0),
    ],
)
def test_the_last_program_counts(text: str, right: int) -> None:
    assert score("code", "passes", text, tests=[SUMS]) == right


@pytest.mark.parametrize(
    ("printed", "expected", "right"),
    [
        ("1 2", "1 2\n", 1),
        ("1 2  \\n", " 1 2", 1),
        ("1.50", "1.5", 1),
        ("1e2", "100", 1),
        ("1\\n2", "1 2", 0),
        ("1 2 3", "1 2", 0),
        ("Yes", "YES", 0),
        ("0.30000000000000004", "0.3", 0),
        ("50000000000000001", "50000000000000000", 0),
        ("nan", "nan", 1),
        ("sNaN", "1", 0),
    ],
)
def test_how_lines_are_compared(printed: str, expected: str, right: int) -> None:
    assert run(f"print('{printed}')", cases_of(("", expected))) == right


CALLS = cases_of(("[1, 2]\n3", "6"), ("[]\n0", "0"), kind="functional")
SOLUTION = (
    "class Solution:\n"
    "    def total(self, numbers: List[int], more: int) -> int:\n"
    "        print('noise')\n"
    "        return sum(numbers) + more"
)


@anywhere
def test_functions() -> None:
    """Of a class `Solution`, as the starter code has it, or alone; names need no imports."""
    assert run(SOLUTION, CALLS, function="total") == 1
    assert run(SOLUTION.replace("+ more", "- more"), CALLS, function="total") == 0
    assert run("def total(a, b):\n    return sum(a) + b", CALLS, function="total") == 1
    assert run("def other(a, b):\n    return sum(a) + b", CALLS, function="total") == 0
    pairs = cases_of(("1", "[1, 2]"), kind="functional")
    assert run("def f(a):\n    return (a, a + 1)", pairs, function="f") == 1
    assert run("def f(a):\n    return {a, a + 1}", pairs, function="f") == 0
    assert (
        run(
            "def f(a):\n    return lru_cache(lambda: Counter([a]))()[a]",
            cases_of(("1", "1"), kind="functional"),
            function="f",
        )
        == 1
    )


HARM = {
    "endless loop": "while True: pass",
    "endless sleep": "import time\ntime.sleep(1000)",
    "endless output": "while True: print('x' * 10**6)",
    "memory": "x = [0] * 10**12\nprint(5)",
    "fork bomb": "import os\nwhile True: os.fork()",
    "commands": "import os\nos.system('sleep 1000')",
    "processes": "import subprocess\nsubprocess.Popen(['sleep', '1000'])",
    "pools": "import multiprocessing\nprint(multiprocessing.Pool(4).map(len, ['a']))",
    "threads": "import threading\nwhile True: threading.Thread(target=input).start()",
    "abort": "import os\nos.abort()",
    "signals": "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nprint(5)",
}


@pytest.mark.parametrize("name", HARM)
@anywhere
def test_harm_ends(name: str) -> None:
    assert run(HARM[name], cases_of(("", "5")), seconds=1, memory=2**29) == 0


@anywhere
def test_nothing_is_left_running() -> None:
    """Child processes end with the program, or cannot be started."""
    program = (
        "import _posixsubprocess, os, sys\n"
        "sys.stdout.flush()\n"
        "import multiprocessing.util as util\n"
        "util.spawnv_passfds(b'/bin/sleep', [b'sleep', b'98.7654'], [])\n"
        "print(5)"
    )
    run(program, cases_of(("", "5")), seconds=2)
    time.sleep(0.2)
    running = [
        file.read_bytes() for file in Path("/proc").glob("[0-9]*/cmdline") if _readable(file)
    ]
    assert not any(b"98.7654" in line for line in running)


def _readable(file: Path) -> bool:
    try:
        file.read_bytes()
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    "write",
    [
        "open({path!r}, 'w').write('x')",
        "import os; os.open({path!r}, os.O_CREAT | os.O_WRONLY)",
        "import os; os.mkdir({path!r})",
        "import pathlib; pathlib.Path({path!r}).touch()",
        "import os; os.symlink('/', {path!r})",
        "import os; open('a', 'w').close(); os.rename('a', {path!r})",
        "import shutil; open('a', 'w').close(); shutil.copy('a', {path!r})",
    ],
)
@anywhere
def test_nothing_is_written_outside(write: str, tmp_path: Path) -> None:
    path = str(tmp_path / "made")
    assert run(f"{write.format(path=path)}\nprint(5)", cases_of(("", "5"))) == 0
    assert not (tmp_path / "made").exists()


@anywhere
def test_nothing_is_deleted_outside(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("x")
    for way in ("os.remove", "os.unlink", "os.truncate"):
        size = ", 0" if way == "os.truncate" else ""
        run(f"import os\n{way}({str(tmp_path / 'kept')!r}{size})\nprint(5)", cases_of(("", "5")))
    run(f"import shutil\nshutil.rmtree({str(tmp_path)!r})\nprint(5)", cases_of(("", "5")))
    assert (tmp_path / "kept").read_text() == "x"


@anywhere
def test_it_may_write_in_its_own_folder() -> None:
    program = "open('a', 'w').write('5')\nprint(open('a').read())"
    assert run(program, cases_of(("", "5"))) == 1


@anywhere
def test_no_network() -> None:
    """Not even to its own machine."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        ways = [
            f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 1)",
            f"import urllib.request\nurllib.request.urlopen('http://127.0.0.1:{port}', timeout=1)",
            "import socket\nsocket.create_server(('127.0.0.1', 0))",
        ]
        for way in ways:
            refused = f"try:\n    {indented(way)}\nexcept OSError:\n    print(5)"
            assert run(refused, cases_of(("", "5"))) == 1, way
        server.settimeout(0.1)
        with pytest.raises(TimeoutError):
            server.accept()


@anywhere
def test_it_sees_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "abc")
    program = "import os\nfor name in sorted(os.environ): print(name)"
    few = "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"
    seen = [run(program, cases_of(("", "\n".join(names)))) for names in (few, ("LC_CTYPE", *few))]
    assert 1 in seen


@anywhere
def test_deep_recursion_and_large_stacks_are_allowed() -> None:
    """As competitors write it."""
    program = (
        "import threading\n"
        "def depth(n): return 0 if n == 0 else 1 + depth(n - 1)\n"
        "threading.stack_size(2**27)\n"
        "thread = threading.Thread(target=lambda: print(depth(20000)))\n"
        "thread.start()\nthread.join()"
    )
    assert run(program, cases_of(("", "20000"))) == 1


def test_without_unshare_there_is_no_isolation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert programs.isolation.__wrapped__() is None
    monkeypatch.setattr(shutil, "which", lambda _: "/bin/false")
    assert programs.isolation.__wrapped__() is None
