"""Tasks of Meta-World (extra ``metaworld``). Importing this package registers its environments."""

import gymnasium

MAX_EPISODE_STEPS = 150
"""The scripted expert takes 45 to 70."""

gymnasium.register(
    "diffusion_policy/Push-v0",
    entry_point="diffusion_policy.env.metaworld.push_env:PushEnv",
    max_episode_steps=MAX_EPISODE_STEPS,
)
