import pytest
import torch

from diffusion_policy.model.diffusion.conditional_unet1d import ConditionalUnet1D
from diffusion_policy.util.errors import UserError
from tests.reference import golden, reference_config, reference_weights

CASES = ["global_cond", "local_cond"]
SMALL = {"input_dim": 2, "diffusion_step_embed_dim": 8, "down_dims": (8, 16), "n_groups": 4}


def golden_tensors(case):
    return {key: torch.tensor(value) for key, value in golden(f"unet1d_{case}").items()}


@pytest.mark.parametrize("case", CASES)
def test_output_equals_reference(case):
    name = f"conditional_unet1d/{case}"
    unet = ConditionalUnet1D(**reference_config(name))
    unet.load_state_dict(reference_weights(name))
    inputs = golden_tensors(case)
    expected = inputs.pop("output")
    with torch.no_grad():
        torch.testing.assert_close(unet(**inputs), expected, atol=1e-5, rtol=0)


def test_size_for_pusht_is_the_published_one():
    # 65.8 M for two observations of nine keypoints, each with its visibility, and the agent.
    with torch.device("meta"):
        unet = ConditionalUnet1D(
            input_dim=2, global_cond_dim=2 * 20, kernel_size=5, cond_predict_scale=True
        )
    assert round(sum(p.numel() for p in unet.parameters()) / 1e6, 1) == 65.8


@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("cond", [{}, {"global_cond": (3, 5)}, {"local_cond": (3, 4, 5)}])
def test_all_that_trains_gets_a_gradient(scale, cond):
    unet = ConditionalUnet1D(
        **SMALL,
        **{f"{name}_dim": shape[-1] for name, shape in cond.items()},
        cond_predict_scale=scale,
    )
    inputs = {name: torch.randn(shape) for name, shape in cond.items()}
    unet(torch.randn(3, 4, 2), torch.arange(3), **inputs).square().sum().backward()
    trains = [name for name, p in unet.named_parameters() if p.requires_grad]
    assert [name for name, p in unet.named_parameters() if p.grad is not None] == trains


def test_one_time_serves_the_whole_batch_and_may_be_fractional():
    unet, x = ConditionalUnet1D(**SMALL), torch.randn(3, 4, 2)
    with torch.no_grad():
        torch.testing.assert_close(unet(x, 0.5), unet(x, torch.full((3,), 0.5)))
        assert not torch.allclose(unet(x, 0.5), unet(x, 0.0), atol=1e-4)


def test_output_is_float32_under_autocast():
    unet, x = ConditionalUnet1D(**SMALL), torch.randn(3, 4, 2)
    with torch.no_grad():
        exact = unet(x, 7)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = unet(x, 7)
    torch.testing.assert_close(rounded, exact, atol=0.05, rtol=0)


@pytest.mark.parametrize(("down_dims", "stride"), [((8,), 1), ((8, 16), 2), ((8, 16, 16), 4)])
def test_shape_is_kept_at_multiples_of_the_stride(down_dims, stride):
    unet = ConditionalUnet1D(**SMALL | {"down_dims": down_dims})
    assert unet.stride == stride
    x = torch.randn(2, 3 * stride, 2)
    assert unet(x, 0).shape == x.shape


@pytest.mark.parametrize("length", [0, 3, 5])
def test_other_lengths_are_refused(length):
    unet = ConditionalUnet1D(**SMALL)
    with pytest.raises(UserError, match=f"horizon is {length}; use a multiple of 2"):
        unet(torch.randn(2, length, 2), 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"down_dims": ()}, "policy.down_dims is \\[\\]; use one or more"),
        ({"down_dims": (8, 18)}, r"down_dims is \[8, 18\]; use one or more multiples of .* \(4\)"),
        ({"n_groups": 0}, r"n_groups \(0\)"),
        ({"kernel_size": 4}, "kernel_size is 4; use an odd"),
        ({"diffusion_step_embed_dim": 7}, "diffusion_step_embed_dim is 7; use an even"),
        ({"diffusion_step_embed_dim": 2}, "diffusion_step_embed_dim is 2"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        ConditionalUnet1D(**SMALL | settings)


@pytest.mark.parametrize(("name", "shape"), [("global_cond", (2, 5)), ("local_cond", (2, 4, 5))])
def test_condition_must_be_given_exactly_when_built_for(name, shape):
    x, cond = torch.randn(2, 4, 2), torch.randn(shape)
    with pytest.raises(UserError, match=f"{name} is missing"):
        ConditionalUnet1D(**SMALL, **{f"{name}_dim": 5})(x, 0)
    with pytest.raises(UserError, match=f"{name} is given, but {name}_dim is None"):
        ConditionalUnet1D(**SMALL)(x, 0, **{name: cond})
