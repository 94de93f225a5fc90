import subprocess
import sys
import time
from contextlib import suppress

import psutil

from tests.processes import started

PARENT = """
import subprocess, sys, time
sleep = [sys.executable, "-c", "import time; time.sleep(100)"]
child = subprocess.Popen(sleep, start_new_session=True)
print(child.pid, flush=True)
time.sleep(100)
"""


def test_nothing_is_left_of_a_program_when_a_test_fails():
    with (
        suppress(ZeroDivisionError),
        started([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as process,
    ):
        child = int(process.stdout.readline())
        raise ZeroDivisionError
    deadline = time.monotonic() + 10
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert process.returncode is not None
