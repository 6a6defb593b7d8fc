"""InfoMin's learned views: a flow hides what two networks find each other by (Tian et al. 2020, arXiv 2005.10243).

Which views share what the task needs and nothing else may be learnt: an invertible flow g turns the three colours of every pixel into
three other channels, one network f1 sees the first of them, another, f2, the other two, and as in CMC what one makes of an image has to
find, among the images of the batch, what the other made of it. f1 and f2 maximise I_NCE = log N - cross-entropy, a lower bound of what
both views share; g minimises it: its gradient of the contrastive loss is reversed, times `reverse`, so that one optimiser serves
(`reverse=0`: g is never taught, and the views are those that it begins with).

With `label_weight` above 0, and labels, which may be of a few images alone (-1: unknown), the flow is also to keep what labels need: linear
classifiers on the features of f1 and of f2, whose cross-entropies are minimised by g and by the classifiers. f1 and f2 are held still in
that, in a pass of its own, which their statistics do not hear of: they are taught by the contrast alone. Labels are used only where
`label_weight` asks for them; then the encoder has seen them, and says so where it is compared.

The paper's own remark: without labels it is unstable, and takes away too much. Look at I_NCE: near 0 the views share nothing, and there
is nothing to be learnt. `inverse_error`, the mean of |g^-1(g(x)) - x|, says that no colour is lost.

The encoder that is trained and kept takes RGB and puts the features of both networks side by side: `flow:NAME` of the catalogue, two
networks of half of NAME's channels. `--encoder resnet18` is `flow:resnet18` here. Graying is off in `auto`, as for `cmc`.
The paper's flow, optimiser and result were not had: layers, rates and how classifiers see the views are ours (`byol.encoders.flow`).

Expect no published number.

Use it to see what views lose when they are learnt; colour images alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from byol import dist
from byol.encoders import Encoder, Flow
from byol.losses import normalise
from byol.methods import Base, Curve, StepOutput, View, cmc, supervised
from byol.methods._heads import at_least_float32, mlp, width

MODALITY = "image"
# In a short run the flow is soon ahead of the networks: at reverse 1 they find nothing.
AUTO = {"gray": 0.0, "lr": 0.1, "reverse": 0.05}


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of InfoMin's learned views."""

    hidden: int = 0  # units of the hidden layer of each head; 0: linear heads, as CMC's
    dim: int = 128  # units of what is compared
    temperature: float = 0.1  # of the similarities
    reverse: float = 1.0  # by how much the flow's gradient of the contrastive loss is multiplied, after its sign is changed
    label_weight: float = 0.0  # of the cross-entropies of the labels; 0: labels are not looked at
    classes: int = 0  # of the labels; a run fills it in

    def __post_init__(self) -> None:
        if self.hidden < 0 or self.dim < 1:
            raise ValueError(f"hidden={self.hidden} and dim={self.dim} are not possible; give hidden 0 and dim 1 or more")
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"temperature is {self.temperature}; give a number above 0")
        for name in ("reverse", "label_weight"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)}; give 0 or more")
        if self.label_weight and self.classes < 2:
            what = f"label_weight is {self.label_weight}, and there are {self.classes} classes of labels"
            raise ValueError(f"{what}; give labelled data, e.g. folders by class, or label_weight=0")

    def rows(self) -> tuple[str, ...]:
        """What is made use of where the data say it."""
        return ("labels",) if self.label_weight else ()


class InfoMinFlow(Base):
    """One view in, and labels where they are used; the sum of both directions' losses out, and of the labels'."""

    Config = Options
    ENCODER = "flow"
    VIEWS = (View(0),)
    ROWS_IF_KNOWN = Options.rows
    CURVES = (
        Curve(("shared",), "Shared by both views", "nats", "I_NCE: networks raise it, the flow lowers it.", True),
        Curve(("first_found", "second_found"), "Other half found", "share", "Images whose channel 1 finds the other two, and back.", True),
        Curve(("halves_cosine",), "Halves", "cosine", "Of what both networks make of the same image."),
        Curve(("label_loss",), "Loss of the labels", "nats", "The sum of both classifiers' cross-entropies.", True),
        Curve(("inverse_error",), "Image given back", "std", "Mean distance of a colour from what the flow's inverse gives back.", True),
    )  # fmt: skip

    def __init__(self, encoder: nn.Module, config: Options | None = None) -> None:
        super().__init__()
        c = self.config = config or Options()
        self.encoder = encoder
        half = width(encoder) // 2
        _flow(encoder)  # refuses one that has none
        self.first_projector, self.second_projector = (
            mlp(half, c.hidden, c.dim, norm="none", layers=2 if c.hidden else 1, output_norm=True) for _ in range(2)
        )
        if c.label_weight:
            self.first_classifier, self.second_classifier = nn.Linear(half, c.classes), nn.Linear(half, c.classes)
        self.train()

    def forward(self, views: tuple[Tensor, ...], *, labels: Tensor | None = None) -> StepOutput:
        """One view, (B, 3, S, S), and labels, (B,) int64, -1 where unknown -> the contrastive loss, and the labels' where there are any."""
        c, net = self.config, _flow(self.encoder)
        one, two = net.split(views[0])
        first, second = net.features(reversed_gradient(one, c.reverse), reversed_gradient(two, c.reverse))
        v = normalise(at_least_float32(self.first_projector(first)))
        w = normalise(at_least_float32(self.second_projector(second)))
        (one_loss, one_share), (two_loss, two_share) = cmc.in_batch(v, w, c.temperature), cmc.in_batch(w, v, c.temperature)
        loss = one_loss + two_loss
        metrics = {
            "shared": math.log(len(v) * dist.size()) - loss.detach() / 2,
            "first_found": one_share,
            "second_found": two_share,
            "halves_cosine": (v.detach() * w.detach()).sum(1).mean(),
        }
        with torch.no_grad():
            metrics["inverse_error"] = (net.inverse(one, two) - views[0]).abs().mean()
        if labels is not None and c.label_weight:
            label_loss, told = self._labelled(net, one, two, labels)
            loss, metrics = loss + c.label_weight * label_loss, metrics | told
        return StepOutput(loss, (torch.cat([v.detach(), w.detach()], 1),), metrics)

    def _labelled(self, net: Flow, one: Tensor, two: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """What the networks see, (B, 1, S, S) and (B, 2, S, S), and labels, (B,) -> the sum of both cross-entropies, and what to log."""
        first, second = _held(net, one, two)
        one_loss, one_right = supervised.cross_entropy(at_least_float32(self.first_classifier(first)), labels)
        two_loss, two_right = supervised.cross_entropy(at_least_float32(self.second_classifier(second)), labels)
        loss = one_loss + two_loss
        return loss, {"label_loss": loss.detach(), "first_accuracy": one_right, "second_accuracy": two_right}

    def risks(self) -> dict[str, str]:
        """There are none of collapse into one point: negatives keep images apart."""
        return {}


class _Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: float) -> Tensor:
        ctx.weight = weight
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.weight * gradients[0], None


def reversed_gradient(x: Tensor, weight: float) -> Tensor:
    """The same values; the gradient that passes back is multiplied by -weight."""
    return cast(Tensor, _Reversed.apply(x, weight))


def _held(net: Flow, one: Tensor, two: Tensor) -> tuple[Tensor, Tensor]:
    """What both networks see -> their features, (B, d) each: the gradient reaches what they see and not their weights."""
    # Running statistics would count the batch a second time: this pass writes into copies.
    state = {name: p.detach() for name, p in net.named_parameters()} | {name: b.clone() for name, b in net.named_buffers()}
    return cast(tuple[Tensor, Tensor], functional_call(_Features(net), {f"net.{name}": t for name, t in state.items()}, (one, two)))


class _Features(nn.Module):
    """`net.features` as a module's call, which `functional_call` needs."""

    def __init__(self, net: Flow) -> None:
        super().__init__()
        self.net = net

    def forward(self, one: Tensor, two: Tensor) -> tuple[Tensor, Tensor]:
        return self.net.features(one, two)


def _flow(encoder: nn.Module) -> Flow:
    """The two networks behind a flow of an encoder; ValueError where there are none."""
    net = encoder.net if isinstance(encoder, Encoder) else encoder
    if not isinstance(net, Flow):
        name = encoder.name if isinstance(encoder, Encoder) else type(encoder).__name__
        raise ValueError(f"infomin_flow trains two networks behind a flow, and {name} is none; give --encoder flow:NAME")
    return net


METHOD = InfoMinFlow
