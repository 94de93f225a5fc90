"""PushT: push a T-shaped block onto its goal. Importing this package registers its environments."""

import gymnasium

MAX_EPISODE_STEPS = 300
"""The benchmark's time limit: 30 s at 10 Hz."""

_MODULE = "diffusion_policy.env.pusht.pusht_env"

gymnasium.register(
    "diffusion_policy/PushT-v0",
    entry_point=f"{_MODULE}:PushTEnv",
    max_episode_steps=MAX_EPISODE_STEPS,
)
gymnasium.register(
    "diffusion_policy/PushTKeypoints-v0",
    entry_point=f"{_MODULE}:make_keypoints_env",
    max_episode_steps=MAX_EPISODE_STEPS,
)
gymnasium.register(
    "diffusion_policy/PushTImage-v0",
    entry_point=f"{_MODULE}:PushTEnv",
    kwargs={"obs": ("image", "agent_pos")},
    max_episode_steps=MAX_EPISODE_STEPS,
)
