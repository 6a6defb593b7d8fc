"""What each of several processes does in test_views_sounds.py: `python sounds_together.py OUT`, told by a launcher who it is."""

import sys

import torch

from byol import dist
from byol.views import sounds

STEPS, BATCH = 3, 8


def everything(out):
    """The views and the state of both plans after a few steps, of all processes together; the first writes them to `out`."""
    with dist.joined("cpu"):
        found = {}
        for name in sounds.PLANS:
            plan = sounds.load(name, memory=20, seconds=0.2)
            state = plan.state((-9.66, 4.72) if name == "byol-a-v2" else None)
            for step in range(STEPS):
                waves, ids = batch(step, plan.samples)
                share = dist.share(BATCH)
                views = plan.device(waves[share], ids[share], 5, step, state)
                found |= {f"{name}/{step}/{number}": dist.gathered(view) for number, view in enumerate(views)}
            found |= {f"{name}/{key}": value for key, value in state.state_dict().items()}
        if dist.rank() == 0:
            torch.save(found, out)


def batch(step, samples):
    """(B, samples) waveforms of very different levels, (B,) ids."""
    g = torch.Generator().manual_seed(step)
    return torch.randn(BATCH, samples, generator=g) * torch.logspace(-4, 0, BATCH)[:, None], torch.randperm(100, generator=g)[:BATCH]


if __name__ == "__main__":
    everything(sys.argv[1])
