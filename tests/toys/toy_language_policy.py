"""A policy with language in one file: told in words what to do, it predicts a chunk of actions."""

from __future__ import annotations

import zlib
from typing import ClassVar

import torch
from torch import nn
from torch.nn.functional import mse_loss

from diffusion_policy.policy.chunk_following import (
    ChunkFollower,
    ChunkPolicy,
    environments,
    geometric_weights,
    rows_of,
)
from diffusion_policy.spec.window import Window

SHAPE_META = {
    "obs": {"position": {"shape": [2]}, "task": {"type": "text"}},
    "action": {"shape": [2]},
}


class LanguagePolicy(ChunkPolicy):
    """A linear layer over the state and the mean embedding of the words, found by their hash.

    Args:
        horizon: T, actions of a chunk, the first of them for now.
        n_words: rows of the table of embeddings.
        dim: width of an embedding.
    """

    obs_types = ("low_dim", "text")
    debug_settings: ClassVar = {"n_words": 16}

    def __init__(
        self,
        shape_meta,
        horizon=8,
        n_action_steps=2,
        n_words=256,
        dim=8,
        alpha=0.5,
        predict_every_n=1,
        return_every_n=1,
        normalization=None,
    ):
        super().__init__(shape_meta, normalization)
        self.window = Window(obs_offsets=(-1, 0), action_offsets=tuple(range(horizon)))
        self.n_action_steps = n_action_steps
        self.follower = ChunkFollower(
            horizon,
            geometric_weights(alpha),
            n_action_steps=n_action_steps,
            predict_every_n=predict_every_n,
            return_every_n=return_every_n,
        )
        obs = self.shape_meta.obs
        self.states = [key for key, field in obs.items() if field.type == "low_dim"]
        self.texts = [key for key, field in obs.items() if field.type == "text"]
        self.words = nn.EmbeddingBag(n_words, dim)
        n_inputs = 2 * sum(obs[key].size for key in self.states) + dim * len(self.texts)
        self.head = nn.Linear(n_inputs, horizon * self.shape_meta.action.size)

    def compute_loss(self, batch):
        normalizer = self.normalizer.of(batch.get("embodiment"))
        target = normalizer["action"].normalize(batch["action"])
        error = mse_loss(self._chunk(batch["obs"], normalizer), target, reduction="none")
        loss = error.masked_fill(batch["action_is_pad"][..., None], 0).mean()
        return loss, {"first_action_error": error[:, 0].mean().detach()}

    @torch.no_grad()
    def predict_action(self, obs, env_ids=None):
        normalizer = self.normalizer.of(self.embodiment)
        ids = environments(obs, env_ids)
        due = self.follower.due(ids)
        if due.any():
            self.follower.take(ids[due], self._chunk(rows_of(obs, due), normalizer))
        predicted = normalizer["action"].unnormalize(self.follower.follow(ids))
        return {"action": predicted[:, : self.n_action_steps], "action_pred": predicted}

    def _chunk(self, obs, normalizer):
        """(B, T, Da) normalised actions."""
        features = [normalizer[key].normalize(obs[key][:, :2]).flatten(1) for key in self.states]
        features += [self._embed(obs[key]) for key in self.texts]
        chunk = self.head(torch.cat(features, dim=-1))
        return chunk.unflatten(-1, (-1, self.shape_meta.action.size))

    def _embed(self, texts):
        """(B, dim) of B texts."""
        # Not hash(), which differs from one Python process to the next.
        rows = [[zlib.crc32(word.encode()) for word in text.lower().split()] for text in texts]
        starts = torch.tensor([0, *(len(row) for row in rows[:-1])]).cumsum(0)
        words = torch.tensor([word for row in rows for word in row]) % self.words.num_embeddings
        return self.words(words.to(self.device), starts.to(self.device))
