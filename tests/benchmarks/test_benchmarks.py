"""Every benchmark runs and checks its result; the tests ignore the measured figures."""

from __future__ import annotations

import json

import pytest

from benchmarks.__main__ import chosen, main
from benchmarks.case import CASES, Case, Options, Work, case
from benchmarks.machine import Pace
from benchmarks.report import growth, table
from benchmarks.runner import Result, run_case
from diffusion_policy.util.errors import UserError

CHEAP = [name for name, each in CASES.items() if not each.slow]


@pytest.fixture(scope="module")
def options(tmp_path_factory) -> Options:
    return Options(tmp_path_factory.mktemp("scratch"), tiny=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", CHEAP)
def test_every_case_runs_and_is_right(name, options):
    result = run_case(CASES[name], options, repeats=1, seconds=0)
    assert len(result.figures) == 1


def a_case(unit: str, **facts) -> Case:
    return Case("subject.case", "something", unit, prepare=None, **facts)


def a_result(figure: float, **facts) -> Result:
    return Result(a_case("steps/s", **facts), (figure,), Pace(30, 100))


def test_figures_follow_from_the_unit():
    assert a_case("steps/s").figure(seconds=2, amount=10, result=None) == 5
    assert a_case("ms").figure(seconds=2, amount=1, result=None) == 2000
    assert a_case("MB").figure(seconds=2, amount=1, result=70) == 70


def test_better_is_more_in_a_second_and_less_of_anything_else():
    assert a_case("steps/s", reference=10).times_better(40) == 4
    assert a_case("MB", reference=10).times_better(40) == 0.25
    assert a_case("MB").times_better(40) is None


def test_table_compares_with_the_reference():
    header, row = table([a_result(12345.6, reference=2450, target=4)]).splitlines()
    assert header.split()[:2] == ["what", "figure"]
    expected = "something 12,300 12,300 - 12,300 steps/s 2,450 5.04 4 x 30 100"
    assert row.split() == expected.split()


def test_growth_is_the_exponent_of_a_series():
    results = [a_result(3 * size**2, series="cost", size=size) for size in (1, 10, 100)]
    assert growth(results) == ["cost: figure ~ size^2.00"]


def test_a_wrong_result_is_no_figure(tmp_path, monkeypatch, capsys):
    def prepare(_):
        yield Work(lambda: 1, check)

    def check(result):
        assert result == 2

    monkeypatch.setattr("benchmarks.case.CASES", cases := {})
    case("machine.wrong", "one and one", "s")(prepare)
    monkeypatch.setattr("benchmarks.__main__.CASES", cases)
    with pytest.raises(SystemExit, match=r"machine\.wrong"):
        main(["--tiny", "--scratch", str(tmp_path)])
    assert "one and one" not in capsys.readouterr().out


def test_cases_are_chosen_by_the_beginning_of_their_names():
    assert {each.name for each in chosen(["machine", "data.image_l"])} == {
        "machine.loop",
        "machine.product_float32",
        "machine.product_bfloat16",
        "data.image_load",
    }
    with pytest.raises(UserError, match="no benchmark begins with 'nonsense'"):
        chosen(["nonsense"])


def test_command_prints_a_table_and_writes_json(tmp_path, capsys):
    file = tmp_path / "results.json"
    main(["machine.loop", "--tiny", "--json", str(file), "--scratch", str(tmp_path / "scratch")])
    assert "pure Python loop" in capsys.readouterr().out
    (result,) = json.loads(file.read_text())["results"]
    assert result["name"] == "machine.loop"
    assert len(result["figures"]) == 7
