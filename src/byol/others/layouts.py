"""Where in a state dict the residual net is, whose layout that is, and which of our networks it fits: by names and shapes alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from byol.encoders.resnet import DEPTHS

_STAGE = re.compile(r"(?:(.*)\.)?(layer1|\d+)\.0\.conv1\.weight")
_WRAPPERS = ("module", "model", "_orig_mod")  # what training puts around a network
_HEADS = re.compile(r"(fc|linear|head|heads|logits|classifier|online_classifier|queue|.*(project|predict|proto).*)")
_SECOND = re.compile(r"momentum|target|encoder_k|key|ema|teacher|backbone_k")  # the slow network of two
_FIRST = re.compile(r"student|online|encoder_q|base_encoder|query")
# Whose layout has such first words, the more particular ones before.
_LAYOUTS = (
    ("byol-pytorch's", {"online_encoder", "online_predictor"}),
    ("MoCo's", {"encoder_q"}),
    ("MoCo v3's", {"base_encoder"}),
    ("solo-learn's", {"backbone", "classifier", "projector"}),
    ("solo-learn's", {"backbone", "classifier", "momentum_backbone"}),
    ("solo-learn's old", {"encoder", "classifier", "projector"}),
    ("lightly's examples'", {"backbone", "projection_head"}),
    ("SimSiam's", {"encoder", "predictor"}),
)


@dataclass(frozen=True)
class Trunk:
    """A residual net that was found in a state dict."""

    state: Mapping[str, Tensor]  # under torchvision's names, without a head
    layout: str  # whose
    where: str  # what stands before its names in the file, "" for nothing
    left_out: tuple[str, ...]
    sequential: int | None = None  # of an nn.Sequential, the place of the first stage


def trunk(state: Mapping[str, Tensor]) -> Trunk:
    """The one residual net that is to be used; ValueError where there is none, where there are several, and for names without a place."""
    stages = {m[1] or "": m[2] for key in state if (m := _STAGE.fullmatch(key)) and _has_stem(state, m[1] or "", m[2])}
    if not stages:
        some = ", ".join(list(state)[:3])
        raise ValueError(
            f"no residual net is known by its names ({some}, ...); say which encoder it is, as in timm:vit_small_patch16_224:FILE"
        )
    where = _chosen(state, list(stages))
    first = None if stages[where] == "layer1" else int(stages[where])
    start = f"{where}." if where else ""
    found, heads, unknown = {}, set(), []
    for key, value in state.items():
        if not key.startswith(start):
            continue
        name = _torchvision(key.removeprefix(start), first)
        word = name.split(".")[0]
        if word in ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4"):
            found[name] = value
        elif _HEADS.fullmatch(word) or (first is not None and word.isdigit() and int(word) > first + 3):
            heads.add(f"{start}{word}")
        else:
            unknown.append(key)
    if unknown:
        many = f"{len(unknown)} tensors have" if len(unknown) > 1 else "a tensor has"
        raise ValueError(f"{many} no place in a residual net ({', '.join(unknown[:3])}); say which encoder it is, as in timm:NAME:FILE")
    outside = {_words(key)[0] for key in state if not key.startswith(start)}
    return Trunk(found, _layout(state, where), where, (*sorted(heads), *sorted(outside)), first)


def name_of(found: Trunk) -> tuple[str, list[str]]:
    """The name of the encoder that has these layers, and what was assumed; ValueError for a network that we do not have."""
    state = found.state
    base, _, kernel, _ = state["conv1.weight"].shape
    stages = Counter(int(m[1]) for key in state if (m := re.fullmatch(r"layer([1-4])\.\d+\.conv1\.weight", key)))
    blocks = tuple(stages[i] for i in (1, 2, 3, 4))
    bottleneck = "layer1.0.conv3.weight" in state
    depth = next((d for d, b in DEPTHS.items() if b == blocks and (d >= 50) == bottleneck), None)
    width, rest = divmod(base, 64)
    if depth is None or rest or not 1 <= width <= 4:
        kind = "bottlenecks" if bottleneck else "basic blocks"
        raise ValueError(
            f"no ResNet of ours has {blocks} {kind} and {base} channels in the stem; say which encoder it is, as in timm:NAME:FILE"
        )
    stem, assumed = _stem(found, kernel)
    return f"resnet{depth}{'' if width == 1 else f'x{width}'}{stem}", assumed


def fitting(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Every tensor of the wanted shape, all of them; ValueError names the first ones that are not. Old files count no batches."""
    whole = {**{k: torch.zeros((), dtype=torch.int64) for k in wanted if k.endswith("num_batches_tracked")}, **state}
    wrong = [k for k in {**wanted, **whole} if k not in wanted or k not in whole or whole[k].shape != wanted[k].shape]
    if wrong:
        first = wrong[0]
        has = f"has the shape {tuple(whole[first].shape)}" if first in whole else "is missing"
        needs = f"has {tuple(wanted[first].shape)}" if first in wanted else "has no such tensor"
        raise ValueError(f"{first} {has}, where the network {needs} (tensors that do not fit: {len(wrong)})")
    return whole


def under(state: Mapping[str, Tensor], wanted: Iterable[str]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors of these names behind what the file has before them, and what is left out. ValueError where they are not all there."""
    names = [k for k in wanted if not k.endswith("num_batches_tracked")]
    starts = [k.removesuffix(names[0]) for k in state if k == names[0] or k.endswith(f".{names[0]}")]
    whole = [s for s in starts if all(s + name in state for name in names)]
    if not whole:
        start = starts[0] if starts else ""
        absent = next(name for name in names if start + name not in state)
        raise ValueError(f"it has no tensor {start}{absent}")
    start = f"{_chosen(state, [s.rstrip('.') for s in whole])}." if whole != [""] else ""
    known = set(wanted)
    inside = {name.split(".")[0] for name in known}
    extra = [k for k in state if k.startswith(start) and (n := k.removeprefix(start)) not in known and n.split(".")[0] in inside]
    if extra := [k for k in extra if not k.endswith("num_batches_tracked")]:
        raise ValueError(f"it has tensors that the network has not ({', '.join(extra[:3])}); name the encoder that it is of")
    found = {k.removeprefix(start): v for k, v in state.items() if k.startswith(start) and k.removeprefix(start) in known}
    return found, tuple(sorted({_words(k)[0] for k in state if k.removeprefix(start) not in found or not k.startswith(start)}))


def _has_stem(state: Mapping[str, Tensor], where: str, stage: str) -> bool:
    start = f"{where}." if where else ""
    names = [f"layer{i}" for i in (2, 3, 4)] if stage == "layer1" else [str(int(stage) + i) for i in (1, 2, 3)]
    first = state.get(f"{start}{'conv1' if stage == 'layer1' else '0'}.weight")
    return first is not None and first.ndim == 4 and all(f"{start}{n}.0.conv1.weight" in state for n in names)


def _chosen(state: Mapping[str, Tensor], places: list[str]) -> str:
    """Of two networks the one that was trained and not its average; the first of several that are one and the same."""

    def rank(place: str) -> int:
        return 0 if _FIRST.search(place) else 2 if _SECOND.search(place) else 1

    best = [p for p in places if rank(p) == min(map(rank, places))]
    inside = [{k.removeprefix(f"{p}."): v for k, v in state.items() if k.startswith(f"{p}.")} for p in best]
    if any(one.keys() != inside[0].keys() or not all(torch.equal(v, inside[0][k]) for k, v in one.items()) for one in inside[1:]):
        raise ValueError(f"it holds several networks ({', '.join(best)}); give a file with one of them")
    return best[0]


def _torchvision(name: str, first: int | None) -> str:
    """A name inside the network as torchvision has it; `first`: of an nn.Sequential, the place of the first stage."""
    word, _, rest = name.partition(".")
    if first is not None and word.isdigit() and int(word) <= first + 3:
        place = int(word)
        word = f"layer{place - first + 1}" if place >= first else {0: "conv1", 1: "bn1"}.get(place, word)
    return f"{word}.{rest}".replace(".shortcut.", ".downsample.") if word.startswith("layer") else f"{word}.{rest}"


def _stem(found: Trunk, kernel: int) -> tuple[str, list[str]]:
    if kernel == 7:
        return "-stem7", ["the first convolution strides by 2 and a max-pooling follows"]
    if kernel != 3:
        raise ValueError(
            f"the first convolution is {kernel}x{kernel}, and ours are 7x7 or 3x3; say which encoder it is, as in timm:NAME:FILE"
        )
    if found.layout.startswith("solo-learn's"):
        return "-stem3pad2", ["solo-learn's stem for CIFAR, padded by 2, without max-pooling"]
    if found.sequential == 2:
        return "-stem3linear", ["lightly's ResNetGenerator as nn.Sequential, whose stem has no ReLU, and no max-pooling"]
    return "-stem3", ["the first convolution strides by 1 and no max-pooling follows (resnet18-stem3pool:FILE: one does)"]


def _layout(state: Mapping[str, Tensor], where: str) -> str:
    words = {_words(k)[0] for k in state}
    if "resnet18_parameters" in where or (where == "" and "0.weight" in state):
        return "that of an nn.Sequential, as in lightly's tutorials"
    known = next((f"{name} layout" for name, needs in _LAYOUTS if needs <= words), None)
    return known or ("torchvision's and timm's layout" if where == "" else f"a layout of its own ({where}.)")


def _words(key: str) -> list[str]:
    """The words of a name, without what training puts around a network."""
    words = key.split(".")
    while len(words) > 1 and words[0] in _WRAPPERS:
        words = words[1:]
    return words
