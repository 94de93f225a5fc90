import torch

from diffusion_policy.util.pytorch_util import dict_apply


def test_every_tensor_is_changed_and_texts_stay():
    batch = {"obs": {"x": torch.ones(2), "task": ["push", "pick"]}, "action": torch.ones(1)}
    doubled = dict_apply(batch, lambda x: x * 2)
    assert doubled["obs"]["task"] == ["push", "pick"]
    assert doubled["obs"]["x"].tolist() == [2, 2]
    assert doubled["action"].tolist() == [2]
    assert batch["action"].tolist() == [1]
