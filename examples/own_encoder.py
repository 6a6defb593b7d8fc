"""Any module is an encoder: wrap it, train it on a folder, evaluate it. Needs a folder of images; here it makes a small one.

uv run python examples/own_encoder.py
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import byol

noise = np.random.default_rng(0)
with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as runs:
    for kind, colour in (("leaf", (40, 160, 60)), ("soil", (120, 80, 50))):
        (Path(folder) / kind).mkdir()
        for i in range(40):
            picture = np.clip(noise.normal(colour, 50, (32, 32, 3)), 0, 255).astype("uint8")
            Image.fromarray(picture).save(Path(folder) / kind / f"{i}.png")

    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 32, 3, 2, bias=False),
        torch.nn.BatchNorm2d(32),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
    )
    trained = byol.train(folder, Path(runs) / "run", encoder=net, epochs=5)  # `net` itself stays as it is
    encoder = byol.load(trained.run, net=net)  # now it takes the trained weights
    for result in byol.evaluate(encoder, folder, protocols=("knn",)):
        print("\n".join(result.lines()))
