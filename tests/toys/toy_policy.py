"""A policy for toy_env that solves it unless its noise is large."""

from __future__ import annotations

import torch
from toy_env import SHAPE_META

from diffusion_policy.policy.base_policy import BasePolicy
from diffusion_policy.spec.window import Window


class GoalPolicy(BasePolicy):
    """Walks to the goal, with noise."""

    def __init__(self, noise=0.0, n_action_steps=1, obs_offsets=(-1, 0)):
        super().__init__(SHAPE_META)
        self.noise, self.n_action_steps = noise, n_action_steps
        self.window = Window(obs_offsets, action_offsets=tuple(range(n_action_steps)))
        self.weight = torch.nn.Parameter(torch.ones(1))

    def compute_loss(self, batch):
        raise NotImplementedError

    def predict_action(self, obs, env_ids=None):
        goal = obs["goal"][:, -1:].expand(-1, self.n_action_steps, -1)
        # A matrix product, so that the precision of products shows.
        goal = (goal @ (self.weight * torch.eye(goal.shape[-1]))).float()
        action = goal + self.noise * torch.randn(goal.shape)
        return {"action": action, "action_pred": action}
