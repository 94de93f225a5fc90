import pytest

from diffusion_policy.util import distributed
from diffusion_policy.util.errors import UserError


def test_one_process_answers_itself():
    assert (distributed.rank(), distributed.n_processes()) == (0, 1)
    assert distributed.is_main()
    assert distributed.total([1.5, True]) == [1.5, 1]
    assert distributed.gather(["a", "b"]) == ["a", "b"]
    assert distributed.from_main("x") == "x"
    with distributed.main_first():
        pass


@pytest.mark.parametrize("device", ["cpu:0", "meta"])
def test_devices_that_processes_would_share_are_refused(monkeypatch, device):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.setenv(name, "0")
    with pytest.raises(UserError, match=f"training.device is '{device}', but under torchrun"):
        distributed.join(device)
