import pytest
from toy_env import ToyEnv

from diffusion_policy.gym_util.make_env import make_env
from diffusion_policy.gym_util.spaces import ArraySpace, TextSpace, describe_spaces
from diffusion_policy.util.errors import UserError


def test_arrays_and_text_are_described():
    spaces = describe_spaces(ToyEnv())
    assert spaces.observations == {
        "position": ArraySpace((2,), "<f8"),
        "goal": ArraySpace((2,), "<f8"),
        "image": ArraySpace((3, 4, 6), "|u1"),
        "instruction": TextSpace(8),
    }
    assert spaces.action == ArraySpace((2,), "<f8")


def test_a_single_array_is_called_obs():
    assert describe_spaces(make_env({"id": "Pendulum-v1"})).observations == {
        "obs": ArraySpace((3,), "<f4")
    }


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("FrozenLake-v1", r"observation 'obs' of the environment is Discrete\(16\); wrap it"),
        ("CartPole-v1", r"action of the environment is Discrete\(2\); wrap it"),
    ],
)
def test_other_spaces_are_refused(env_id, message):
    with pytest.raises(UserError, match=message):
        describe_spaces(make_env({"id": env_id}))
