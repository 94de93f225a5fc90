import numpy as np
import pytest
from omegaconf import OmegaConf
from toy_env import ToyEnv

from diffusion_policy.gym_util.make_env import DEFAULT_MAX_STEPS, make_env, step_limit
from diffusion_policy.util.config import plain
from diffusion_policy.util.errors import UserError


def test_registered_id_with_kwargs_and_limit():
    env = make_env({"id": "Pendulum-v1", "kwargs": {"g": 3.0}}, max_steps=2)
    assert env.unwrapped.g == 3.0
    assert env.render_mode == "rgb_array"
    env.reset(seed=0)
    assert [env.step(np.zeros(1))[3] for _ in range(2)] == [False, True]


def test_limit_may_exceed_the_registered_one():
    env = make_env({"id": "Pendulum-v1"}, max_steps=250)  # registered: 200
    env.reset(seed=0)
    assert [env.step(np.zeros(1))[3] for _ in range(250)].index(True) == 249


@pytest.mark.parametrize(
    ("spec", "limit"),
    [({"id": "Pendulum-v1"}, 200), ({"factory": "toy_env:make"}, DEFAULT_MAX_STEPS)],
)
def test_without_a_limit_the_environment_keeps_its_own(spec, limit):
    assert step_limit(make_env(spec)) == limit


def test_an_id_is_looked_for_in_the_package_that_it_names(tmp_path, monkeypatch):
    (tmp_path / "own_envs.py").write_text(
        "import gymnasium, toy_env\n"
        "gymnasium.register('own_envs/Toy-v0', toy_env.make, max_episode_steps=7)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert step_limit(make_env({"id": "own_envs/Toy-v0"})) == 7
    with pytest.raises(UserError, match=r"own_envs/Toi-v0.* is not registered .*PYTHONPATH"):
        make_env({"id": "own_envs/Toi-v0"})


def test_factory():
    env = make_env({"factory": "toy_env:make", "kwargs": {"bad_seed": 3}}, max_steps=1)
    assert isinstance(env.unwrapped, ToyEnv)
    assert env.unwrapped.bad_seed == 3


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"id": "Nowhere-v0"}, "Nowhere-v0"),
        ({"id": "diffusion_policy/../toy_env:PushT-v0"}, "names no module before the colon"),
        ({"factory": "toy_env:nothing"}, "toy_env:nothing"),
        ({"factory": "no_such_module:make"}, "no_such_module"),
        ({"factory": "toy_env"}, "<module>:<function>"),
        ({"factory": "toy_env:make", "kwargs": {"bad": 3}}, "toy_env:make.*unexpected.*'bad'"),
        ({"id": "Pendulum-v1", "kwargs": {"bad": 3}}, "Pendulum-v1.*unexpected.*'bad'"),
        ({"name": "Pendulum-v1"}, "either id or factory"),
        ({"id": "Pendulum-v1", "factory": "toy_env:make"}, "either id or factory"),
    ],
)
def test_wrong_descriptions_are_named(spec, message):
    with pytest.raises(UserError, match=message):
        make_env(spec)


def test_plain_takes_a_config_apart():
    config = OmegaConf.create({"size": 3, "env": {"obs": ["a", "b"], "size": "${size}"}})
    value = plain(config.env)
    assert value == {"obs": ["a", "b"], "size": 3}
    assert (type(value), type(value["obs"])) == (dict, list)
