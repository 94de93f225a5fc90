from omegaconf import OmegaConf

from diffusion_policy.util.config import config_leaves


def test_leaves_are_resolved_and_sections_gone():
    cfg = OmegaConf.create(
        {"a": {"b": 1, "c": {"d": [1, 2], "e": {}}}, "seed": "${a.b}", "lr": 1e-4, "none": None}
    )
    assert config_leaves(cfg) == {
        "a.b": 1,
        "a.c.d": [1, 2],
        "a.c.e": {},
        "seed": 1,
        "lr": 1e-4,
        "none": None,
    }
