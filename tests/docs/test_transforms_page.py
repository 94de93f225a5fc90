"""The examples of docs/transforms.md run unchanged."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import numpy as np
import yaml

from diffusion_policy.spec.task_spec import ROTATIONS, TaskSpec
from diffusion_policy.transforms import action_frame, clip, images, keys, prompt
from diffusion_policy.transforms import rotation_representation as rotations
from diffusion_policy.transforms.pipeline import Pipeline
from diffusion_policy.transforms.transform import Transform

PAGE = (Path(__file__).parents[2] / "docs" / "transforms.md").read_text()


def example(language):
    (block,) = re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)
    return block


def test_the_task_gives_the_policy_what_the_page_says():
    pipeline = Pipeline.of_task(yaml.safe_load(example("yaml")))
    assert pipeline.raw_spec.action.shape == (7,)
    assert pipeline.spec.action.shape == (10,)
    assert pipeline.spec.obs["wrist"].shape == (3, 96, 96)
    rng = np.random.default_rng(0)
    obs = {
        "eef_pose": rng.normal(size=(1, 2, 7)).astype(np.float32),
        "wrist": rng.integers(0, 256, (1, 2, 3, 480, 640), np.uint8),
    }
    action = rng.uniform(-1, 1, (1, 4, 7)).astype(np.float32)
    predicted = pipeline.forward({"obs": obs, "action": action})["action"]
    assert predicted.shape == (1, 4, 10)
    undone = pipeline.inverse(predicted, pipeline.observe(obs))
    np.testing.assert_allclose(undone, action, atol=1e-5)


def test_a_transform_of_ones_own_works():
    names = {"__name__": "own"}
    # Without the future import of this file.
    exec(compile(example("python"), "own", "exec", dont_inherit=True), names)
    spec = TaskSpec.parse({"obs": {}, "action": {"shape": [1]}})
    pipeline = Pipeline.of([names["Centimetres"]()], spec)
    action = np.float32([[[2]]])
    assert pipeline.forward({"obs": {}, "action": action})["action"] == 200
    assert pipeline.inverse(action, pipeline.observe({})) == np.float32(0.02)


def test_every_transform_and_every_rotation_is_on_the_page():
    for module in (action_frame, clip, images, keys, prompt, rotations):
        for name, member in inspect.getmembers(module, inspect.isclass):
            is_own = member.__module__ == module.__name__ and issubclass(member, Transform)
            if is_own and not name.startswith("_"):
                room = module.__name__.rpartition(".")[2]
                assert f"`{room}.{name}`" in PAGE
    for rotation in ROTATIONS:
        assert f"`{rotation}`" in PAGE
