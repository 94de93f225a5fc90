from __future__ import annotations

import pytest

from diffusion_policy.util import json_file
from diffusion_policy.util.errors import UserError
from diffusion_policy.util.json_file import NUMBER, read_json

SHAPE = {"n": NUMBER, "ends?": [NUMBER, NUMBER], "each?": [{"seed": int}]}


@pytest.mark.parametrize(
    "text",
    ['{"n": 1}', '{"n": -1.5, "ends": [0, 1], "each": []}', '{"n": 1, "ends": null, "m": {}}'],
)
def test_what_has_the_shape_is_read(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    assert isinstance(read_json(path, SHAPE, "write it again"), dict)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{}", "it has no n"),
        ('{"n": true}', "n is 'True'"),
        ('{"n": NaN}', "NaN is not JSON"),
        ('{"n": 1e999}', "n is 'inf'"),
        (f'{{"n": 1{"0" * 400}}}', "a number has 401 digits"),
        (f'{{"n": {2**63}}}', "a number has 19 digits"),
        ('{"n": 1, "ends": [0, 1, 2]}', "ends has 3 entries, not 2"),
        ('{"n": 1, "ends": [0, "1"]}', r"ends\[1\] is '1'"),
        ('{"n": 1, "each": [{"seed": 0}, {"seed": 0.5}]}', "seed is '0.5'"),
        ("[" * 100_000, "recursion"),
        (" " * 1001, "more than 1,000 bytes"),
    ],
)
def test_all_else_is_told_in_one_line(tmp_path, monkeypatch, text, told):
    if "bytes" in told:
        monkeypatch.setattr(json_file, "MAX_BYTES", 1000)
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(
        UserError, match=rf"a\.json is damaged \(.*{told}.*; write it again$"
    ) as caught:
        read_json(path, SHAPE, "write it again")
    assert "\n" not in str(caught.value)
