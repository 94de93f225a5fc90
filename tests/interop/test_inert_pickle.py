"""Pickles are read without running what they name."""

import os

import torch

from diffusion_policy.interop.inert_pickle import Inert, load_inert


class Attack:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_nothing_that_the_file_names_is_run(tmp_path):
    payload = {"x": Attack(tmp_path / "made"), "weight": torch.ones(2)}
    torch.save(payload, tmp_path / "in.ckpt")
    loaded = load_inert(tmp_path / "in.ckpt")
    assert not (tmp_path / "made").exists()
    assert isinstance(loaded["x"], Inert)
    assert torch.equal(loaded["weight"], torch.ones(2))
    torch.load(tmp_path / "in.ckpt", weights_only=False)
    assert (tmp_path / "made").exists()  # so the file does attack
