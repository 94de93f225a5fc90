import subprocess
import sys

import pytest

from diffusion_policy.common.errors import UserError, reports_user_errors, user_message
from diffusion_policy.common.output_dir import OutputLock


def test_user_error_ends_in_one_line(capsys):
    @reports_user_errors
    def main() -> None:
        raise UserError("x is 3; use 4")

    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert capsys.readouterr().err == "error: x is 3; use 4\n"


def test_cause_is_found_behind_a_wrapper():
    wrapper = RuntimeError("wrapped")
    wrapper.__cause__ = UserError("the cause")
    assert user_message(wrapper) == "the cause"


def test_other_errors_keep_their_traceback():
    @reports_user_errors
    def main() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        main()


HOLD = """
import sys, time
from pathlib import Path
from diffusion_policy.common.output_dir import OutputLock
with OutputLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_lock_excludes_others_and_ends_with_its_process(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=f"in use by process {holder.pid}"), OutputLock(tmp_path):
        pass
    holder.kill()
    holder.communicate()
    with OutputLock(tmp_path):
        pass
