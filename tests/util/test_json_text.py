import json

import pytest

from diffusion_policy.util.json_text import json_text


def test_numbers_that_are_not_finite_become_null():
    value = {"a": [1.5, float("nan")], "b": {"c": (float("inf"), "nan", None, True)}}
    text = json_text(value)
    assert json.loads(text, parse_constant=pytest.fail) == {
        "a": [1.5, None],
        "b": {"c": [None, "nan", None, True]},
    }
    assert text.endswith("}\n")
