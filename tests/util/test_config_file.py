from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from diffusion_policy.util import config_file
from diffusion_policy.util.config_file import (
    MAX_CHARACTERS,
    MAX_DEPTH,
    parse_config,
    read_config,
    read_plain_yaml,
    require_plain,
)
from diffusion_policy.util.errors import UserError

ROOT = Path(__file__).parents[2]
CONFIGS = [
    ROOT / "data/pretrained/dot_pusht/config.yaml",
    *sorted((ROOT / "docs/results").glob("*/config.yaml")),
    *sorted((ROOT / "tests/golden/old_runs").glob("*/.hydra/config.yaml")),
]


@pytest.mark.slow
def test_configs_that_runs_wrote_are_read_as_omegaconf_reads_them():
    assert len(CONFIGS) > 5
    for path in CONFIGS[::3]:
        assert read_config(path) == OmegaConf.load(path)


def test_types_are_those_of_omegaconf():
    text = "{a: 1e-4, b: .inf, c: yes, d: '1', e: 1:30, f: 2020-01-01, 1: ~, g: [[], {}]}"
    assert parse_config(text, "x") == OmegaConf.create(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name: ${oc.env:HOME}", "name is '${oc.env:HOME}', an interpolation"),
        ("name: ${task.name}\ntask: {name: '${oc.env:HOME}'}", "name is '${oc.env:HOME}'"),
        ("name: a-${task.name}\ntask: {name: a}", "name is 'a-${task.name}'"),
        ("name: ${task.nome}\ntask: {name: a}", "name is '${task.nome}'"),
        ("name: ${.task}\ntask: a", "name is '${.task}'"),
        ("name: ${${task}}\ntask: name", "name is '${${task}}'"),
        ("name: ${name}", "name is '${name}'"),
        ("a: {b: '${a}'}", "a.b.b is '${a}'"),
        ("a: ${b}\nb: ${c}\nc: ${a}", "an interpolation"),
        ("a: {b: [1, 'x-${now:%Y}']}", "a.b[1] is 'x-${now:%Y}'"),
        (r"a: '\${oc.env:HOME}'", "an interpolation"),  # resolving would bring it to life
        (r"a: '\\\${oc.env:HOME}'", "an interpolation"),
        (r'a: "\x24{oc.env:HOME}"', "an interpolation"),
        ("{? '${oc.env:HOME}' : 1}", "an interpolation"),
        ("a: ${", "an interpolation"),
    ],
)
def test_interpolations_are_refused(text, told):
    with pytest.raises(UserError) as caught:
        parse_config(text, "policy/config.yaml")
    assert "policy/config.yaml" in str(caught.value)
    assert told in str(caught.value)


def test_a_value_may_be_that_of_another_key():
    text = "{a: '${b.c}', b: {c: [1, {d: '${e}'}]}, e: '${f}', f: x}"
    expected = OmegaConf.to_container(OmegaConf.create(text), resolve=True)
    assert parse_config(text, "x") == expected
    assert "${" not in OmegaConf.to_yaml(parse_config(text, "x"))


LAUGHS = "\n".join(["a0: &a0 [x]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40))])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (LAUGHS, "line 2 holds an alias"),
        ("a: &x {b: 1}\nc: {<<: *x}", "line 2 holds an alias"),
        (
            "\n".join(
                ["a0: [x]", *(f"a{i}: ['${{a{i - 1}}}', '${{a{i - 1}}}']" for i in range(1, 40))]
            ),
            "values",
        ),
        (f"a: {'x' * 100_000}\nb:\n" + "- ${a}\n" * 100, "characters"),
        (
            "\n".join(f"a{i}: {'{x: ' * 40}'${{a{i + 1}}}'{'}' * 40}" for i in range(10)),
            f"more than {MAX_DEPTH} deep",
        ),
        ("[" * 20_000, f"more than {MAX_DEPTH} deep"),
        ("a: " * 3, "damaged"),
        ("- " * 20_000, "deep"),
        (f"a: [{'1,' * 1000}]", "line 1 holds more than 1,000 values"),
        ("a" * (MAX_CHARACTERS + 1), "characters"),
        (f"a: {'9' * 5000}", "a number of 5,000 digits"),
        (f"a: 0x{'f' * 5000}", "digits"),
        (f"a: {'1:' * 5000}1", "digits"),
        (f"a: {2**63}", "use a number of 64 bits"),
        ("a: !!python/object/apply:os.getcwd []", "a tag"),
        ("a: !!python/object/apply:pathlib.Path [x]", "a tag"),
        ("a: !!binary aGk=", "a tag"),
        ("- a", "no keys and values"),
        ("a", "no keys and values"),
        ("~: 1", "damaged"),
        ("[1]: 1", "damaged"),
        ("a: 1\na: 2", "duplicate"),
        ("a: \x00", "damaged"),
        ("--- {a: 1}\n--- {b: 1}", "damaged"),
        (None, "its config is no text"),
        (b"a: 1", "its config is no text"),
    ],
)
def test_more_than_a_config_is_refused_in_one_line_and_soon(monkeypatch, text, told):
    monkeypatch.setattr(config_file, "MAX_VALUES", 1000)
    begun = time.process_time()
    with pytest.raises(UserError) as caught:
        parse_config(text, "x.ckpt")
    assert told in str(caught.value)
    assert "x.ckpt" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert time.process_time() - begun < 10


def test_an_empty_config_is_empty():
    assert parse_config("", "x") == {}


@pytest.mark.parametrize("content", [b"\xff\xfe", None])
def test_files_that_cannot_be_read_are_told(tmp_path, content):
    path = tmp_path / "config.yaml"
    if content is not None:
        path.write_bytes(content)
    for read in (read_config, read_plain_yaml):
        with pytest.raises(UserError, match=r"config\.yaml is damaged"):
            read(path)


def outcome(text: str) -> str:
    """The error of a text, if it has one."""
    try:
        parse_config(text, "x")
    except UserError as error:
        return str(error)
    return ""


def test_mutated_configs_are_read_or_refused_in_one_line():
    rng = random.Random(0)
    text = "task: {name: a, shape: [3, 96]}\npolicy:\n  dim: 1e-3\n  text: 'it''s'\n"
    pieces = [
        "${",
        "&a ",
        "*a",
        "!!",
        "[",
        "]",
        "{",
        "}",
        ":",
        "\t",
        "\n",
        "'",
        "-",
        "9" * 500,
        "\x00",
    ]
    for _ in range(300):
        mutated = list(text)
        for _ in range(rng.randint(1, 3)):
            mutated[rng.randrange(len(mutated))] = rng.choice(pieces)
        assert "\n" not in outcome("".join(mutated))


def test_plain_data_passes_and_the_rest_is_named():
    require_plain({"a": [1, None, "$x {y}"]}, "x")
    with pytest.raises(UserError, match=r"^x: policy\.a\[0\]\.b is '\$\{c\}'"):
        require_plain({"a": [{"b": "${c}"}]}, "x", "policy")
