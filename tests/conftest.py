import os

# The tests run side by side, one a core: more threads in each would only wait for one another. Read when torch is imported, and
# inherited by the programs that tests start.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest


@pytest.fixture(autouse=True)
def the_same_numbers_every_time():
    """A test that draws without a generator of its own would fail once in a thousand runs, and pass when it is looked at."""
    import torch

    torch.manual_seed(20_201_107)  # not 0, which tests give to draw the same on purpose
