import os
import signal

import pytest

from diffusion_policy.util.stop_signal import StopSignal


def test_the_first_signal_is_a_request_and_the_second_ends(capfd):
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.received is signal.SIGINT
        assert "SIGINT: saving and stopping" in capfd.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_under_a_launcher_every_signal_is_a_request(capfd):
    with StopSignal(patient=True) as stop:
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
            assert stop.received is number
    assert capfd.readouterr().err == ""
