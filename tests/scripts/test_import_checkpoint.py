"""The command that imports a published Diffusion Policy checkpoint."""

import zipfile

import hydra
import pytest
import torch

from diffusion_policy.checkpoint.saved_policy import load_policy
from diffusion_policy.interop.diffusion_policy_config import our_config
from diffusion_policy.model.vision.robomimic_encoder import RobomimicObsEncoder
from diffusion_policy.scripts.import_checkpoint import main
from tests.interop.published import (
    NETWORKS,
    field,
    hybrid_config,
    low_dim_config,
    low_dim_state,
    write,
)
from tests.reference import golden


def run(source, target, *options):
    main([str(source), str(target), *options])


def refusal(capsys, source, target, *options) -> str:
    with pytest.raises(SystemExit):
        run(source, target, *(options or ("--allow-pickle",)))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert not target.exists()
    return lines[0]


@pytest.mark.slow
@pytest.mark.parametrize("case", NETWORKS)
def test_imported_policy_denoises_like_the_reference(tmp_path, case):
    source = write(tmp_path / "in.ckpt", low_dim_config(case), low_dim_state(case))
    run(source, tmp_path / "out.ckpt", "--allow-pickle")
    policy, cfg = load_policy(tmp_path / "out.ckpt")
    assert cfg.task.env_runner.env.kwargs.obs == ["obs"]
    family, _, variant = NETWORKS[case].partition("/")
    file = f"{'unet1d' if 'unet' in family else 'transformer'}_{variant}"
    record = {key: torch.tensor(value) for key, value in golden(file).items()}
    expected = record.pop("output")
    with torch.no_grad():
        torch.testing.assert_close(policy.model(**record), expected, atol=1e-5, rtol=0)
    raw = torch.full((1, 2, 20), 512.0)
    assert torch.equal(policy.normalizer["obs"].normalize(raw), torch.ones(1, 2, 20))


@pytest.mark.slow
def test_imported_policy_acts_from_the_last_observation_on(tmp_path):
    config = low_dim_config("unet_global")
    config["policy"]["num_inference_steps"] = 2
    source = write(tmp_path / "in.ckpt", config, low_dim_state("unet_global"))
    run(source, tmp_path / "out.ckpt", "--allow-pickle")
    policy, _ = load_policy(tmp_path / "out.ckpt")
    result = policy.predict_action({"obs": torch.full((1, 2, 20), 100.0)})
    assert torch.equal(result["action"], result["action_pred"][:, 1:9])


@pytest.mark.slow
def test_weights_without_averages(tmp_path):
    state = low_dim_state("unet_global")
    states = {"state_dicts": {"model": state}}
    source = write(tmp_path / "in.ckpt", low_dim_config("unet_global"), state, **states)
    run(source, tmp_path / "out.ckpt", "--allow-pickle")
    weight = "model.final_conv.1.weight"
    assert torch.equal(load_policy(tmp_path / "out.ckpt")[0].state_dict()[weight], state[weight])


def hybrid_state():
    """From our encoder, under their names."""
    policy = hydra.utils.instantiate(our_config(hybrid_config())[0].policy)
    ours = policy.state_dict()
    theirs = {n.replace("obs_encoder.encoder.", "obs_encoder."): v for n, v in ours.items()}
    return {
        **theirs,
        **field("image", 1, 2, -1),
        **field("agent_pos", 2, 1 / 256, -1),
        **field("action", 2, 1 / 256, -1),
    }


@pytest.mark.slow
def test_image_policy(tmp_path):
    pytest.importorskip("robomimic", reason="the robomimic extra is not installed")
    state = hybrid_state()
    source = write(tmp_path / "in.ckpt", hybrid_config(), state)
    run(source, tmp_path / "out.ckpt", "--allow-pickle")
    policy, cfg = load_policy(tmp_path / "out.ckpt")
    assert isinstance(policy.obs_encoder, RobomimicObsEncoder)
    assert cfg.task.env_runner.env.kwargs.obs == ["image", "agent_pos"]
    assert (cfg.policy.obs_encoder.crop, cfg.policy.obs_encoder.group_norm) == ([84, 84], True)
    images = torch.randint(256, (2, 3, 96, 96), dtype=torch.uint8)
    pos = torch.full((2, 2), 256.0)
    obs = {"image": images[None], "agent_pos": pos[None]}
    features = policy._features(obs, policy.normalizer)[0]
    # The published policy maps pixels in [0, 1] by 2 x - 1.
    normalised = {"image": images / 255 * 2 - 1, "agent_pos": torch.zeros(2, 2)}
    torch.testing.assert_close(features, policy.obs_encoder(normalised))
    assert features.shape == (2, 66)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("policy._target_", "a.BETLowdimPolicy", "cfg.policy._target_ is 'BETLowdimPolicy'; only"),
        ("policy.oa_step_convention", False, "oa_step_convention is False; its actions start one"),
        ("policy.eta", 0.5, "cfg.policy.eta is 0.5; this setting is unknown"),
        ("policy.horizon", "${horizon}", "cfg.policy.horizon is '${horizon}'; a resolved config"),
        ("policy.obs_dim", 40, "cfg.policy.obs_dim is 40; only 20"),
        ("policy.noise_scheduler.variance_type", "learned", "variance_type is 'learned'; only"),
        ("policy.noise_scheduler._target_", "a.PNDMScheduler", "is 'PNDMScheduler'; only"),
        ("policy.model.width", 3, "cfg.policy.model.width is 3; this setting is unknown"),
        ("policy.model.down_dims", [32, 64], "has shape"),
        ("policy.model.kernel_size", 3, "has shape (32, 2, 5) in the file and (32, 2, 3)"),
        ("task.name", "lift_lowdim_ph", "cfg.task.name is 'lift_lowdim_ph'; only checkpoints of P"),
        ("n_latency_steps", 2, "cfg.n_latency_steps is 2; only 0"),
    ],
)
def test_settings_without_a_counterpart_are_refused(tmp_path, capsys, path, value, message):
    config = low_dim_config("unet_global")
    *sections, key = path.split(".")
    section = config
    for name in sections:
        section = section[name]
    section[key] = value
    source = write(tmp_path / "in.ckpt", config, low_dim_state("unet_global"))
    assert message in refusal(capsys, source, tmp_path / "out.ckpt")


def test_a_pickle_needs_the_flag(tmp_path, capsys):
    config = low_dim_config("unet_global")
    source = write(tmp_path / "in.ckpt", config, low_dim_state("unet_global"))
    with pytest.raises(SystemExit):
        run(source, tmp_path / "out.ckpt")
    assert "can run code of its maker" in capsys.readouterr().err
    assert not (tmp_path / "out.ckpt").exists()


def test_damaged_and_foreign_files_are_refused(tmp_path, capsys):
    source, target = tmp_path / "in.ckpt", tmp_path / "out.ckpt"
    assert "there is no checkpoint at" in refusal(capsys, source, target)
    write(source, low_dim_config("unet_global"), low_dim_state("unet_global"))
    source.write_bytes(source.read_bytes()[:5000])
    assert "truncated or not a checkpoint of torch" in refusal(capsys, source, target)
    torch.save({"weight": torch.ones(2)}, source)
    assert "holds no state_dicts" in refusal(capsys, source, target)
    with zipfile.ZipFile(source, "w") as archive:
        archive.writestr("archive/constants.pkl", b"")
    assert "compiled program" in refusal(capsys, source, target)


def test_an_existing_file_is_kept(tmp_path, capsys):
    (tmp_path / "out.ckpt").write_bytes(b"precious")
    with pytest.raises(SystemExit):
        run(tmp_path / "in.ckpt", tmp_path / "out.ckpt", "--allow-pickle")
    assert "exists; choose another name" in capsys.readouterr().err
    assert (tmp_path / "out.ckpt").read_bytes() == b"precious"


@pytest.mark.parametrize("option", ["--config-name=train_dot", "policy.dim=3"])
def test_a_file_with_settings_takes_no_config(tmp_path, capsys, option):
    source, target = tmp_path / "in.ckpt", tmp_path / "out.ckpt"
    message = refusal(capsys, source, target, "--allow-pickle", option)
    assert "in.ckpt brings its own settings; leave out --config-name" in message
