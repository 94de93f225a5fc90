import pytest

from diffusion_policy.workspace.curves import curves


@pytest.mark.parametrize("scores", [[0.2, 0.9], [-30.0, 4.0]])
def test_every_score_is_in_sight(scores):
    records = [
        {"global_step": i, "train_loss": 1.0, "lr": 1e-4, "test/mean_score": score}
        for i, score in enumerate(scores)
    ]
    axes = curves(records).axes[1]
    low, high = axes.get_ylim()
    assert low <= min(scores) <= max(scores) <= high
    # Without success rates nothing is drawn or named for them.
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["test mean max reward"]
