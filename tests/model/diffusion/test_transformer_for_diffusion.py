import pytest
import torch

from diffusion_policy.model.diffusion.transformer_for_diffusion import TransformerForDiffusion
from diffusion_policy.util.errors import UserError
from tests.reference import golden, reference_config, reference_weights

HORIZON, N_OBS = 5, 3
SMALL = {
    "input_dim": 2,
    "output_dim": 3,
    "horizon": HORIZON,
    "n_obs_steps": N_OBS,
    "n_layer": 2,
    "n_head": 2,
    "n_emb": 16,
}
VARIANTS = {
    "decoder": {"obs_as_cond": True, "cond_dim": 4},
    "encdec": {"obs_as_cond": True, "cond_dim": 4, "n_cond_layers": 1},
    "decoder_time_only": {},
    "bert": {"time_as_cond": False},
}


def build(variant, **settings):
    torch.manual_seed(0)
    network = TransformerForDiffusion(**SMALL | VARIANTS[variant] | settings).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter *= 10  # initial weights are so small that inputs hardly matter
    return network


def inputs(network, batch=2):
    cond = torch.randn(batch, N_OBS, 4) if network.obs_as_cond else None
    return torch.randn(batch, HORIZON, 2), torch.arange(batch), cond


@pytest.mark.parametrize("grad", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("case", ["decoder", "encdec", "bert"])
def test_output_equals_reference(case, grad):
    name = f"transformer_for_diffusion/{case}"
    network = TransformerForDiffusion(**reference_config(name))
    network.load_state_dict(reference_weights(name))
    tensors = {key: torch.tensor(value) for key, value in golden(f"transformer_{case}").items()}
    expected = tensors.pop("output")
    with torch.set_grad_enabled(grad):
        output = network(**tensors).detach()
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=0)


def reach(output, source):
    """(Q, K) bool: output step q depends on source step k."""
    rows = []
    for q in range(output.shape[1]):
        (gradient,) = torch.autograd.grad(output[:, q].square().sum(), source, retain_graph=True)
        rows.append(gradient.abs().sum((0, 2)) > 0)
    return torch.stack(rows)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_steps_see_what_causality_allows(variant, causal):
    network = build(variant, causal_attn=causal)
    sample, time, cond = inputs(network)
    sample.requires_grad_()
    if cond is not None:
        cond.requires_grad_()
    output = network(sample, time, cond)
    everything = torch.ones(HORIZON, HORIZON, dtype=torch.bool)
    assert torch.equal(reach(output, sample), everything.tril() if causal else everything)
    if cond is not None:
        # An encoder over the memory mixes observations before any step looks at them.
        hides = causal and variant == "decoder"
        seen = everything[:, :N_OBS]
        assert torch.equal(reach(output, cond), seen.tril() if hides else seen)


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_time_serves_the_whole_batch_and_may_be_fractional(variant):
    network = build(variant)
    sample, _, cond = inputs(network)
    with torch.no_grad():
        half = network(sample, 0.5, cond)
        torch.testing.assert_close(half, network(sample, torch.full((2,), 0.5), cond))
        assert not torch.allclose(half, network(sample, 0.0, cond), atol=1e-3)


@pytest.mark.parametrize("variant", VARIANTS)
def test_causal_steps_do_not_depend_on_the_length(variant):
    network = build(variant, causal_attn=True)
    sample, time, cond = inputs(network)
    with torch.no_grad():
        whole, part = network(sample, time, cond), network(sample[:, :3], time, cond)
    torch.testing.assert_close(part, whole[:, :3])


@pytest.mark.parametrize("grad", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_output_is_float32_under_autocast(variant, grad):
    network = build(variant, causal_attn=True)
    sample, time, cond = inputs(network)
    with torch.set_grad_enabled(grad):
        exact = network(sample, time, cond)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = network(sample, time, cond)
    torch.testing.assert_close(rounded, exact, atol=0.05, rtol=0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_initial_weights_are_small_and_biases_zero(variant):
    network = TransformerForDiffusion(**SMALL | VARIANTS[variant] | {"n_emb": 64})
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif parameter.ndim == 1:
            assert (parameter == 1).all(), name
        else:
            # Six standard errors of a standard deviation of n normal numbers.
            tolerance = 6 * 0.02 / (2 * parameter.numel()) ** 0.5
            assert parameter.std().item() == pytest.approx(0.02, abs=tolerance), name


@pytest.mark.parametrize("variant", VARIANTS)
def test_matrices_decay_and_nothing_else_does(variant):
    network = build(variant)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    decay, rest = network.parameter_groups(weight_decay=0.1)
    assert (decay["weight_decay"], rest["weight_decay"]) == (0.1, 0.0)
    grouped = [names[id(p)] for group in (decay, rest) for p in group["params"]]
    assert sorted(grouped) == sorted(names.values())
    for name in (names[id(p)] for p in rest["params"]):
        assert name.endswith(("bias", "pos_emb")) or "norm" in name or name == "ln_f.weight"
    for parameter in decay["params"]:
        assert parameter.ndim == 2


def test_decay_is_left_to_the_optimiser_and_frozen_parameters_are_left_out():
    network = build("decoder")
    network.head.requires_grad_(False)
    decay, rest = network.parameter_groups()
    optimizer = torch.optim.AdamW([decay, rest], weight_decay=0.3)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.0]
    n_grouped = len(decay["params"]) + len(rest["params"])
    assert n_grouped == len(list(network.parameters())) - 2


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_gets_a_gradient(variant):
    network = build(variant)
    network(*inputs(network)).square().sum().backward()
    assert not [name for name, p in network.named_parameters() if p.grad is None]


@pytest.mark.parametrize("field", ["p_drop_emb", "p_drop_attn"])
def test_dropout_acts_in_training_alone(field):
    none = {"p_drop_emb": 0.0, "p_drop_attn": 0.0}
    network = build("encdec", **none | {field: 0.5})
    arguments = inputs(network)
    with torch.no_grad():
        exact, again = network(*arguments), network(*arguments)
        dropped = network.train()(*arguments)
    assert torch.equal(exact, again)
    assert not torch.allclose(exact, dropped)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_head": 3}, r"n_head is 3; use a number that divides policy.n_emb \(16\)"),
        ({"n_head": 0}, "n_head is 0"),
        ({"n_head": 1, "n_emb": 15}, "n_emb is 15; use an even"),
        ({"p_drop_emb": 1.0}, "p_drop_emb is 1.0; use at least 0"),
        ({"p_drop_attn": -0.1}, "p_drop_attn is -0.1; use at least 0"),
        ({"obs_as_cond": True}, "cond_dim is 0 while obs_as_cond is True"),
        ({"cond_dim": 4}, "cond_dim is 4 while obs_as_cond is False"),
        ({"cond_dim": 4, "obs_as_cond": True, "time_as_cond": False}, "time_as_cond is False"),
        ({"n_cond_layers": -1}, "n_cond_layers is -1; use at least 0"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        TransformerForDiffusion(**SMALL | settings)


@pytest.mark.parametrize(
    ("variant", "sample_steps", "cond_shape", "message"),
    [
        ("bert", 6, None, "sample has 6 steps; use at most the horizon of 5"),
        ("decoder", 5, None, "cond is missing"),
        ("bert", 5, (2, 3, 4), "cond is given while obs_as_cond is False"),
        ("decoder", 5, (2, 4, 4), r"cond has 4 steps; use at most n_obs_steps \(3\)"),
    ],
)
def test_bad_inputs_are_refused(variant, sample_steps, cond_shape, message):
    cond = None if cond_shape is None else torch.randn(cond_shape)
    with pytest.raises(UserError, match=message):
        build(variant)(torch.randn(2, sample_steps, 2), 0, cond)
