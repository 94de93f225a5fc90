"""DOT: a decoder-only transformer from observations to a chunk of actions.

There is no encoder and no sampling. Fixed sinusoidal queries, one per predicted action, attend to
each other and to the embedded observations, and a linear head turns each query into an action.

Legend: B batch, S observation times, Q action queries, D width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from diffusion_policy.model.common.lora import LoRAConfig, add_lora
from diffusion_policy.model.common.sinusoids import sinusoidal_positions
from diffusion_policy.model.common.transformer import Attention, TransformerDecoder
from diffusion_policy.model.vision.backbone import build_backbone, check_backbone
from diffusion_policy.model.vision.resnet import RESNETS, STRIDE, SpatialTokens, add_conv_lora
from diffusion_policy.util.errors import require


def horizon_mask(n_queries: int, n_hidden: int) -> Tensor:
    """(Q, Q) bool, True where query row may attend to column.

    The last ``n_hidden`` queries exist in training alone. No other row may attend to them, so that
    the other rows predict the same in training and at inference.
    """
    mask = torch.ones(n_queries, n_queries, dtype=torch.bool)
    if n_hidden > 0:
        mask[:-n_hidden, -n_hidden:] = False
    return mask


class ScalarTokens(nn.Module):
    """Embed each number of a vector as a token of its own: (N, K) -> (N, K, dim)."""

    def __init__(self, n_scalars: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_scalars, dim).uniform_(-1, 1))
        self.bias = nn.Parameter(torch.zeros(n_scalars, dim))

    def forward(self, x: Tensor) -> Tensor:
        return x[..., None] * self.weight + self.bias


class DOTNetwork(nn.Module):
    """From observations at S times to Q actions, all normalised.

    Args:
        state_dim: numbers in ``state`` (of the robot), or 0.
        environment_state_dim: numbers in ``environment_state``, or 0.
        n_cameras: images per time step; all cameras share one backbone.
        action_dim: numbers in an action.
        n_obs_steps: S.
        lookback: steps between now and the oldest observation.
        train_horizon: predicted actions from now on, in training.
        inference_horizon: predicted actions from now on, at inference; at most train_horizon.
        dim, n_heads, dim_feedforward, n_layers, dropout: size of the decoder.
        backbone, backbone_weights: name and weights, see :func:`build_backbone`.
        lora_rank: rank of the backbone's adapters; 0 trains the backbone itself.
        freeze_backbone: train only the last layer of the backbone.
        image_tokens: ``pooled`` (one token per image) or ``spatial`` (one token per cell of the
            feature map, and one per number of each low-dim input).
        image_size: (height, width) of the images, for the number of spatial tokens.
        use_prefix: prepend one learned token to the memory.
        decoder_lora: adapters on the attention queries and values and on the input projections,
            with all their base weights frozen; None trains everything.

    Raises:
        UserError: a setting is out of range, or does not fit the others.
    """

    def __init__(
        self,
        *,
        state_dim: int,
        environment_state_dim: int,
        n_cameras: int,
        action_dim: int,
        n_obs_steps: int = 3,
        lookback: int = 10,
        train_horizon: int = 20,
        inference_horizon: int = 20,
        dim: int = 128,
        n_heads: int = 8,
        dim_feedforward: int = 512,
        n_layers: int = 8,
        dropout: float = 0.1,
        backbone: str = "resnet18",
        backbone_weights: str | None = None,
        lora_rank: int = 20,
        freeze_backbone: bool = False,
        image_tokens: str = "pooled",
        image_size: tuple[int, int] = (96, 96),
        use_prefix: bool = True,
        decoder_lora: LoRAConfig | None = None,
    ) -> None:
        super().__init__()
        _check_decoder(dim, n_heads, dropout, image_tokens)
        spatial = image_tokens == "spatial"
        self.projections = nn.ModuleDict()
        tokens_per_step = {}
        for name, size in (("state", state_dim), ("environment_state", environment_state_dim)):
            if size:
                self.projections[name] = (
                    ScalarTokens(size, dim) if spatial else nn.Linear(size, dim)
                )
                tokens_per_step[name] = size if spatial else 1
        if n_cameras:
            _check_backbone(backbone, backbone_weights, lora_rank, freeze_backbone, spatial)
            encoder = build_backbone(
                "policy.backbone", "policy.backbone_weights", backbone, backbone_weights
            )
            encoder.requires_grad_(not freeze_backbone)
            if spatial:
                encoder = SpatialTokens(encoder, dim)
            else:
                encoder.fc = nn.Linear(encoder.fc.in_features, dim)
            if lora_rank:
                add_conv_lora(encoder, lora_rank)
            self.projections["images"] = encoder
            cells = math.prod(math.ceil(side / STRIDE) for side in image_size)
            tokens_per_step["images"] = n_cameras * (cells if spatial else 1)

        n_tokens = n_obs_steps * sum(tokens_per_step.values())
        self.prefix_input = nn.Parameter(torch.randn(1, 1, dim)) if use_prefix else None
        bound = 1 / math.sqrt(dim)
        self.inputs_pos_emb = nn.Parameter(torch.empty(1, n_tokens, dim).uniform_(-bound, bound))
        # Rows of a table over lookback + train_horizon steps: one query for the action at the
        # oldest observation, then one for each action from the second oldest observation on.
        positions = sinusoidal_positions(lookback + train_horizon, dim)
        n_recent = train_horizon + n_obs_steps - 2
        if n_obs_steps == 1:
            positions = positions[-train_horizon:]
        else:
            positions = torch.cat([positions[:1], positions[-n_recent:]])
        self.register_buffer("decoder_pos", positions, persistent=False)
        self.dropout = dropout
        self.n_training_only = train_horizon - inference_horizon
        mask = horizon_mask(len(positions), self.n_training_only)
        self.register_buffer("mask", mask if self.n_training_only else None, persistent=False)
        self.decoder = TransformerDecoder(n_layers, dim, n_heads, dim_feedforward, dropout)
        self.action_head = nn.Linear(dim, action_dim)
        if decoder_lora is not None:
            self._adapt(decoder_lora)

    def _adapt(self, config: LoRAConfig) -> None:
        """Freeze the decoder and the input projections and add low-rank adapters to them."""
        self.decoder.requires_grad_(False)
        for module in self.decoder.modules():
            if isinstance(module, Attention):
                dim = module.out_proj.in_features
                query, value = (0, dim), (2 * dim, 3 * dim)
                add_lora(module, "in_proj_weight", config, [query, value])
        for name, projection in self.projections.items():
            target = projection.fc if name == "images" else projection
            target.bias.requires_grad_(False)
            add_lora(target, "weight", config, None)

    def embed(self, inputs: dict[str, Tensor]) -> Tensor:
        """Memory of the decoder, (B, 1 + tokens, D).

        Args:
            inputs: those of ``state`` (B, S, K), ``environment_state`` (B, S, K) and ``images``
                (B, S * cameras, 3, H, W) that the network was built for; images time by time.
        """
        tokens = []
        for name in sorted(self.projections):
            x = inputs[name]
            embedded = self.projections[name](x.flatten(0, 1))
            tokens.append(embedded.reshape(len(x), -1, embedded.shape[-1]))
        memory = torch.cat(tokens, dim=1) + self.inputs_pos_emb
        if self.prefix_input is None:
            return memory
        return torch.cat([self.prefix_input.expand(len(memory), -1, -1), memory], dim=1)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """(B, Q, action_dim): all queries in training mode, the inference ones in eval mode."""
        memory = self.embed(inputs)
        queries, mask = self.decoder_pos, self.mask
        if not self.training and self.n_training_only:
            # The mask hides the dropped rows from the kept ones and nothing else.
            queries, mask = queries[: -self.n_training_only], None
        queries = queries[None]
        if self.training and self.dropout:
            # Dropout differs by row from the first layer on.
            queries = queries.expand(len(memory), -1, -1)
        features = self.decoder(queries, memory, mask)
        # bfloat16 would round an action to a pixel.
        with torch.autocast(features.device.type, enabled=False):
            return self.action_head(features.float())


def _check_decoder(dim: int, n_heads: int, dropout: float, image_tokens: str) -> None:
    remedy = f"use a number that divides policy.dim ({dim})"
    require(dim % n_heads == 0, "policy.n_heads", n_heads, remedy)
    require(0 <= dropout < 1, "policy.dropout", dropout, "use at least 0 and less than 1")
    known = image_tokens in ("pooled", "spatial")
    require(known, "policy.image_tokens", image_tokens, "use pooled or spatial")


def _check_backbone(
    name: str, weights: str | None, lora_rank: int, freeze: bool, spatial: bool
) -> None:
    check_backbone("policy.backbone", name)
    # Not isinstance: True is an int.
    is_rank = type(lora_rank) is int and lora_rank >= 0
    require(is_rank, "policy.lora_rank", lora_rank, "use a whole number from 0")
    require(isinstance(freeze, bool), "policy.freeze_backbone", freeze, "use true or false")
    if name not in RESNETS:
        remedy = f"use 0, since {name} takes no adapters"
        require(lora_rank == 0, "policy.lora_rank", lora_rank, remedy)
        remedy = f"use pooled, since {name} has no cells, or policy.backbone={' or '.join(RESNETS)}"
        require(not spatial, "policy.image_tokens", "spatial", remedy)
    if freeze:
        remedy = "give policy.backbone_weights, or use false to train random ones"
        require(weights is not None, "policy.freeze_backbone", freeze, remedy)
        remedy = "use 0 with policy.freeze_backbone=true, since adapters change the backbone"
        require(lora_rank == 0, "policy.lora_rank", lora_rank, remedy)
