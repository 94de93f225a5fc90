"""Contacts found from a state alone."""

import numpy as np

from diffusion_policy.env.pusht.contacts import contacts
from diffusion_policy.env.pusht.simulation import PushTSimulation, initial_state


def test_contacts_are_those_of_the_physics():
    random = np.random.default_rng(0)
    touched = 0
    for seed in range(4):
        simulation = PushTSimulation()
        simulation.set_state(initial_state(seed))
        for _ in range(60):
            centre = np.array(simulation.block.local_to_world((0, 45)))
            simulation.step(np.clip(centre + random.normal(0, 60, 2), 0, 512))
            expected = []
            simulation.block.each_arbiter(
                lambda arbiter, into=expected: into.extend(
                    (*point.point_a, *point.point_b) for point in arbiter.contact_point_set.points
                )
            )
            found = [
                (*contact.on_block, *contact.on_other)
                for contact in contacts(simulation.get_state())
            ]
            np.testing.assert_allclose(sorted(found), sorted(expected), atol=1e-6)
            touched += bool(found)
    assert touched > 50
