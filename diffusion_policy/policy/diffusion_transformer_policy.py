"""Diffusion Policy with a transformer (DP-T)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from diffusion_policy.model.common.transformer import KeysValues
from diffusion_policy.model.diffusion.transformer_for_diffusion import TransformerForDiffusion
from diffusion_policy.policy.denoising_policy import DenoisingPolicy
from diffusion_policy.util.errors import require


class DiffusionTransformerPolicy(DenoisingPolicy):
    """Denoises by attention between noisy actions, and from them to the observations.

    Conditioning: ``global`` makes each observation a token that actions attend to; ``inpaint`` see
    :class:`DenoisingPolicy`.

    Args:
        n_layer: decoder layers.
        n_cond_layers: encoder layers over the condition's tokens; 0 is a small MLP.
        n_head, n_emb: attention heads and width.
        p_drop_emb, p_drop_attn: dropout of embeddings, and of attention and feed-forward.
        causal_attn: an action attends to earlier actions and observations alone.
        time_as_cond: the noise level is a token of the condition; False puts it, and everything
            else, among the actions of an encoder, which then needs ``inpaint``.

    Other arguments: see :class:`DenoisingPolicy`.

    Raises:
        UserError: a setting is unknown or does not fit the others.
    """

    model: TransformerForDiffusion
    further_settings_of = DenoisingPolicy
    CONDITIONINGS = ("global", "inpaint")

    def __init__(
        self,
        shape_meta: Mapping[str, Any],
        *,
        n_layer: int = 8,
        n_cond_layers: int = 0,
        n_head: int = 4,
        n_emb: int = 256,
        p_drop_emb: float = 0.0,
        p_drop_attn: float = 0.3,
        causal_attn: bool = True,
        time_as_cond: bool = True,
        **common: Any,
    ) -> None:
        super().__init__(shape_meta, **common)
        observed = self.conditioning == "global"
        require(
            not causal_attn or self._first_executed == self.n_obs_steps - 1,
            "policy.causal_attn",
            causal_attn,
            "use false with policy.pred_action_steps_only=true: causal attention pairs rows with "
            "observations, and the past rows are left out",
        )
        self.model = TransformerForDiffusion(
            input_dim=self.trajectory_dim,
            output_dim=self.trajectory_dim,
            horizon=self.horizon,
            n_obs_steps=self.n_obs_steps,
            cond_dim=self.obs_encoder.output_dim if observed else 0,
            n_layer=n_layer,
            n_head=n_head,
            n_emb=n_emb,
            p_drop_emb=p_drop_emb,
            p_drop_attn=p_drop_attn,
            causal_attn=causal_attn,
            time_as_cond=time_as_cond,
            obs_as_cond=observed,
            n_cond_layers=n_cond_layers,
        )

    def denoise(self, x: Tensor, time: Tensor, features: Tensor) -> Tensor:
        return self.model(x, time, self._condition(features))

    def encode(self, time: Tensor, features: Tensor) -> Tensor | Sequence[KeysValues]:
        encoded = self.model.encode(time, self._condition(features))
        return self.model.decoder.keys_values(encoded) if self.model.time_as_cond else encoded

    def decode(self, x: Tensor, encoded: Tensor | Sequence[KeysValues]) -> Tensor:
        return self.model.decode(x, encoded)

    def _condition(self, features: Tensor) -> Tensor | None:
        return features if self.conditioning == "global" else None

    def network_parameter_groups(self) -> Iterable[dict[str, Any]]:
        """Weights of linear layers and attention decay; everything else does not."""
        return self.model.parameter_groups()
