"""Environments are registered by name, and imported when they are made."""

import subprocess
import sys

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env

import diffusion_policy.env  # noqa: F401 - registers the environments
from tests.env.test_contract import ENVIRONMENTS, NEEDS, skip_without

IDS = {name for name in gymnasium.registry if name.startswith("diffusion_policy/")}
SPECS = [listed.spec for listed in ENVIRONMENTS.values() if "id" in listed.spec]
CHECKED = [
    pytest.param(spec, id=spec["id"], marks=[pytest.mark.slow] if name in NEEDS else [])
    for name, spec in ((n, each.spec) for n, each in ENVIRONMENTS.items() if "id" in each.spec)
]


def test_every_environment_is_listed_for_the_contract():
    assert {spec["id"] for spec in SPECS} == IDS


@pytest.mark.filterwarnings("ignore:.*we recommend using a symmetric and normalized space")
@pytest.mark.parametrize("spec", CHECKED)
def test_gymnasium_finds_no_fault(spec, monkeypatch):
    for name, package in NEEDS.items():
        if spec is ENVIRONMENTS[name].spec:
            skip_without(package)
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    check_env(gymnasium.make(spec["id"], **spec.get("kwargs", {})).unwrapped)


def test_registering_imports_no_simulator():
    code = """
import sys
import diffusion_policy.env
assert not {"pymunk", "cv2", "pygame", "torch", "mujoco"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code], check=True)
