from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from omegaconf import OmegaConf
from toy_transform import Centimetres

from diffusion_policy.spec.task_spec import TaskSpec
from diffusion_policy.transforms.pipeline import Pipeline
from diffusion_policy.transforms.transform import Transform
from diffusion_policy.util.errors import UserError

SPEC = TaskSpec.parse({"obs": {"position": {"shape": [2]}}, "action": {"shape": [2]}})
OBS = {"position": np.float32([[[1, 2], [3, 4]]])}
ACTION = np.float32([[[5, 6], [7, 8], [9, 10]]])


@dataclass(frozen=True)
class Relative(Transform):
    """Takes actions relative to the current position."""

    calls: ClassVar[list] = []

    def forward(self, batch, spec):
        self.calls.append(batch["obs"]["position"])
        if "action" not in batch:
            return batch
        return {**batch, "action": batch["action"] - batch["obs"]["position"][:, -1:]}

    def inverse(self, action, obs, spec):
        return action + obs["position"][:, -1:]


@pytest.mark.parametrize("order", [(Centimetres("position"), Relative()), (Relative(),) * 2])
def test_inverse_undoes_forward_with_what_each_transform_saw(order):
    pipeline = Pipeline.of(order, SPEC)
    batch = pipeline.forward({"obs": OBS, "action": ACTION})
    seen = pipeline.observe(OBS)
    np.testing.assert_array_equal(seen[-1]["position"], batch["obs"]["position"])
    assert not np.array_equal(batch["action"], ACTION)
    np.testing.assert_allclose(pipeline.inverse(batch["action"], seen), ACTION)


def test_to_act_each_forward_runs_once():
    Relative.calls.clear()
    pipeline = Pipeline.of([Centimetres("position"), Relative()], SPEC)
    pipeline.inverse(ACTION, pipeline.observe(OBS))
    (seen,) = Relative.calls
    np.testing.assert_array_equal(seen, OBS["position"] * 100)


def test_no_transform_changes_nothing():
    pipeline = Pipeline.of(None, SPEC)
    batch = {"obs": OBS, "action": ACTION}
    assert pipeline.forward(batch) is batch
    assert pipeline.observe(OBS)[-1] is OBS
    assert pipeline.inverse(ACTION, [OBS]) is ACTION
    assert pipeline.spec is pipeline.raw_spec is SPEC


def test_a_config_tells_what_it_is_made_of():
    entries = [{"_target_": "toy_transform.Centimetres", "key": "position"}]
    config = OmegaConf.create({"task": {"transforms": entries}})
    assert Pipeline.of(config.task.transforms, SPEC).transforms == (Centimetres("position"),)
    assert Pipeline.of(entries, SPEC).transforms == (Centimetres("position"),)


@pytest.mark.parametrize("entry", [{"key": "a"}, {"_target_": "builtins.dict"}, "mirror", None])
def test_what_is_no_transform_is_named(entry):
    with pytest.raises(UserError, match=r"task\.transforms\[1\] is .*, which is no Transform"):
        Pipeline.of([Centimetres("position"), entry], SPEC)
