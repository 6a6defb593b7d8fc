"""The published recipes of BYOL and BYOL-A; those of other methods are in their files."""

from __future__ import annotations

from byol.recipes.automatic import BYOL_A_FRAMES, auto
from byol.recipes.choices import Choices, Facts, Recipe


def _paper(c: Choices, facts: Facts, epochs: int, lr: float, weight_decay: float, tau: float, batch: int = 4096) -> Choices:
    source = "Grill et al. 2020, released presets"
    c.put(source, encoder="resnet50", image_size=224, epochs=epochs, optimizer="lars", lr=lr, weight_decay=weight_decay)
    c.put(source, tau_base=tau, warmup_epochs=10.0, views="paper", hidden=4096, dim=256, momentum=0.9, trust_coefficient=1e-3)
    c.put(source, mean="0.485,0.456,0.406", std="0.229,0.224,0.225")
    fits = facts.batch_size or 256
    c.put(f"the paper's batch of {batch}; {fits} images a pass, gradients averaged (batch norm sees {fits})", batch_size=fits)
    return c.put(f"to reach the batch of {batch}", accumulate=max(1, round(batch / fits)))


def imagenet_r50_40(facts: Facts) -> Choices:
    """ResNet-50, 40 epochs of ImageNet, batch 4096: the released preset; no result published."""
    return _paper(Choices(expected="none published for 40 epochs"), facts, 40, 0.45, 1e-6, 0.97)


def imagenet_r50_100(facts: Facts) -> Choices:
    """ResNet-50, 100 epochs of ImageNet, batch 4096: the released preset (others reached 68.4 % linear with these values)."""
    expected = "none published by the authors; solo-learn 68.4 % linear top-1 with these values"
    return _paper(Choices(expected=expected), facts, 100, 0.45, 1e-6, 0.99)


def imagenet_r50_300(facts: Facts) -> Choices:
    """ResNet-50, 300 epochs of ImageNet, batch 4096: 72.5 % linear top-1 (paper, ablation baseline)."""
    return _paper(Choices(expected="72.5 % linear top-1 on ImageNet (Grill et al. 2020, ablations)"), facts, 300, 0.3, 1e-6, 0.99)


def imagenet_r50_1000(facts: Facts) -> Choices:
    """ResNet-50, 1000 epochs of ImageNet, batch 4096: 74.3 % linear top-1 (paper, table 1); about 8 h on 512 TPU v3 cores."""
    return _paper(Choices(expected="74.3 % linear top-1 on ImageNet (Grill et al. 2020, table 1)"), facts, 1000, 0.2, 1.5e-6, 0.996)


def imagenet_r50_1000_b512(facts: Facts) -> Choices:
    """ResNet-50, 1000 epochs of ImageNet, batch 512: 73.7 % linear top-1 (paper, appendix G)."""
    expected = "73.7 % linear top-1 on ImageNet (Grill et al. 2020, appendix G)"
    return _paper(Choices(expected=expected), facts, 1000, 0.4, 1.5e-6, 0.9995, batch=512)


def imagenet_r50_gn_ws_1000(facts: Facts) -> Choices:
    """ResNet-50 without batch norm, 1000 epochs of ImageNet: 73.9 % linear top-1 (Richemond et al. 2020; rate, decay unverified)."""
    result = "73.9 % linear top-1 on ImageNet (Richemond et al. 2020, abstract; 74.3 % with batch norm)"
    c = _paper(Choices(expected=f"{result}; rate and decay here are unverified"), facts, 1000, 0.24, 5e-8, 0.996)
    source = "Richemond et al. 2020, abstract: group norm and weight standardisation"
    c.put(source, encoder="resnet50+gn+ws", head_norm="group", head_standardise=True)
    c.put("unverified: from memory of Richemond et al. 2020, whose text was not had", lr=0.24, weight_decay=5e-8)
    return c


def imagenette_r18(facts: Facts) -> Choices:
    """ResNet-18, 128 px, 1000 epochs of Imagenette: about 92.3 % with the online classifier (released README; V100, about 4 h)."""
    c = _paper(Choices(), facts, 1000, 2.0, 1e-6, 0.996, batch=256)
    c.expected = "about 92.3 % top-1 of the online classifier on Imagenette (released README); not a linear probe"
    return c.put("released README, set-up for fast iteration", encoder="resnet18", image_size=128, lr=2.0)


def cifar10_r18_sgd(facts: Facts) -> Choices:
    """ResNet-18, batch 128, 200 epochs of CIFAR-10 with SGD: 86.9 % kNN (lightly's benchmark; its maximum over epochs)."""
    c = Choices(expected="86.9 % kNN (k=200, T=0.1) on CIFAR-10, the maximum over epochs (lightly 1.x benchmark; tau constant there)")
    source = "lightly's CIFAR-10 benchmark"
    c.put(source, encoder="resnet18", image_size=32, epochs=200, batch_size=128, accumulate=1, optimizer="sgd")
    # Its loss is a quarter of the paper's, which is kept here: a quarter of its rate 0.12, four times its decay 5e-4.
    c.put(f"{source}, whose loss is a quarter of the paper's", lr=0.03, weight_decay=2e-3)
    c.put("the views of solo-learn's recipe", views="small")
    return c.put(source, momentum=0.9, tau_base=0.99, warmup_epochs=0.0, hidden=1024, dim=256)


def cifar10_r18_lars(facts: Facts) -> Choices:
    """ResNet-18, batch 256, 1000 epochs of CIFAR-10 with LARS: 92.6 % with the online classifier (solo-learn; it clips the rate)."""
    c = Choices(expected="92.58 % top-1 of the online classifier on CIFAR-10 (solo-learn, which also clips the LARS rate)")
    source = "solo-learn's CIFAR recipe"
    c.put(source, encoder="resnet18", image_size=32, epochs=1000, batch_size=256, accumulate=1, optimizer="lars", lr=1.0)
    c.put(source, weight_decay=1e-5, momentum=0.9, trust_coefficient=0.02, tau_base=0.99, warmup_epochs=10.0)
    return c.put(source, views="small", hidden=4096, dim=256)


def _byol_a(c: Choices, facts: Facts, version: int, lr: float, encoder: str) -> Choices:
    source = f"BYOL-A's released code, version {version}"
    c.put(source, encoder=encoder, image_size=BYOL_A_FRAMES, views=f"byol-a-v{version}", epochs=100, hidden=4096, dim=256)
    c.put(f"{source}: Adam, which AdamW without decay is", optimizer="adamw", lr=lr, weight_decay=0.0)
    c.put(f"{source}: neither the rate nor tau changes", tau_base=0.99, tau_schedule="constant", lr_schedule="constant")
    c.put(source, batch_size=256, accumulate=1, warmup_epochs=0.0, target_init="copy")
    return c


def byol_a_v1(facts: Facts) -> Choices:
    """AudioNTT2020 of 2048 features, 100 epochs of AudioSet: 77.8 % on average over six tasks (Niizumi et al. 2021)."""
    expected = "77.8 % on average over six tasks after AudioSet (Niizumi et al. 2021)"
    return _byol_a(Choices(expected=expected), facts, 1, 3e-4, "byol-a-v1-d2048")


def byol_a_v2(facts: Facts) -> Choices:
    """AudioNTT2022, 100 epochs of AudioSet: 72.4 % on average over the general tasks (Niizumi et al. 2022, abstract)."""
    expected = "72.4 % on average over general tasks after AudioSet (Niizumi et al. 2022, abstract)"
    return _byol_a(Choices(expected=expected), facts, 2, 1e-4, "byol-a-v2")


RECIPES: dict[str, Recipe] = {
    f.__name__.replace("_", "-"): f
    for f in (
        auto, imagenet_r50_40, imagenet_r50_100, imagenet_r50_300, imagenet_r50_1000, imagenet_r50_1000_b512,
        imagenet_r50_gn_ws_1000, imagenette_r18, cifar10_r18_sgd, cifar10_r18_lars,
        byol_a_v1, byol_a_v2,
    )
}  # fmt: skip


OF_SOUND = ("byol-a-v1", "byol-a-v2")
