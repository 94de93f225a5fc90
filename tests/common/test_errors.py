import pytest

from diffusion_policy.common.errors import UserError, reports_user_errors, user_message


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
