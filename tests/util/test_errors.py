import errno
import os
import re
import warnings
from pathlib import Path

import hydra
import pytest
import torch
from hydra.errors import InstantiationException
from omegaconf import OmegaConf

from diffusion_policy.util import errors
from diffusion_policy.util.errors import UserError, reports_user_errors, user_message, writing
from diffusion_policy.util.statistics import wilson_interval


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


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "cannot write a file: No space"),
        (OSError(errno.EROFS, "Read-only file system", "/a/b"), "cannot use /a/b: Read-only"),
        (OSError(errno.ENOTDIR, "Not a directory", "/a/b"), "cannot use /a/b: Not a directory"),
        (OSError(errno.EPERM, "Operation not permitted"), None),  # of no file
        (FileNotFoundError(errno.ENOENT, "No such file", "/a/b"), None),
    ],
)
def test_disks_that_are_full_or_cannot_be_used_are_told(error, message):
    wrapper = RuntimeError("wrapped")
    wrapper.__cause__ = error
    told = user_message(wrapper)
    assert told is None if message is None else told.startswith(message)


def test_interrupt_ends_without_a_word(capsys):
    @reports_user_errors
    def main() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == ""


def test_other_errors_keep_their_traceback():
    with pytest.raises(ValueError, match="no success rate"):
        reports_user_errors(wilson_interval)(1, 0)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            {"_target_": "torch.nn.Dropout", "p": 2},
            "part.inner cannot be built: ValueError: dropout probability has to be between 0 and 1",
        ),
        (
            {"_target_": "torch.nn.Dropout", "rate": 0.5},
            "unknown config key part.inner.rate; see the class that _target_ names",
        ),
        (
            {"_target_": "torch.nn.Linear"},
            "part.inner cannot be built: TypeError: Linear.__init__() missing 2 required",
        ),
        (
            {"_target_": "torch.nn.NoSuchLayer"},
            "part.inner._target_ is 'torch.nn.NoSuchLayer', which cannot be imported: ",
        ),
    ],
)
def test_a_section_that_cannot_be_built_is_named(section, message):
    cfg = OmegaConf.create({"part": {"inner": section}})

    def build() -> None:
        hydra.utils.instantiate(cfg.part)

    for run in (build, lambda: within_the_program(build)):
        with pytest.raises(InstantiationException) as caught:
            run()
        told = user_message(caught.value)
        assert told.startswith(message)
        assert "\n" not in told


def within_the_program(function) -> None:
    """Call a function through Hydra but not from a config section, as train.py does."""
    hydra.utils.instantiate({"_target_": f"{__name__}.call"}, function)


def call(function) -> None:
    function()


def test_a_fault_of_the_program_keeps_its_traceback():
    faulty = {"_target_": "diffusion_policy.util.statistics.wilson_interval"}
    for section in (faulty, OmegaConf.create({"part": {"_target_": "operator.truediv"}}).part):
        with pytest.raises(InstantiationException) as caught:
            hydra.utils.instantiate(section, 1, 0)
        assert user_message(caught.value) is None


def test_an_error_of_ones_own_code_names_its_last_line_there(monkeypatch, capsys):
    def own_loss() -> None:
        torch.ones(2) @ torch.ones(3)

    @reports_user_errors
    def main() -> None:
        within_the_program(own_loss)

    with pytest.raises(SystemExit):
        main()
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(r"error: RuntimeError: inconsistent tensor size, .* \(\S*test_errors.py:", line)
    assert f":{own_loss.__code__.co_firstlineno + 1} in own_loss, which is code of your own" in line

    monkeypatch.setenv("FULL_TRACEBACK", "1")
    with pytest.raises(InstantiationException):
        main()


def test_a_missing_section_is_told_wherever_it_is_missed():
    cfg = OmegaConf.create({"part": 1})
    OmegaConf.set_struct(cfg, True)
    with pytest.raises(InstantiationException) as caught:
        within_the_program(lambda: cfg.other)
    assert user_message(caught.value).startswith("Key 'other' is not in struct")


def test_control_characters_are_shown(capsys):
    def fail() -> None:
        raise UserError("the name is \x1b[31m\rred é")

    with pytest.raises(SystemExit):
        reports_user_errors(fail)()
    assert capsys.readouterr().err == "error: the name is \\x1b[31m\\rred é\n"


def test_a_failed_write_names_the_file_and_what_is_kept(tmp_path):
    path = tmp_path / "log"
    for make, kept in [(lambda: None, False), (path.touch, True)]:
        make()
        with pytest.raises(UserError, match=r"cannot write .*log: No space left") as caught:
            fail_to_write(path)
        assert ("the previous one is kept" in str(caught.value)) == kept


def fail_to_write(path: Path) -> None:
    with writing(path, atomic=True):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_warning_of_the_package_is_one_line(monkeypatch):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # put back afterwards
    reports_user_errors(lambda: None)()
    ours = warnings.formatwarning("values\n  outside", UserWarning, errors.__file__, 7)
    assert ours == "warning: values outside\n"
    other = warnings.formatwarning("elsewhere", UserWarning, "/other/module.py", 7)
    assert other == "/other/module.py:7: UserWarning: elsewhere\n"
