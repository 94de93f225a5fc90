"""What the diffusion policies do beyond the contract of every policy."""

from __future__ import annotations

import pytest
import torch

from tests.policy.test_contract import make_batch, make_obs, make_policy

UNET = "train_diffusion_unet_pusht"


@pytest.mark.parametrize(
    ("overrides", "offsets", "first"),
    [
        ([], range(-1, 15), 1),
        (["policy.n_obs_steps=3", "policy.n_action_steps=4"], range(-2, 14), 2),
        (["policy.pred_action_steps_only=true"], range(8), 0),
    ],
)
def test_executed_actions_start_at_the_last_observation(overrides, offsets, first):
    policy = make_policy(UNET, *overrides).eval()
    assert policy.window.action_offsets == tuple(offsets)
    assert policy.window.obs_offsets == tuple(range(1 - policy.n_obs_steps, 1))
    result = policy.predict_action(make_obs(policy, 2))
    rows = slice(first, first + policy.n_action_steps)
    assert torch.equal(result["action"], result["action_pred"][:, rows])
    assert policy.window.action_offsets[first] == 0


def test_inpainting_predicts_observations_and_keeps_those_it_was_given():
    policy = make_policy(UNET, "policy.conditioning=inpaint").eval()
    obs = make_obs(policy, 2)
    predicted = policy.predict_action(obs)["obs_pred"]
    for key, field in policy.shape_meta.obs.items():
        assert predicted[key].shape == (2, 16, *field.shape)
        torch.testing.assert_close(predicted[key][:, :2], obs[key], atol=1e-3, rtol=1e-4)


def test_past_actions_are_kept_once_they_are_known():
    overrides = ["policy.past_action_visible=true", "policy.n_obs_steps=3"]
    policy = make_policy(UNET, *overrides).eval()
    first = policy.predict_action(make_obs(policy, 2))
    second = policy.predict_action(make_obs(policy, 2, seed=1))
    torch.testing.assert_close(second["action_pred"][:, :2], first["action"][:, -2:])
    policy.reset([1], [0])
    third = policy.predict_action(make_obs(policy, 2, seed=2))["action_pred"]
    torch.testing.assert_close(third[0, :2], second["action"][0, -2:])
    assert not torch.allclose(third[1, :2], second["action"][1, -2:])


def test_given_entries_are_no_part_of_the_loss():
    overrides = ["policy.past_action_visible=true", "policy.n_obs_steps=3"]
    policy = make_policy(UNET, *overrides)
    batch = make_batch(policy)
    batch["action_is_pad"][:] = False
    batch["action_is_pad"][:, 0] = True
    seen = []
    policy.process.loss = lambda predict, clean, known: seen.append(known) or clean.sum()
    policy.compute_loss(batch)
    assert not seen[0][:, [0, *range(2, 16)]].any()
    assert seen[0][:, 1].all()


def test_generators_decide_the_actions():
    policy = make_policy(UNET).eval()
    obs = make_obs(policy, 2)

    def sample(*seeds):
        return policy.predict_action(
            obs, generators=[torch.Generator().manual_seed(seed) for seed in seeds]
        )["action"]

    assert torch.equal(sample(3, 4), sample(3, 4))
    assert not torch.equal(sample(3, 4)[1], sample(3, 5)[1])


@pytest.mark.parametrize("name", [UNET, "train_diffusion_transformer_pusht_image"])
def test_optimiser_groups_hold_every_parameter_once(name):
    policy = make_policy(name, "policy.obs_encoder_weight_decay=0.5")
    optimizer = policy.get_optimizer({"_target_": "torch.optim.AdamW", "weight_decay": 0.01})
    grouped = [p for group in optimizer.param_groups for p in group["params"]]
    trainable = [p for p in policy.parameters() if p.requires_grad]
    assert len(grouped) == len(trainable)
    assert {id(p) for p in grouped} == {id(p) for p in trainable}
    encoder = {id(p) for p in policy.obs_encoder.parameters()}
    for group in optimizer.param_groups:
        if any(id(p) in encoder for p in group["params"]):
            assert group["weight_decay"] == 0.5


def test_square_settings_build():
    """The encoder settings of robomimic's Square and Can, whose data come later."""
    pytest.importorskip("robomimic")
    camera = "{shape: [3, 84, 84], type: rgb}"
    policy = make_policy(
        "train_diffusion_transformer_hybrid_pusht_image",
        "policy.obs_encoder.crop=[76,76]",
        "task.shape_meta.action.shape=[7]",
        "~task.shape_meta.obs.image",
        "~task.shape_meta.obs.agent_pos",
        f"+task.shape_meta.obs.agentview_image={camera}",
        f"+task.shape_meta.obs.robot0_eye_in_hand_image={camera}",
        "+task.shape_meta.obs.robot0_eef_pos={shape: [3]}",
        "+task.shape_meta.obs.robot0_eef_quat={shape: [4]}",
        "+task.shape_meta.obs.robot0_gripper_qpos={shape: [2]}",
    )
    assert policy.obs_encoder.output_dim == 137


def calls_of_the_network(policy) -> list[int]:
    """Fills up with the rows of each sample that is drawn from now on."""
    rows, sample = [], policy.process.sample

    def counting(prepare, shape, *args, **kwargs):
        rows.append(shape[0])
        return sample(prepare, shape, *args, **kwargs)

    policy.process.sample = counting
    return rows


@pytest.mark.parametrize("conditioning", ["global", "inpaint"])
def test_less_frequent_predictions_follow_the_chunk_in_between(conditioning):
    overrides = [f"policy.conditioning={conditioning}", "policy.n_action_steps=4"]
    policy = make_policy(UNET, *overrides, "policy.predict_every_n=3").eval()
    rows = calls_of_the_network(policy)
    results = [policy.predict_action(make_obs(policy, 2, seed=i)) for i in range(4)]
    assert rows == [2, 2]
    for call in (1, 2):
        expected = results[0]["action_pred"][:, 1 + 4 * call : 5 + 4 * call]
        assert torch.equal(results[call]["action"], expected)
    assert policy.n_actions_ahead == 15 - 2 * 4


@pytest.mark.slow
def test_faster_execution_skips_actions():
    plain, fast = (
        make_policy(UNET, "policy.n_action_steps=4", f"policy.return_every_n={n}").eval()
        for n in (1, 2)
    )
    obs = make_obs(plain, 2)
    expected = plain.predict_action(obs)["action_pred"]
    found = fast.predict_action(obs)
    assert torch.equal(found["action_pred"], expected[:, [0, *range(2, 16, 2)]])
    assert torch.equal(found["action"], expected[:, 2:9:2])
    assert fast.action_pred_offsets == (-1, *range(1, 15, 2))


@pytest.mark.slow
def test_overlapping_chunks_are_averaged():
    settings = ["policy.n_action_steps=1", "policy.noise_scheduler.num_inference_steps=2"]
    newest, mean = (
        make_policy(UNET, *settings, f"policy.alpha={alpha}").eval() for alpha in (0, 0.5)
    )
    first, second = (newest.predict_action(make_obs(newest, 2, seed=i)) for i in (1, 2))
    mean.predict_action(make_obs(mean, 2, seed=1))
    found = mean.predict_action(make_obs(mean, 2, seed=2))["action"][:, 0]
    # The first chunk also stands for the 13 before it, so both have about half of the weight.
    expected = (second["action_pred"][:, 1] + first["action_pred"][:, 2]) / 2
    reach = (second["action_pred"][:, 1] - first["action_pred"][:, 2]).abs().max()
    assert reach > 1
    assert (found - expected).abs().max() < 1e-3 * reach
