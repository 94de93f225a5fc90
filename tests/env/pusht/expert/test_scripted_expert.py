"""The scripted expert."""

import pytest

from diffusion_policy.env.pusht.expert.scripted_expert import ScriptedExpert
from diffusion_policy.env.pusht.simulation import PushTSimulation, initial_state


@pytest.mark.slow
@pytest.mark.parametrize("seed", [100000, 100001, 100002])
def test_expert_succeeds_from_random_starts(seed):
    simulation, expert = PushTSimulation(), ScriptedExpert()
    simulation.set_state(initial_state(seed))
    for _ in range(150):
        simulation.step(expert.action(simulation.get_state()))
        if simulation.coverage() > 0.95:
            return
    pytest.fail(f"coverage {simulation.coverage():.3f} after 150 steps")
