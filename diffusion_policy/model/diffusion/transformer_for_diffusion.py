"""The transformer of Diffusion Policy (Chi et al. 2023, section 3 and appendix).

Names and shapes of its weights are those of the published checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_policy.model.common.cpu_kernels import Dropout
from diffusion_policy.model.common.transformer import (
    Attention,
    KeysValues,
    TransformerDecoder,
    TransformerEncoder,
)
from diffusion_policy.model.diffusion.positional_embedding import (
    SinusoidalPosEmb,
    batch_of_timesteps,
)
from diffusion_policy.util.errors import UserError, require

_INIT_STD = 0.02
_WIDENING = 4  # of feed-forward blocks, against n_emb


def causal_mask(n_queries: int, n_keys: int, n_always_seen: int = 0) -> Tensor:
    """(Q, M) to add to attention scores: 0 where query t may see a key, else -inf.

    Query t sees the first ``n_always_seen`` keys, and keys 0 to t of those after them.
    """
    newest = torch.arange(n_queries)[:, None] + n_always_seen
    return torch.zeros(n_queries, n_keys).masked_fill(torch.arange(n_keys) > newest, -torch.inf)


class TransformerForDiffusion(nn.Module):
    """Denoises a trajectory by attention.

    Tokens, by ``time_as_cond``::

        True   memory    time, observation 0 .. To-1    through an MLP, or an encoder
               queries   sample 0 .. T-1                through a decoder
        False  queries   time, sample 0 .. T-1          through an encoder; there is no memory

    With ``causal_attn``, step t of the sample attends to the time, to steps up to t and to
    observation tokens up to t (step 0 is the oldest of both). With ``n_cond_layers`` an encoder
    mixes these tokens before, so that each depends on all observations.

    Args:
        input_dim: D, numbers of a step of the sample.
        output_dim: numbers of a step of the output.
        horizon: the most steps T of a sample.
        n_obs_steps: the most observations To, ``horizon`` when None.
        cond_dim: numbers of an observation; 0 without ``obs_as_cond``.
        n_layer, n_head, n_emb: layers of the main stack, attention heads, width.
        p_drop_emb, p_drop_attn: dropout of embeddings; of attention and feed-forward blocks.
        causal_attn: hide what is later.
        time_as_cond: see above.
        obs_as_cond: observations are tokens of the memory.
        n_cond_layers: encoder layers over the memory; 0 is an MLP on each token.

    Raises:
        UserError: a setting is out of range or contradicts another.
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        horizon: int,
        n_obs_steps: int | None = None,
        cond_dim: int = 0,
        n_layer: int = 12,
        n_head: int = 12,
        n_emb: int = 768,
        p_drop_emb: float = 0.1,
        p_drop_attn: float = 0.1,
        causal_attn: bool = False,
        time_as_cond: bool = True,
        obs_as_cond: bool = False,
        n_cond_layers: int = 0,
    ) -> None:
        super().__init__()
        _check_width(n_emb, n_head)
        _check_probabilities(p_drop_emb=p_drop_emb, p_drop_attn=p_drop_attn)
        _check_condition(cond_dim, obs_as_cond, time_as_cond, n_cond_layers)
        self.horizon = horizon
        self.n_obs_steps = horizon if n_obs_steps is None else n_obs_steps
        self.time_as_cond = time_as_cond
        self.obs_as_cond = obs_as_cond
        n_queries = horizon if time_as_cond else 1 + horizon
        n_memory = 1 + self.n_obs_steps if obs_as_cond else 1
        sizes = (n_emb, n_head, _WIDENING * n_emb, p_drop_attn, F.gelu)

        self.time_emb = SinusoidalPosEmb(n_emb, "n_emb")
        self.input_emb = nn.Linear(input_dim, n_emb)
        self.pos_emb = nn.Parameter(torch.empty(1, n_queries, n_emb))
        self.drop = Dropout(p_drop_emb)
        self.cond_obs_emb = nn.Linear(cond_dim, n_emb) if obs_as_cond else None
        if time_as_cond:
            self.cond_pos_emb = nn.Parameter(torch.empty(1, n_memory, n_emb))
            self.encoder = (
                TransformerEncoder(n_cond_layers, *sizes)
                if n_cond_layers
                else nn.Sequential(
                    nn.Linear(n_emb, _WIDENING * n_emb),
                    nn.Mish(),
                    nn.Linear(_WIDENING * n_emb, n_emb),
                )
            )
            self.decoder = TransformerDecoder(n_layer, *sizes, final_norm=False)
        else:
            self.encoder = TransformerEncoder(n_layer, *sizes)
        self.ln_f = nn.LayerNorm(n_emb)
        self.head = nn.Linear(n_emb, output_dim)

        # Published checkpoints hold the masks and an empty tensor, so these names must exist.
        mask = causal_mask(n_queries, n_queries) if causal_attn else None
        memory_mask = (
            causal_mask(n_queries, n_memory, n_always_seen=1)
            if causal_attn and obs_as_cond
            else None
        )
        self.register_buffer("mask", mask)
        self.register_buffer("memory_mask", memory_mask)
        self.register_buffer("_dummy_variable", torch.empty(0))
        self._initialise()

    def _initialise(self) -> None:
        """N(0, 0.02) for weights and positions, 0 for biases; norms keep 1 and 0."""
        for decays, parameter in self._parameters_by_decay():
            if decays:
                nn.init.normal_(parameter, std=_INIT_STD)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif name.endswith("pos_emb"):
                nn.init.normal_(parameter, std=_INIT_STD)

    def _parameters_by_decay(self) -> Iterator[tuple[bool, nn.Parameter]]:
        """Every parameter, and whether it is a weight of a linear layer or of attention."""
        for module in self.modules():
            multiplies = isinstance(module, nn.Linear | Attention)
            for name, parameter in module.named_parameters(recurse=False):
                yield multiplies and name.endswith("weight"), parameter

    def parameter_groups(self, weight_decay: float | None = None) -> list[dict[str, Any]]:
        """Two groups for an optimiser, of the parameters that train.

        Weights of linear layers and of attention decay; biases, norms and positions do not.

        Args:
            weight_decay: of the first group; the optimiser's own when None.
        """
        by_decay: dict[bool, list[nn.Parameter]] = {True: [], False: []}
        for decays, parameter in self._parameters_by_decay():
            if parameter.requires_grad:
                by_decay[decays].append(parameter)
        decay: dict[str, Any] = {"params": by_decay[True]}
        if weight_decay is not None:
            decay["weight_decay"] = weight_decay
        return [decay, {"params": by_decay[False], "weight_decay": 0.0}]

    def forward(
        self, sample: Tensor, timestep: Tensor | float, cond: Tensor | None = None
    ) -> Tensor:
        """The prediction for a noisy trajectory: noise, for example.

        Args:
            sample: (B, T, D), T at most ``horizon``.
            timestep: (B,) or one number; may be fractional.
            cond: (B, To, cond_dim), exactly with ``obs_as_cond``; To at most ``n_obs_steps``.

        Returns:
            (B, T, output_dim), float32 also under autocast.

        Raises:
            UserError: too many steps, or the condition is missing or not expected.
        """
        return self.decode(sample, self.encode(batch_of_timesteps(timestep, sample), cond))

    def encode(self, timestep: Tensor, cond: Tensor | None) -> Tensor:
        """The first part of :meth:`forward`: tokens that do not depend on the sample.

        Args:
            timestep: (B,), may be fractional.
            cond: see :meth:`forward`.

        Returns:
            The memory (B, 1 + To, n_emb), or without ``time_as_cond`` the time (B, 1, n_emb).
        """
        self._check_cond(cond)
        tokens = self.time_emb(timestep)[:, None]
        if not self.time_as_cond:
            return tokens
        if self.cond_obs_emb is not None:
            tokens = torch.cat([tokens, self.cond_obs_emb(cond)], dim=1)
        return self.encoder(self._embed(tokens, self.cond_pos_emb))

    def decode(self, sample: Tensor, encoded: Tensor | Sequence[KeysValues]) -> Tensor:
        """The second part of :meth:`forward`.

        Args:
            encoded: the result of :meth:`encode`, or for a memory that of
                ``decoder.keys_values`` for it.
        """
        self._check_sample(sample)
        tokens = self.input_emb(sample)
        if self.time_as_cond:
            n_memory = (encoded if isinstance(encoded, Tensor) else encoded[0].keys).shape[-2]
            x = self._embed(tokens, self.pos_emb)
            memory_mask = _crop(self.memory_mask, x, n_memory)
            x = self.decoder(x, encoded, _crop(self.mask, x, x.shape[1]), memory_mask)
        else:
            x = self._embed(torch.cat([encoded, tokens], dim=1), self.pos_emb)
            x = self.encoder(x, _crop(self.mask, x, x.shape[1]))[:, 1:]
        x = self.ln_f(x)
        # bfloat16 would round an action coarsely.
        with torch.autocast(x.device.type, enabled=False):
            return self.head(x.to(self.head.weight.dtype))

    def _embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        return self.drop(tokens + positions[:, : tokens.shape[1]])

    def _check_sample(self, sample: Tensor) -> None:
        if sample.shape[1] > self.horizon:
            raise UserError(
                f"sample has {sample.shape[1]} steps; use at most the horizon of {self.horizon}"
            )

    def _check_cond(self, cond: Tensor | None) -> None:
        if (cond is not None) != self.obs_as_cond:
            state = "missing" if cond is None else "given"
            raise UserError(
                f"cond is {state} while obs_as_cond is {self.obs_as_cond}; change one of them"
            )
        if cond is not None and cond.shape[1] > self.n_obs_steps:
            raise UserError(
                f"cond has {cond.shape[1]} steps; use at most n_obs_steps ({self.n_obs_steps})"
            )


def _crop(mask: Tensor | None, queries: Tensor, n_keys: int) -> Tensor | None:
    """The part of a mask for these queries and ``n_keys`` keys."""
    return None if mask is None else mask[: queries.shape[1], :n_keys]


def _check_width(n_emb: int, n_head: int) -> None:
    fits = n_head >= 1 and n_emb % n_head == 0
    require(fits, "policy.n_head", n_head, f"use a number that divides policy.n_emb ({n_emb})")


def _check_probabilities(**probabilities: float) -> None:
    for field, p in probabilities.items():
        require(0 <= p < 1, f"policy.{field}", p, "use at least 0 and less than 1")


def _check_condition(
    cond_dim: int, obs_as_cond: bool, time_as_cond: bool, n_cond_layers: int
) -> None:
    if obs_as_cond != (cond_dim > 0):
        raise UserError(
            f"cond_dim is {cond_dim} while obs_as_cond is {obs_as_cond}; "
            "use more than 0 exactly when observations are the condition"
        )
    remedy = (
        "use true, or policy.conditioning=inpaint, since there is no memory for observations "
        "without it"
    )
    require(time_as_cond or not obs_as_cond, "policy.time_as_cond", time_as_cond, remedy)
    require(n_cond_layers >= 0, "policy.n_cond_layers", n_cond_layers, "use at least 0")
