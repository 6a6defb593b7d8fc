"""BYOL from its parts, in a loop of one's own: the digits of scikit-learn, a small encoder, two minutes at the most.

uv run python examples/own_loop.py [UPDATES]
"""

import sys

import torch
from sklearn.datasets import load_digits

import byol

PEAK = 0.05  # of the rate
updates = int(sys.argv[1]) if len(sys.argv) > 1 else 300
images = torch.from_numpy(load_digits().images * 255 / 16).to(torch.uint8)[:, None]  # (1797, 1, 8, 8)
input = byol.encoders.Input(channels=1, size=16, mean=(0.3,), std=(0.38,))
views = byol.views.load("small", size=16, channels=1, flip=0.0)

torch.manual_seed(0)
BYOL = byol.methods.load("byol")
config = BYOL.Config(hidden=256, dim=64, tau_base=0.97, projection_norm="batch", predictor_rate=10, target_init="copy")
method = BYOL(byol.encoders.load("small-w16", input=input), config)
optimizer = torch.optim.SGD(method.param_groups(), lr=0.0, momentum=0.9, weight_decay=1e-4)

for step in range(updates):
    ids = byol.data.ids_at(step, n=len(images), batch=128, seed=0)
    epoch = step // byol.data.steps_per_epoch(len(images), 128)
    out = method(views.memory(images[ids], ids, 0, epoch, input))
    rate = byol.optim.learning_rate(step, peak=PEAK, warmup=updates // 10, total=updates)
    for group in optimizer.param_groups:  # a predictor may learn faster, or at a constant rate
        group["lr"] = (PEAK if group.get("constant") else rate) * group.get("lr_scale", 1.0)
    optimizer.zero_grad()
    out.loss.backward()
    optimizer.step()
    method.after_step(step / updates)
    if step % 50 == 0 or step == updates - 1:
        m = byol.health.measure(out.projections)
        print(f"step {step:4}  loss {out.loss.item():.3f}  spread {m.spread:.2f}  rank {m.rank:.0f}")
