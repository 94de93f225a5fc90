from __future__ import annotations

import torch

from diffusion_policy.checkpoint.policy_folder import README_FILE, save_policy_folder


def test_no_link_is_copied_into_an_exported_policy(tmp_path):
    (tmp_path / "secret").write_text("secret")
    folder = tmp_path / "policy"
    save_policy_folder(folder, "a: 1\n", {"w": torch.zeros(1)})
    (folder / README_FILE).symlink_to(tmp_path / "secret")
    save_policy_folder(folder, "a: 1\n", {"w": torch.ones(1)})
    assert not (folder / README_FILE).exists()
    assert (tmp_path / "secret").read_text() == "secret"
