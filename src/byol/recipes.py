"""Recipes: functions from facts about the data and the device to settings, each with its reason.

`auto` derives everything from the number and size of the images; the others hold published values and say what was
published with them. What the user asked for goes over what a recipe says. The recipes of BYOL are here; those of another
method are in its file, read as literals, so that they can be listed without importing torch.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache, partial
from pathlib import Path
from typing import NotRequired, TypedDict

from byol.config import Plan, Request, Settings, Value, of_one_view, parse_assignments


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a recipe may know."""

    images: int
    short_side: int  # pixels, the median
    device: str
    cores: int
    bf16_gain: float | None = 1.0  # speed of bf16 over fp32 on this device, measured; None: it cannot pay
    channels_last_gain: float | None = 1.0  # speed with the channels last over channels first, likewise
    classes: int = 0  # of the labels; 0: there are none
    modality: str = "image"  # what a sample is (`byol.data.Modality`)
    grouped: bool = False  # whether it is known which samples belong together, such as the bins of a trial
    # What the user fixed, from which other values follow.
    epochs: int | None = None
    batch_size: int | None = None
    image_size: int | None = None
    accumulate: int | None = None


@dataclass
class Choices:
    """Values under construction, each with its reason."""

    values: dict[str, Value] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    expected: str = ""

    def put(self, reason: str, **values: Value) -> Choices:
        """Add values that share a reason."""
        self.values |= values
        self.reasons |= dict.fromkeys(values, reason)
        return self


PAYS = 1.15  # gain from which bf16 is taken: below, its coarser numbers cost more than the time

Recipe = Callable[[Facts], Choices]


def auto(facts: Facts) -> Choices:
    """Settings for any data, from their kind, their number, the size of images and the device; the default."""
    return AUTO[facts.modality](facts)


def _auto_images(facts: Facts) -> Choices:
    c = Choices(expected="no published number: derived for this data")
    size, why = (facts.image_size, "asked for") if facts.image_size else _image_size(facts)
    c.put(why, image_size=size)
    (_auto_cpu if facts.device == "cpu" else _auto_gpu)(c, facts, size)
    batch = facts.batch_size or _power_of_two(facts.images / 8, max(2, min(16, facts.images)), 128 if facts.device == "cpu" else 256)
    why = "at least 8 batches an epoch" if facts.images >= 8 * batch else "batch norm needs as many"
    c.put(f"{facts.images:,} images: {why}, and no more than this device needs", batch_size=batch)
    an_update = batch * (facts.accumulate or 1)
    steps = 50_000 if facts.device != "cpu" else 8_000 if size <= 32 else 5_000
    epochs = facts.epochs or max(20, min(1000, round(steps * an_update / facts.images)))
    c.put(f"about {steps:,} updates, within 20 to 1000 epochs", epochs=epochs)
    updates = max(1, epochs * (facts.images // batch) // (facts.accumulate or 1))  # as `derived` counts them
    c.put("SGD suits batches below 512; LARS is for large ones", optimizer="sgd", lr=0.1)
    c.put("weights keep the same share over a run of any length", weight_decay=_decay(updates))
    tau = _tau(updates)
    c.put(f"{updates:,} updates: the target averages the last {min(updates, 1 / (1 - tau)):,.0f} at the start", tau_base=tau)
    c.put("a twentieth of the run, at most 10 epochs", warmup_epochs=min(10.0, epochs / 20))
    if size <= 64:
        return c.put("no blur at 64 px and below: it hides what little there is", views="small")
    return c.put("the paper's T and T'", views="paper")


def _auto_cpu(c: Choices, facts: Facts, size: int) -> None:
    why = "a network that a CPU can train, and heads to match"
    encoder = "small-w32-n3" if size < 16 else "small-w16" if size <= 32 else "small-w32-s2"
    c.put(why, encoder=encoder, hidden=1024, dim=256)
    c.put("milder crops than the paper's 0.08: a short run cannot use the hardest", min_area=0.2)
    # Chosen on CIFAR-10 (docs/results.md): the gain of the first hour, which is what a CPU has.
    why = "learns faster in the first hour (docs/results.md)"
    c.put(why, projection_norm="batch", predictor_rate=10.0, target_init="copy", saturation=0.4, solarize=0.0)


def _auto_gpu(c: Choices, facts: Facts, size: int) -> None:
    c.put("the usual choice for one GPU", encoder="resnet18" if facts.images < 100_000 else "resnet50")
    c.put("the paper's", hidden=4096, dim=256)


def _auto_recordings(facts: Facts) -> Choices:
    """MYOW's values for reaching monkeys, for a run of a minute or two; those of its own are in its file."""
    if facts.image_size not in (None, 1):
        raise ValueError(f"image_size={facts.image_size} is for images, and these are bins of a recording; leave it out")
    c = Choices(expected="none published for these values; MYOW's tables were not had")
    released = "MYOW's released code for reaches (Azabou et al. 2021)"
    c.put("a bin has one place", image_size=1)
    c.put(released, encoder="mlp", hidden=256, dim=32, optimizer="lars", lr=0.8, weight_decay=1e-6, tau_base=0.9)
    c.put(f"{released}: a shift in time, neurons dropped, noise", views="bins")
    c.put("the target begins as the online network", target_init="copy")
    batch = facts.batch_size or _power_of_two(facts.images / 2, max(2, min(16, facts.images)), 256)
    c.put(f"{released}: 256, at most half of the bins", batch_size=batch)
    an_update = batch * (facts.accumulate or 1)
    epochs = facts.epochs or max(20, min(1000, round(4_000 * an_update / facts.images)))
    c.put("about 4,000 updates, within 20 to 1000 epochs: those of a recording of reaches in MYOW's released code", epochs=epochs)
    c.put("10 epochs, at most half of the run", warmup_epochs=min(10.0, epochs / 2))
    if not facts.grouped:  # only where the method asks for it
        c.put("no trials are known: bins within 10 minutes (of 4 s each) are no candidates, as in MYOW's code for rodents", gap=150)
    return c


BYOL_A_FRAMES = 96  # of its 0.95 s, one every 10 ms


def _auto_sounds(facts: Facts) -> Choices:
    """BYOL-A's views and optimiser; as many updates as for images, and on a CPU what gains most in the first minutes."""
    size = facts.short_side  # frames of a view
    if facts.image_size not in (None, size):
        raise ValueError(f"image_size={facts.image_size} is for images, and these are sounds; leave it out, or give --set seconds=...")
    c = Choices(expected="no published number: derived for this data")
    c.put("frames of such a window as these sounds fill, at most BYOL-A's; --set seconds=... makes others", image_size=size)
    if size < BYOL_A_FRAMES:
        c.put("the sounds' mean length: BYOL-A's 0.95 s would be silence for the most part", seconds=round((size - 1) / 100, 2))
    if facts.device == "cpu":
        c.put("BYOL-A's first encoder with half its channels, which a CPU can train, and heads to match", encoder="audio-small")
        c.put("a network that a CPU can train, and heads to match", hidden=1024, dim=256)
        why = "gains most in the first minutes (docs/results.md)"
        c.put(why, projection_norm="batch", predictor_rate=10.0, heights=(0.8, 1.2), widths=(0.8, 1.2))
    else:
        c.put("BYOL-A's (Niizumi et al. 2021)", encoder=f"byol-a-v1-d{512 if facts.images < 100_000 else 2048}", hidden=4096, dim=256)
    c.put("BYOL-A's (Niizumi et al. 2021): another sound mixed in, random resize crop", views="byol-a-v1")
    c.put("so that features depend less on how loud a recording is (docs/results.md)", gain=12.0)
    c.put("measured beforehand, so that a short run sees the same from its first step on", pre="given")
    batch = facts.batch_size or _power_of_two(facts.images / 8, max(2, min(16, facts.images)), 128 if facts.device == "cpu" else 256)
    why = "at least 8 batches an epoch" if facts.images >= 8 * batch else "batch norm needs as many"
    c.put(f"{facts.images:,} sounds: {why}, and no more than this device needs", batch_size=batch)
    an_update = batch * (facts.accumulate or 1)
    steps = 5_000 if facts.device == "cpu" else 50_000
    epochs = facts.epochs or max(20, min(1000, round(steps * an_update / facts.images)))
    c.put(f"about {steps:,} updates, within 20 to 1000 epochs", epochs=epochs)
    c.put("BYOL-A's Adam, which AdamW without decay is", optimizer="adamw", lr=3e-4, weight_decay=0.0)
    updates = max(1, epochs * (facts.images // batch) // (facts.accumulate or 1))
    tau = min(0.99, _tau(updates))
    last = min(updates, 1 / (1 - tau))
    c.put(f"BYOL-A's, or less for a short run: the last {last:,.0f} of {updates:,} updates at the start", tau_base=tau)
    c.put("as in BYOL-A's code: the target begins as the online network", target_init="copy")
    return c.put("BYOL-A has none", warmup_epochs=0.0)


def _auto_rgbd(facts: Facts) -> Choices:
    """BYOC's values, on a CPU for a thinner network, smaller frames and a run of minutes; those of a method alone are in its file."""
    on_cpu = facts.device == "cpu"
    c = Choices(expected="no published number: derived for this data")
    paper = "BYOC's released code (El Banani & Johnson 2021)"
    size = facts.image_size or min(64 if on_cpu else 128, facts.short_side)
    why = "asked for" if facts.image_size else "half of BYOC's 128 px, which a CPU trains in reasonable time" if on_cpu else paper
    c.put(why, image_size=size)
    why = "BYOC's two encoders with a quarter of their channels, which a CPU can train" if on_cpu else paper
    c.put(why, encoder="byoc-w16" if on_cpu else "byoc")
    c.put("heads to match the encoder's 64 features", hidden=256, dim=64)
    c.put(f"{paper}: another frame of the same sequence, nothing else", views="frames", apart=(20, 20))
    most = 4 if on_cpu else 8
    batch = facts.batch_size or _power_of_two(facts.images, 2, most)
    c.put("half of BYOC's 8, which a CPU has time for" if on_cpu else f"{paper}: 8, at most the frames", batch_size=batch)
    an_update = batch * (facts.accumulate or 1)
    steps = 600 if on_cpu else 50_000
    epochs = facts.epochs or max(1, min(1000, round(steps * an_update / facts.images)))
    why = "a CPU has time for" if on_cpu else "a quarter of BYOC's"
    c.put(f"about {steps:,} updates, within 1 to 1000 epochs: {why}", epochs=epochs)
    rate = float(f"{(1e-3 if on_cpu else 1e-4) * 256 / an_update:.3g}")
    more = "Adam at 1e-3, ten times BYOC's rate, which learns in a short run" if on_cpu else f"{paper}: Adam at 1e-4"
    c.put(f"{more}; lr counts for 256 frames, and an update has {an_update}", lr=rate)
    c.put(paper, optimizer="adam", eps=1e-4, weight_decay=1e-6, warmup_epochs=0.0)
    c.put("a rate as high has to fall" if on_cpu else paper, lr_schedule="cosine" if on_cpu else "constant")
    updates = max(1, epochs * (facts.images // batch) // (facts.accumulate or 1))
    tau = _tau(updates)
    c.put(f"{updates:,} updates: a target averages the last {1 / (1 - tau):,.0f} at the start", tau_base=tau)
    return c.put("a target begins as the online network", target_init="copy")


def _auto_volumes(facts: Facts) -> Choices:
    """As for images of the size of a slice, with the views of two visits where subjects and dates are known."""
    if facts.image_size not in (None, facts.short_side):
        raise ValueError(f"image_size={facts.image_size} is for images, and these are volumes of {facts.short_side}; leave it out")
    batch = int(str(_auto_images(facts).values["batch_size"])) * (facts.accumulate or 1)
    epochs = facts.epochs or max(20, min(1000, round(1_000 * batch / facts.images)))
    c = _auto_images(replace(facts, epochs=epochs))
    c.put("about 1,000 updates, as in LSSL's released code, within 20 to 1000 epochs", epochs=epochs)
    c.put("the side of a volume as it is read", image_size=facts.short_side)
    if facts.device == "cpu":
        c.put("from many slices to few channels, torch 2.15 crashes on a CPU with the channels last", channels_last=False)
    if facts.grouped:
        return c.put("two visits of a subject, the earlier first; nothing else is changed", views="visits")
    return c.put("crops of all slices alike", views="crop")


AUTO: dict[str, Recipe] = {
    "image": _auto_images,
    "recording": _auto_recordings,
    "sound": _auto_sounds,
    "rgbd": _auto_rgbd,
    "volume": _auto_volumes,
}


def _image_size(facts: Facts) -> tuple[int, str]:
    """The images' own size, in steps of 8, or the largest that the device trains in reasonable time."""
    largest = 64 if facts.device == "cpu" else 224 if facts.images >= 50_000 else 128
    if facts.short_side <= largest:
        size = max(8, facts.short_side // 4 * 4)
        return size, "the images' own size" if size == facts.short_side else f"a multiple of 4 next to the images' {facts.short_side} px"
    return largest, f"the images are {facts.short_side} px; {largest} is what this device trains in reasonable time"


def _power_of_two(x: float, least: int, most: int) -> int:
    """The largest power of two that is at most x, within the bounds."""
    return max(least, min(most, 1 << max(0, int(x).bit_length() - 1)))


def _tau(updates: int) -> float:
    """tau at step 0: an average over about 2 % of the updates, within 0.9 and the paper's 0.996."""
    return min(0.996, max(0.9, round(1 - 50 / updates, 4)))


def _decay(updates: int) -> float:
    """Weight decay such that lr x decay, summed over the run, stays what it was in the runs it was chosen on; at most 0.02."""
    return min(0.02, float(f"{10 / updates:.2g}"))


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


_MANY = {"recording": "recordings of neurons", "rgbd": "RGB-D frames"}  # what data are called, where it is not the kind with an s
OF_SOUND = ("byol-a-v1", "byol-a-v2")


class Preset(TypedDict):
    """A recipe in the file of a method, `RECIPES = {"NAME": {...}}`, as a literal."""

    about: str  # a line for `byol list recipes`, with the published result
    expected: str  # the published result and its source; or that there is none
    source: str  # where the values come from
    values: dict[str, Value]  # fields of Settings, of the method's Config and of the views
    modality: NotRequired[str]  # the kind of data that it is for, where that is not images
    batch: NotRequired[int]  # images an update, reached by accumulation where a pass holds fewer


@dataclass(frozen=True)
class Named:
    """A recipe with what can be said of it."""

    method: str
    about: str
    choose: Recipe
    modality: str = "image"  # the kind of data that it is for; `auto` is for any


def every() -> dict[str, Named]:
    """All recipes by name: those of BYOL, and those in the files of the other methods."""
    found = {}
    for name, recipe in RECIPES.items():
        about = (recipe.__doc__ or "").strip().split("\n")[0]
        found[name] = Named("byol", about, recipe, "sound" if name in OF_SOUND else "image")
    for method, presets in _literals("RECIPES").items():
        for name, preset in presets.items():
            found[name] = Named(method, preset["about"], partial(_chosen, preset), preset.get("modality", "image"))
    return found


def load(name: str) -> Named:
    """The recipe of that name; ValueError with the nearest name if there is none."""
    known = every()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known)}"
        raise ValueError(f"no recipe {name!r}; {hint}")
    return known[name]


def method_for(request: Request) -> str:
    """The method asked for, or that of the recipe; ValueError where they do not fit."""
    own = load(request.recipe).method
    if request.recipe == "auto" or own == request.method:
        return request.method
    if request.method != Request(data="").method:
        raise ValueError(f"recipe {request.recipe} is for --method {own}, not {request.method}; leave one of them out")
    return own


def _chosen(preset: Preset, facts: Facts) -> Choices:
    c = Choices(expected=preset["expected"]).put(preset["source"], **preset["values"])
    whole = preset.get("batch", 0)
    if not whole:
        return c
    fits = facts.batch_size or min(whole, 256)
    c.put(f"the batch of {whole} that it was published with; {fits} images a pass", batch_size=fits)
    return c.put(f"to reach the batch of {whole}", accumulate=max(1, round(whole / fits)))


@cache
def _literals(wanted: str) -> dict[str, dict[str, Preset]]:
    """{method: the literal of that name in its file}, of the files that have it."""
    found = {}
    for path in sorted((Path(__file__).parent / "methods").glob("[!_]*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == wanted for t in node.targets):
                found[path.stem] = ast.literal_eval(node.value)
    return found


def own_values(method: str, modality: str = "image") -> Mapping[str, Value]:
    """What goes over the values of `auto` for this method: `AUTO` of its file; for other data than images `AUTO_RECORDING` and the like."""
    wanted = "AUTO" if modality == "image" else f"AUTO_{modality.upper()}"
    return _literals(wanted).get(method, {})  # type: ignore[return-value]  # a literal of another shape


def kind_of(method: str) -> str:
    """The kind of data that the method is for, `MODALITY` of its file; empty where it is for any."""
    return str(_literals("MODALITY").get(method, ""))


def published_as(method: str) -> str:
    """The name of the method in published tables, `PUBLISHED` of its file; empty where it is in none."""
    return str(_literals("PUBLISHED").get(method, ""))


def resolve(request: Request, facts: Facts, method_config: type, view_options: type, view_names: list[str]) -> Plan:
    """The plan: the recipe's choices, what was asked over them, and what follows; every value keeps its reason."""
    fixed = {k: getattr(request, k) for k in ("epochs", "batch_size", "image_size", "accumulate")}
    facts = replace(facts, **fixed)
    needs = kind_of(request.method)
    if needs and facts.modality != needs:
        these, those = (_MANY.get(kind, f"{kind}s") for kind in (facts.modality, needs))
        raise ValueError(f"--method {request.method} is for {those}, and these data are {these}; give another method, such as byol")
    named = load(request.recipe)
    recipe, common = named.choose(facts), _common(request, facts)
    choices = Choices(common.values | recipe.values, common.reasons | recipe.reasons, recipe.expected)
    if request.recipe == "auto":
        if facts.modality != "image":  # what was chosen on images, where the recipe is silent
            silent = {k: v for k, v in own_values(request.method).items() if k not in choices.values}
            choices.put(f"chosen for {request.method} on images", **silent)
        choices.put(f"chosen for {request.method}", **own_values(request.method, facts.modality))
    elif facts.modality != named.modality:
        meant, these = (_MANY.get(of, f"{of}s") for of in (named.modality, facts.modality))
        raise ValueError(f"recipe {request.recipe} is for {meant}, and these data are {these}; leave --recipe out")
    if facts.classes:
        choices.put("the labels of the data", classes=facts.classes)
    choices.put("of the data", samples=facts.images)
    sets = parse_assignments(request.set, {"settings": Settings, "method": method_config, "views": view_options})
    asked = {k: v for k, v in ({"encoder": request.encoder} | fixed).items() if v is not None}
    choices.put("asked for", **asked)
    for kind in sets.values():
        choices.put("asked for (--set)", **kind)
    if choices.values.get("views") == "visits" and "min_area" not in sets["views"]:
        choices.put("visits are seen whole: another crop would look like a change of the subject", min_area=1.0)
    method_keys, view_keys = ({f.name for f in fields(t)} for t in (method_config, view_options))
    changed = [*asked, *(k for kind in sets.values() for k in kind)]
    if changed and request.recipe != "auto":
        choices.expected += f"; with the recipe's own values, and here other {', '.join(changed)}"
    settings = Settings(**{f.name: choices.values[f.name] for f in fields(Settings) if f.name in choices.values})  # type: ignore[arg-type]
    if settings.views not in view_names:
        raise ValueError(f"no view plan {settings.views!r}; there are: {', '.join(view_names)}")
    plan = Plan(
        settings=settings,
        method={k: v for k, v in choices.values.items() if k in method_keys},
        views={k: v for k, v in choices.values.items() if of_one_view(k)[1] in view_keys},
        reasons=choices.reasons,
        images=facts.images,
        steps_per_epoch=1,
        steps=1,
        warmup_steps=0,
        peak_lr=0.0,
        expected=choices.expected,
    )
    what = {"image": "images", "sound": "sounds"}.get(facts.modality, "samples")
    if int(plan.method.get("samples") or facts.images) < facts.images:  # type: ignore[arg-type]  # a whole number, by its type
        raise ValueError(f"samples={plan.method['samples']}, and there are {facts.images:,} {what}; leave it out")
    plan = derived(plan, what)
    if "steps" in method_keys - set(sets["method"]):
        plan = replace(plan, method=plan.method | {"steps": plan.steps}, reasons=plan.reasons | {"steps": "of the run"})
    method_config(**plan.method)  # refuses values that the method cannot take, before anything is built
    return plan


def _common(request: Request, facts: Facts) -> Choices:
    """What every recipe shares unless it says otherwise."""
    c = Choices().put("the usual", momentum=0.9, trust_coefficient=1e-3, accumulate=1, lr_schedule="cosine", eps=1e-8)
    c.put("a kill costs 5 minutes, or more where a checkpoint takes over 3 s to write", checkpoint_minutes=5.0).put(
        "a line every 20 updates", log_steps=20
    )
    c.put("measured on the data", mean="data", std="data")
    if request.precision == "auto" and facts.bf16_gain is None:
        c.put("steps on vectors are too small for bf16 to pay", precision="fp32")
    elif request.precision == "auto":
        assert facts.bf16_gain is not None
        precision = "bf16" if facts.bf16_gain >= PAYS else "fp32"
        c.put(f"bf16 runs at {facts.bf16_gain:.1f}x the speed of fp32 on this device, measured", precision=precision)
    else:
        c.put("asked for", precision=request.precision)
    # Measured times vary, and a plan should not: the slower layout is taken only when it is clear.
    gain = facts.channels_last_gain
    how = f"channels last run at {gain:.1f}x the speed of channels first here, measured" if gain else "vectors have one layout"
    c.put(how, channels_last=gain is not None and gain >= 0.7)
    c.put("found here" if request.device == "auto" else "asked for", device=facts.device)
    if request.workers is None and facts.device == "cpu":
        c.put("the network uses the same cores: threads of this process decode between its steps", workers=0)
    elif request.workers is None:
        c.put("one for each core, at most 16", workers=min(16, facts.cores))
    else:
        c.put("asked for", workers=request.workers)
    default = Request(data="")
    for name in ("method", "seed", "pretrained", "init", "compile", "on_collapse"):
        value = getattr(request, name)
        c.put("the default" if value == getattr(default, name) else "asked for", **{name: value})
    return c


def derived(plan: Plan, what: str = "images") -> Plan:
    """The plan with everything that follows from its settings computed anew; `what` its samples are called in a sentence."""
    s = plan.settings
    if plan.images < s.batch_size:
        raise ValueError(
            f"{plan.images} {what} do not fill a batch of {s.batch_size}; pass --batch-size {max(2, plan.images // 2)} or less"
        )
    per_epoch = plan.images // s.batch_size
    if per_epoch < s.accumulate:
        raise ValueError(
            f"an epoch has {per_epoch} batches of {s.batch_size}, fewer than --accumulate {s.accumulate}; "
            f"pass --accumulate {per_epoch} or less"
        )
    # Passes run on over the end of an epoch, so that none is lost when `accumulate` does not divide them.
    steps = s.epochs * per_epoch // s.accumulate
    peak = s.lr * s.batch_size * s.accumulate / 256
    warmup = min(round(s.warmup_epochs * per_epoch / s.accumulate), steps // 2)
    return replace(plan, steps_per_epoch=per_epoch / s.accumulate, steps=steps, warmup_steps=warmup, peak_lr=peak)
