"""`auto`: settings for any data, from their kind, their number and size, and the device."""

from __future__ import annotations

from dataclasses import replace

from byol.recipes.choices import Choices, Facts, Recipe


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
