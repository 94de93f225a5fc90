import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from diffusion_policy.model.common.normalizer import (
    LinearNormalizer,
    SingleFieldLinearNormalizer,
)
from tests.reference import golden


@pytest.mark.parametrize("mode", ["limits", "gaussian"])
@pytest.mark.parametrize("fit_offset", [True, False])
def test_equals_reference(mode, fit_offset):
    record = golden("normalizer")
    field = SingleFieldLinearNormalizer.create_fit(record["x"], mode=mode, fit_offset=fit_offset)
    name = f"{mode}_{'offset' if fit_offset else 'nooffset'}"
    np.testing.assert_allclose(field.scale, record[f"{name}_scale"], atol=1e-5)
    np.testing.assert_allclose(field.offset, record[f"{name}_offset"], atol=1e-5)
    query = field.normalize(record["query"])
    np.testing.assert_allclose(query, record[f"{name}_query"], atol=1e-5)
    stats = field.get_input_stats()
    for statistic in ("min", "max", "mean", "std"):
        value = stats[statistic]
        np.testing.assert_allclose(value, record[f"stat_{statistic}"], atol=1e-5)


values = st.floats(-1e3, 1e3, width=32)


@pytest.mark.slow
@given(hnp.arrays(np.float32, st.tuples(st.integers(2, 30), st.integers(1, 4)), elements=values))
def test_limits_bound_the_data_and_invert(data):
    field = SingleFieldLinearNormalizer.create_fit(data, mode="limits")
    normalised = field.normalize(data)
    assert normalised.min() >= -1.001
    assert normalised.max() <= 1.001
    np.testing.assert_allclose(field.unnormalize(normalised), data, atol=0.02, rtol=1e-3)


def test_state_dict_restores_an_empty_normaliser():
    fitted = LinearNormalizer()
    fitted.fit({"state": torch.randn(50, 3), "action": torch.randn(50, 2)})
    restored = LinearNormalizer()
    restored.load_state_dict(fitted.state_dict())
    batch = {"state": torch.randn(4, 5, 3), "action": torch.randn(4, 5, 2)}
    for key, value in fitted.normalize(batch).items():
        assert torch.equal(restored.normalize(batch)[key], value)
    assert "params_dict.state.input_stats.mean" in restored.state_dict()
    assert not any(p.requires_grad for p in restored.parameters())


def test_a_field_may_have_any_name():
    names = ["observation.state", "items", "training", "a%2Eb", "größe"]
    fitted, restored = LinearNormalizer(), LinearNormalizer()
    fitted.fit({name: torch.randn(50, 2) + i for i, name in enumerate(names)})
    restored.load_state_dict(fitted.state_dict())
    assert sorted(restored.fields) == sorted(names)
    for name in names:
        assert name in restored
        assert torch.equal(restored[name].offset, fitted[name].offset)
    assert restored.get_input_stats().keys() == set(names)


def test_a_loaded_state_goes_where_the_normaliser_is():
    fitted = LinearNormalizer()
    fitted.fit({"state": torch.randn(50, 3)})
    elsewhere = LinearNormalizer()
    elsewhere.fit({"state": torch.randn(50, 3)})
    elsewhere.to("meta")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # loading into meta is a no-op, torch says
        elsewhere.load_state_dict(fitted.state_dict())
    assert {p.device.type for p in elsewhere.parameters()} == {"meta"}


def test_bare_arrays_use_the_default_field():
    normalizer = LinearNormalizer()
    x = torch.randn(20, 3)
    normalizer.fit(x)
    torch.testing.assert_close(normalizer.unnormalize(normalizer.normalize(x)), x)


def test_unknown_field_and_mode_are_named():
    normalizer = LinearNormalizer()
    normalizer.fit({"state": torch.randn(5, 2)})
    with pytest.raises(KeyError, match="no field 'image'"):
        normalizer["image"]
    with pytest.raises(ValueError, match="mode is 'zscore'"):
        normalizer.fit({"state": torch.randn(5, 2)}, mode="zscore")


def test_image_field_broadcasts_over_the_trailing_axes():
    scale, offset = torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1), torch.ones(3, 1, 1)
    statistics = dict.fromkeys(("min", "max", "mean", "std"), scale)
    field = SingleFieldLinearNormalizer.create_manual(scale, offset, statistics)
    images = torch.randint(0, 255, (2, 4, 3, 5, 6), dtype=torch.uint8)
    torch.testing.assert_close(field.normalize(images), images * scale + 1)


@pytest.mark.slow
@given(hnp.arrays(np.float32, st.tuples(st.integers(2, 60), st.integers(1, 4)), elements=values))
def test_quantiles_are_mapped_to_the_edges(data):
    field = SingleFieldLinearNormalizer.create_fit(data, mode="quantile")
    low, high = np.quantile(data.astype(np.float64), [0.01, 0.99], axis=0).astype(np.float32)
    stats = field.get_input_stats()
    np.testing.assert_allclose(stats["q01"], low, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(stats["q99"], high, rtol=1e-5, atol=1e-3)
    wide = high - low > 1
    np.testing.assert_allclose(field.normalize(low)[wide], -1, atol=0.01)
    np.testing.assert_allclose(field.normalize(high)[wide], 1, atol=0.01)


@pytest.mark.parametrize("fitted", [False, True])
def test_a_state_without_quantiles_loads(fitted):
    old = LinearNormalizer()
    old.fit({"state": torch.randn(50, 3)})
    state = {k: v for k, v in old.state_dict().items() if not k.endswith(("q01", "q99"))}
    restored = LinearNormalizer()
    if fitted:
        restored.fit({"state": torch.randn(50, 3)})
    restored.load_state_dict(state)
    assert restored.state_dict().keys() == state.keys()
    assert list(restored["state"].get_output_stats()) == ["min", "max", "mean", "std"]
    x = torch.randn(4, 3)
    assert torch.equal(restored["state"].normalize(x), old["state"].normalize(x))


def of_embodiments() -> LinearNormalizer:
    each = {}
    for name, shift in (("so101", 100.0), ("pusht", 0.0)):
        each[name] = LinearNormalizer()
        each[name].fit({"state": torch.randn(50, 3) + shift, "action": torch.randn(50, 2) * shift})
    return LinearNormalizer.of_embodiments(each)


def test_one_embodiment_is_the_normaliser_itself():
    alone = LinearNormalizer()
    assert alone.of(None) is alone
    assert alone.of(torch.zeros(4, dtype=torch.int64)) is alone
    assert alone.embodiment_names == ()


def test_each_row_has_the_statistics_of_its_embodiment():
    together = LinearNormalizer()
    together.load_state_dict(of_embodiments().state_dict())
    assert together.embodiment_names == ("pusht", "so101")
    rows = torch.tensor([1, 0, 1])
    batch = {"state": torch.randn(3, 5, 3), "action": torch.randn(3, 4, 2)}
    chosen = together.of(rows)
    normalised = chosen.normalize(batch)
    for key, value in batch.items():
        for row, index in enumerate(rows.tolist()):
            expected = together.of(index)[key].normalize(value[row])
            torch.testing.assert_close(normalised[key][row], expected, rtol=0, atol=0)
        flat = chosen[key].normalize(value.flatten(0, 1))
        assert torch.equal(flat, normalised[key].flatten(0, 1))
        torch.testing.assert_close(chosen.unnormalize(normalised)[key], value, rtol=0, atol=1e-3)


def test_several_embodiments_need_a_choice():
    with pytest.raises(ValueError, match=r"no 'embodiment'; .* pusht, so101"):
        of_embodiments().of(None)
