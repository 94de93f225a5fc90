"""Diffusion and flow matching, against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import DDIMScheduler

from diffusion_policy.model.diffusion.process import (
    PREDICTION_TYPES,
    SPACINGS,
    Diffusion,
    FlowMatching,
)
from diffusion_policy.util.errors import UserError

SAMPLERS = [
    Diffusion("ddpm"),
    Diffusion("ddpm", prediction_type="sample"),
    Diffusion("ddim", num_inference_steps=10),
    Diffusion("ddim", num_inference_steps=16, prediction_type="v_prediction"),
    Diffusion("ddim", num_inference_steps=5, timestep_spacing="inner"),
    Diffusion("ddpm", num_inference_steps=40, timestep_spacing="inner"),
    Diffusion("dpm_solver", num_inference_steps=10, prediction_type="sample"),
    Diffusion("dpm_solver", num_inference_steps=6, timestep_spacing="inner"),
    FlowMatching(10),
]
SHAPE = (3, 4, 2)


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def perfect(process, clean):
    """Return the outputs of a network that knows the clean trajectory."""

    def predict(x, time):
        if isinstance(process, FlowMatching):
            s = (time / process.time_scale)[:, None, None]
            return (clean - x) / (1 - s)
        abar = process._scheduler.alphas_cumprod[time.long()][:, None, None]
        noise = (x - abar.sqrt() * clean) / (1 - abar).sqrt()
        return {
            "epsilon": noise,
            "sample": clean,
            "v_prediction": abar.sqrt() * noise - (1 - abar).sqrt() * clean,
        }[process.prediction_type]

    return predict


def at_each(predict):
    """``predict(x, time)`` as sampling takes it."""
    return lambda times: [lambda x, time=time: predict(x, time.expand(len(x))) for time in times]


@pytest.fixture(params=SAMPLERS, ids=lambda p: f"{type(p).__name__}-{p.num_inference_steps}")
def process(request):
    return request.param


def test_a_perfect_network_has_no_loss_and_samples_the_clean_trajectory(process):
    torch.manual_seed(0)
    clean = torch.rand(SHAPE) * 1.6 - 0.8
    predict = perfect(process, clean)
    assert process.loss(predict, clean) < 1e-6
    sample = process.sample(at_each(predict), SHAPE, generators(0, 1, 2), torch.device("cpu"))
    torch.testing.assert_close(sample, clean, atol=0.02, rtol=0)


def test_a_row_depends_on_its_generator_alone(process):
    def predict(x, time):
        return 0.3 * x + 0.01 * time[:, None, None]

    device = torch.device("cpu")
    together = process.sample(at_each(predict), SHAPE, generators(5, 6, 7), device)
    for row, seed in enumerate((5, 6, 7)):
        alone = process.sample(at_each(predict), (1, *SHAPE[1:]), generators(seed), device)
        assert torch.equal(together[row], alone[0])


def test_known_entries_reach_the_network_clean_and_count_for_nothing(process):
    torch.manual_seed(0)
    clean = torch.rand(SHAPE)
    known = torch.zeros(SHAPE, dtype=torch.bool)
    known[:, :2] = True
    seen = []

    def predict(x, time):
        seen.append(x)
        return 1000 * known.float()

    loss = process.loss(predict, clean, known)
    assert loss < 10  # the answers of 1000 are not counted
    sample = process.sample(
        at_each(predict), SHAPE, generators(0, 1, 2), torch.device("cpu"), clean=clean, known=known
    )
    assert len(seen) == 1 + process.num_inference_steps
    for x in [*seen, sample]:
        assert torch.equal(x[known], clean[known])


def test_corruption_follows_the_schedule():
    torch.manual_seed(0)
    clean, noise = torch.randn(2, 200, 4, 2)
    process = Diffusion()
    noisy, time, target = process.corrupt(clean, noise)
    assert time.min() >= 0
    assert time.max() < 100
    assert len(time.unique()) > 50
    # squaredcos_cap_v2: abar(t) = cos^2((t / T + 0.008) / 1.008 * pi / 2), up to clipped betas
    expected = torch.cos((time / 100 + 0.008 + 0.01) / 1.008 * math.pi / 2) ** 2
    abar = process._scheduler.alphas_cumprod[time]
    torch.testing.assert_close(abar, expected, atol=2e-3, rtol=0)
    expected_noisy = abar.sqrt()[:, None, None] * clean + (1 - abar).sqrt()[:, None, None] * noise
    torch.testing.assert_close(noisy, expected_noisy)
    assert torch.equal(target, noise)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(sampler="ddpn"), "policy.noise_scheduler.sampler is 'ddpn'; use one of ddpm"),
        (dict(num_inference_steps=101), "num_inference_steps is 101; use at most"),
        (dict(num_inference_steps=0), "num_inference_steps is 0; use a whole number, at least 1"),
        (dict(num_inference_steps=2.5), "num_inference_steps is 2.5; use a whole number"),
        (dict(num_inference_steps="ten"), "num_inference_steps is 'ten'; use a whole number"),
        (dict(num_inference_steps=True), "num_inference_steps is True; use a whole number"),
        (dict(num_train_timesteps=0.5), "num_train_timesteps is 0.5; use a whole number"),
        (dict(prediction_type="noise"), "prediction_type is 'noise'; use one of epsilon"),
        (dict(beta_schedule="cosine"), "beta_schedule is 'cosine'; use linear"),
        (dict(timestep_spacing="even"), "timestep_spacing is 'even'; use one of whole, inner"),
        (dict(timestep_spacing="inner"), "is 100; use at most 85, or timestep_spacing=whole"),
    ],
)
def test_impossible_settings_are_named(options, message):
    with pytest.raises(UserError, match=message):
        Diffusion(**options)


@pytest.mark.parametrize("sampler", ["ddim", "dpm_solver"])
def test_every_sampler_trains_alike_whatever_was_sampled_before(sampler):
    process, clean = Diffusion(sampler, num_inference_steps=10), torch.rand(200, 4, 2)
    for _ in range(2):
        pairs = []
        for each in (process, Diffusion()):
            torch.manual_seed(0)
            pairs.append(each.corrupt(clean, torch.ones_like(clean)))
        for ours, reference in zip(*pairs, strict=True):
            assert torch.equal(ours, reference)
        process.sample(at_each(lambda x, time: x), (1, 4, 2), generators(0), torch.device("cpu"))


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("clip_sample", [True, False])
@pytest.mark.parametrize("n_steps", [6, 10])
def test_ddim_is_that_of_diffusers(prediction_type, clip_sample, n_steps):
    options = dict(
        beta_schedule="squaredcos_cap_v2", prediction_type=prediction_type, clip_sample=clip_sample
    )
    process = Diffusion("ddim", num_inference_steps=n_steps, **options)
    theirs = DDIMScheduler(num_train_timesteps=100, **options)
    theirs.set_timesteps(n_steps)
    torch.manual_seed(0)
    x, weight = torch.randn(SHAPE), torch.randn(2, 2)

    times = process.times(torch.device("cpu"))
    assert torch.equal(torch.stack(times), theirs.timesteps)
    for index, time in enumerate(times):
        output = torch.tanh(x @ weight + time / 100)
        expected = theirs.step(output, time, x).prev_sample
        x = process.step(output, index, x, [])
        torch.testing.assert_close(x, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("n_levels", [2, 3, 4, 10, 1000])
@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm_solver"])
def test_inner_levels_exist_and_differ(sampler, n_levels):
    for n_steps in {1, n_levels // 2, int(0.9 * n_levels) - int(0.05 * n_levels)}:
        options = {"num_train_timesteps": n_levels, "num_inference_steps": n_steps}
        process = Diffusion(sampler, timestep_spacing="inner", **options)
        times = torch.stack(process.times(torch.device("cpu")))
        assert len(times) == n_steps
        assert (times.diff() < 0).all()
        assert 0 <= times.min() <= times.max() < n_levels


def test_inner_levels_reach_from_90_to_5_percent_evenly():
    process = Diffusion("ddim", num_inference_steps=5, timestep_spacing="inner")
    assert [int(time) for time in process.times(torch.device("cpu"))] == [90, 69, 48, 26, 5]


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm_solver"])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("n_steps", [5, 10])
def test_a_small_error_at_the_noisiest_level_is_not_amplified(sampler, spacing, n_steps):
    """Almost all of the input is noise: dividing by the small rest turns 5 % into hundreds."""
    process = Diffusion(sampler, num_inference_steps=n_steps, timestep_spacing=spacing)
    sample = process.sample(
        at_each(lambda x, time: 0.95 * x), SHAPE, generators(0, 1, 2), torch.device("cpu")
    )
    assert sample.abs().max() < 1.5


def test_the_solver_needs_distinct_levels():
    with pytest.raises(UserError, match="dpm_solver needs fewer than num_train_timesteps"):
        Diffusion("dpm_solver")


def test_flow_needs_a_step():
    with pytest.raises(UserError, match="num_inference_steps is 0"):
        FlowMatching(0)
