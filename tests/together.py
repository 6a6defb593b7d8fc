"""What each of several processes does in the tests of `byol.dist`: `python together.py OUT`, told by a launcher who it is."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent
# Options that mix the images of a batch in the loss itself: negative pairs with gradients on both sides, statistics of a batch, a queue.
MIXING = {
    "byol-simclr": ("byol", {"beta": 1.0, "predictor": "none", "target": "online"}),
    "byol-contrast": ("byol", {"beta": 0.5, "alpha": 0.3}),
    "byol-batch-in-loss": ("byol", {"loss_norm": "batch"}),
    "moco-symmetric": ("moco", {"symmetric": True}),
    "assigned-with-a-queue": ("swav", {"queue": 20, "queue_from": 0.2, "frozen": 0.1, "prototypes": 4}),
    # Few dimensions: an inverse, or a root, of a moment that is nearly singular makes more of the rounding than a test can bear.
    **{f"predictor-{p}": ("closed_form", {"predictor": p, "dim": 3}) for p in ("lrp", "direct_pred", "ne", "visser", "ns2", "trainable")},
    "full-softmax": ("instdisc", {"negatives": 0, "prox": 0.3}),
    "without-bank": ("cmc", {"negatives_from": "batch"}),
    "neighbours-at-once": ("local_aggregation", {"instdisc": 0.0, "steps": 4, "projection_norm": "batch"}),
    "jigsaw-with-norm": ("pirl", {"hidden": 6, "projection_norm": "batch", "negatives": 0}),
    "noise-and-holes": ("denoising_autoencoder", {"noise": 0.5, "drop": 0.3}),
    "a-prior-that-weighs": ("vae", {"beta": 2.0, "warmup": 0.0}),
    "a-slow-judge": ("bigan", {"judge_rate": 0.5}),
    "from-above": ("cpc", {"sides": 1, "hidden": 6, "patch_jitter": 1.0}),
    "one-way": ("tribyol", {"symmetric": False, "updates": "both", "second_tau_base": 0.9}),
    "views-that-labels-keep": ("infomin_flow", {"label_weight": 0.5, "hidden": 6}),
    "self-labels": ("ccsl", {"warmup": 0.2, "theta_positive": 0.3, "negatives": True}),
    "self-labels-of-targets": (
        "cssl",
        {"warmup": 0.2, "theta_positive": 0.6, "theta_negative": 0.5, "negatives": True, "labels_from": "target"},
    ),
}


def start(count, words, *, port, **env):
    """So many processes of `python WORDS`, told who they are as torch's launcher tells them."""
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    ranks = ({"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"} for rank in range(count))
    return [subprocess.Popen([sys.executable, *map(str, words)], env={**os.environ, **address, **r, **env}) for r in ranks]


def everything(out):
    """Train every method in float64 and float32 with the processes that there are; the first writes logs and weights into `out`."""
    import test_training as single
    import torch
    from torch import nn

    from byol import dist, methods, training
    from byol.data import ids_at

    class Net(nn.Module):
        """Batch norm of torch's and of timm's, which also applies the activation; dropout."""

        dim = 6

        def __init__(self):
            from timm.layers import BatchNormAct2d

            super().__init__()
            # A bias before batch norm has no gradient but rounding, which AdamW scales up.
            layers = [
                nn.Conv2d(1, 5, 3, bias=False),
                nn.BatchNorm2d(5),
                nn.ReLU(),
                nn.Conv2d(5, 6, 3, bias=False),
                BatchNormAct2d(6),
                nn.AdaptiveAvgPool2d(1),
            ]
            self.net = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.1))

        def forward(self, x):
            return self.net(x)

        def halves(self, x):
            return self(x).chunk(2, 1)

    def case(name, optimizer, accumulate, dtype, called=None, **options):
        lr = 0.02 if optimizer == "adamw" else 0.5
        # Three epochs of BYOL; what another method does differently shows in one.
        epochs = 3 if name == "byol" else 1
        plan = single.make_plan(method=name, optimizer=optimizer, accumulate=accumulate, lr=lr, log_steps=1, epochs=epochs)
        cls = methods.load(name)
        x = single.samples(cls, plan.images).to(dtype)
        torch.manual_seed(dist.rank())  # weights are those of the first process
        own = single.kind_of(cls) == "rgbd" or methods.encoder_kind(cls) in ("patches", "flow")
        net = single.net_for(cls) if own else Net()
        method = cls(net, single.small(cls, **options)).to(dtype)
        s = plan.settings
        made = single.optim.make(s.optimizer, method.param_groups(), lr=0.0, weight_decay=1e-4, momentum=0.9, trust_coefficient=0.01)

        def feed(start, stop):
            for step in range(start, stop):
                ids = ids_at(step, n=len(x), batch=s.batch_size, seed=s.seed)[dist.share(s.batch_size)]
                yield single.called_with(cls, x[ids], ids, method.config)

        folder = Path(out) / f"{called or name}-{optimizer}-{accumulate}-{str(dtype)[6:]}-{dist.size()}"
        if dist.rank() == 0:
            folder.mkdir()
        dist.wait()
        training.fit(folder, plan, method, made, feed)
        whole = {k: v.clone() for k, v in method.state_dict().items()}
        here = torch.cat([v.double().flatten() for v in whole.values()])
        assert torch.equal(here, dist.gathered(here[None])[0]), "the processes hold different weights"
        if dist.rank() == 0:
            torch.save(whole, folder / "weights.pt")

    with dist.joined("cpu"):
        for name in methods.names():
            for optimizer, accumulate in (("lars", 1), ("sgd", 2), ("adamw", 1)):
                case(name, optimizer, accumulate, torch.float64)
            case(name, "sgd", 1, torch.float32)
        for called, (name, options) in MIXING.items():
            case(name, "sgd", 2, torch.float64, called, **options)


if __name__ == "__main__":
    sys.path.insert(0, str(TESTS))
    everything(sys.argv[1])
