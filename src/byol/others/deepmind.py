"""The BYOL networks that DeepMind released, pretrain_res50x1.pkl and its kin: Haiku's names and layouts to torchvision's.

Such a file is a pickle of dill, of {experiment_state, step, rng}; the state is a named tuple of two networks with the statistics of
their batch norms, each {module: {leaf: array}}. As in the released evaluation, the encoder is the online network's. The structure is
that of the released code (github.com/google-deepmind/deepmind-research, byol); the files themselves were not seen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from byol.others.pickles import Made, array

LICENCE = "CC BY-NC 4.0, not for commercial use, as DeepMind released them (github.com/google-deepmind/deepmind-research, byol)"
FIELDS = ("online_params", "target_params", "online_state", "target_state", "opt_state")

Tree: TypeAlias = Mapping[str, Mapping[str, Tensor]]  # module -> leaf -> values

_HEADS = ("projector", "predictor", "classifier")
_BLOCK = re.compile(r"block_group_(\d+)/~/block_(\d+)/~/(conv|batchnorm|shortcut_conv|shortcut_batchnorm)(?:_(\d+))?")
_LEAVES = {"scale": "weight", "offset": "bias"}
_STATISTICS = {"mean_ema": "running_mean", "var_ema": "running_var"}


def is_theirs(content: object) -> bool:
    """Whether the value of a pickle has the parts of such a file."""
    return isinstance(content, dict) and isinstance(content.get("experiment_state"), Made)


def online(content: object) -> tuple[Tree, Tree]:
    """The parameters and the statistics of the online network in the value of a pickle; ValueError where they are not there."""
    assert isinstance(content, dict)
    state = content["experiment_state"]
    if not isinstance(state, Made) or not isinstance(state.args, tuple) or len(state.args) != len(FIELDS):
        raise ValueError(f"its experiment_state is not the {len(FIELDS)} parts {', '.join(FIELDS)}")
    values = dict(zip(FIELDS, state.args, strict=True))
    return _tree(values["online_params"]), _tree(values["online_state"])


def torch_names(params: Tree, state: Tree) -> tuple[dict[str, Tensor], list[str]]:
    """The encoder's tensors as torchvision has them, and the heads that are left out. ValueError for a leaf that has no place."""
    found: dict[str, Tensor] = {}
    heads: set[str] = set()
    for module, leaves in params.items():
        if module.split("/")[0] in _HEADS:
            heads.add(module.split("/")[0])
            continue
        layer = _layer(module)
        for leaf, value in leaves.items():
            name = "weight" if leaf == "w" else _LEAVES.get(leaf)
            fits = value.ndim == 4 if leaf == "w" else value.ndim > 0 and value.numel() == value.shape[-1]
            if layer is None or name is None or not fits:
                raise ValueError(f"{module}/{leaf} of shape {tuple(value.shape)} has no place in a ResNet")
            found[f"{layer}.{name}"] = value.permute(3, 2, 0, 1) if leaf == "w" else value.flatten()  # from HWIO, and (1, 1, 1, C)
    for module, leaves in state.items():
        if module.split("/")[0] in _HEADS:
            continue
        norm, _, which = module.rpartition("/~/")
        layer = _layer(norm)
        if layer is None or which not in _STATISTICS or "average" not in leaves:
            raise ValueError(f"the statistics {module} have no place in a ResNet")
        # `average` is the moving average without its bias to zero; `hidden` has that bias.
        found[f"{layer}.{_STATISTICS[which]}"] = leaves["average"].flatten()
        if "counter" in leaves:
            found[f"{layer}.num_batches_tracked"] = leaves["counter"].reshape(()).to(torch.int64)
    return found, sorted(heads)


def _layer(module: str) -> str | None:
    """`res_net50/~/block_group_2/~/block_35/~/conv_1` -> `layer3.35.conv2`; None for what no residual net has."""
    _, _, inside = module.partition("/~/")
    if inside in ("initial_conv", "initial_batchnorm"):
        return "conv1" if inside == "initial_conv" else "bn1"
    found = _BLOCK.fullmatch(inside)
    if found is None:
        return None
    group, block, kind, number = found.groups()
    if (number is None) != kind.startswith("shortcut"):
        return None
    last = {"shortcut_conv": "downsample.0", "shortcut_batchnorm": "downsample.1"}.get(kind)
    return f"layer{int(group) + 1}.{block}.{last or f'{_KINDS[kind]}{int(number) + 1}'}"


_KINDS = {"conv": "conv", "batchnorm": "bn"}


def _tree(value: object) -> Tree:
    found: dict[str, dict[str, Tensor]] = {}
    for module, leaves in _mapping(value).items():
        found[module] = {leaf: _tensor(f"{module}/{leaf}", part) for leaf, part in _mapping(leaves).items()}
    return found


def _mapping(value: object) -> dict[str, object]:
    held = value.mapping() if isinstance(value, Made) else value
    if not isinstance(held, dict) or not all(isinstance(k, str) for k in held):
        raise ValueError("there is something else where the parameters of a network should be")
    return held


def _tensor(name: str, value: object) -> Tensor:
    try:
        found = array(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    # What torch has is in this machine's order and can be written.
    return torch.from_numpy(found.astype(np.float32 if found.dtype.kind == "f" else np.int64))
