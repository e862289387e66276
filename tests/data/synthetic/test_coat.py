"""Coats are colours, and markings lie on the trunk."""

import numpy as np

from posedy.data.synthetic.coat import sample_coat


def test_coats_have_colours_and_a_part_of_them_markings_on_the_trunk() -> None:
    coats = [sample_coat(np.random.default_rng(seed)) for seed in range(100)]
    for coat in coats:
        for colour in (coat.fur, coat.marking, coat.muzzle, coat.ears, coat.tail):
            assert len(colour) == 3
            assert all(0 <= channel <= 255 for channel in colour)
        # A marking is told from the fur around it.
        assert np.abs(np.subtract(coat.fur, coat.marking)).max() > 20
        for patch in coat.patches:
            assert patch.shape[1] == 2
            assert np.abs(patch[:, 0]).max() < 0.8
    assert 0.4 < np.mean([len(coat.patches) > 0 for coat in coats]) < 1
    assert {coat.socks for coat in coats} == {False, True}
