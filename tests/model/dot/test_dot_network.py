import pytest
import torch

from diffusion_policy.model.common.lora import LoRAConfig, merge_lora
from diffusion_policy.model.dot.dot_network import DOTNetwork, horizon_mask
from diffusion_policy.model.vision.resnet import merge_conv_lora
from tests.reference import golden, reference_input, reference_weights

CASES = {
    "keypoints": {"state_dim": 2, "environment_state_dim": 16, "n_cameras": 0},
    "keypoints_horizon20_12": {
        "state_dim": 2,
        "environment_state_dim": 16,
        "n_cameras": 0,
        "inference_horizon": 12,
    },
    "image": {"state_dim": 2, "environment_state_dim": 0, "n_cameras": 1},
}
SPATIAL = {
    "state_dim": 2,
    "environment_state_dim": 2,
    "n_cameras": 1,
    "action_dim": 2,
    "n_obs_steps": 1,
    "dim": 32,
    "dim_feedforward": 64,
    "n_layers": 2,
    "image_tokens": "spatial",
    "use_prefix": False,
    "lora_rank": 2,
}


def reference_inputs(case: str) -> dict[str, torch.Tensor]:
    record = golden(f"dot_{case}")
    batch, phase = int(record["batch"]), float(record["input_phase"])
    inputs = {"state": reference_input((batch, 3, 2), phase)}
    if case == "image":
        inputs["images"] = reference_input((batch, 3, 3, 96, 96), phase + 1)
    else:
        inputs["environment_state"] = reference_input((batch, 3, 16), phase + 1)
    return inputs


@pytest.mark.parametrize("case", CASES)
def test_output_equals_reference(case):
    network = DOTNetwork(action_dim=2, dropout=0.0, **CASES[case])
    network.load_state_dict(reference_weights(f"dot/{case}"))
    inputs, record = reference_inputs(case), golden(f"dot_{case}")
    with torch.no_grad():
        evaluated = network.eval()(inputs)
        trained = network.train()(inputs)
    torch.testing.assert_close(evaluated, torch.tensor(record["output_eval"]), atol=1e-5, rtol=0)
    torch.testing.assert_close(trained, torch.tensor(record["output_train"]), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("case", "total", "trainable"),
    [("keypoints", 2_120_578, 2_120_578), ("image", 14_069_438, 2_902_526)],
)
def test_sizes_are_the_published_ones(case, total, trainable):
    network = DOTNetwork(action_dim=2, **CASES[case])
    assert sum(p.numel() for p in network.parameters()) == total
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == trainable


def test_positions_and_mask_equal_reference():
    network = DOTNetwork(action_dim=2, **CASES["keypoints_horizon20_12"])
    record = golden("dot_pos")
    torch.testing.assert_close(network.decoder_pos, torch.tensor(record["decoder_pos"]))
    # The reference marks forbidden pairs, ours allowed ones.
    assert torch.equal(~network.mask, torch.tensor(record["mask_20_12"]))


def test_shared_rows_predict_the_same_in_training_and_at_inference():
    network = DOTNetwork(action_dim=2, dropout=0.0, **CASES["keypoints_horizon20_12"])
    inputs = reference_inputs("keypoints")
    with torch.no_grad():
        evaluated, trained = network.eval()(inputs), network.train()(inputs)
    assert evaluated.shape[1] == trained.shape[1] - 8
    torch.testing.assert_close(evaluated, trained[:, :-8])


@pytest.mark.parametrize("n_hidden", [0, 3])
def test_only_hidden_rows_see_hidden_columns(n_hidden):
    mask = horizon_mask(7, n_hidden)
    assert mask[:, : 7 - n_hidden].all()
    assert not mask[: 7 - n_hidden, 7 - n_hidden :].any()
    assert mask[7 - n_hidden :].all()


def randomise_adapters(network: torch.nn.Module) -> None:
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora" in name:
                parameter.normal_(0, 0.1)


@pytest.mark.slow
def test_merging_backbone_adapters_keeps_the_output():
    network = DOTNetwork(action_dim=2, **CASES["image"]).eval()
    randomise_adapters(network)
    inputs = reference_inputs("image")
    with torch.no_grad():
        before = network(inputs)
        merge_conv_lora(network)
        after = network(inputs)
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)
    assert not any("lora" in name for name, _ in network.named_parameters())


def spatial_inputs(batch: int = 2) -> dict[str, torch.Tensor]:
    return {
        "state": reference_input((batch, 1, 2), 0.0),
        "environment_state": reference_input((batch, 1, 2), 1.0),
        "images": reference_input((batch, 1, 3, 96, 96), 2.0),
    }


def test_spatial_memory_has_nine_tokens_per_image_and_one_per_number():
    network = DOTNetwork(**SPATIAL)
    assert network.embed(spatial_inputs()).shape == (2, 13, 32)
    assert network(spatial_inputs()).shape == (2, 20, 2)


def test_decoder_adapters_train_alone_and_merge():
    network = DOTNetwork(**SPATIAL, decoder_lora=LoRAConfig(rank=4, alpha=8, dropout=0.05))
    frozen = {n for n, p in network.decoder.named_parameters() if not p.requires_grad}
    trained = {n for n, p in network.decoder.named_parameters() if p.requires_grad}
    assert trained
    assert all("lora" in name for name in trained)
    assert not any("lora" in name for name in frozen)
    randomise_adapters(network)
    network.eval()
    with torch.no_grad():
        before = network(spatial_inputs())
        merge_lora(network)
        merge_conv_lora(network)
        after = network(spatial_inputs())
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)
    assert not any("lora" in name for name, _ in network.named_parameters())
