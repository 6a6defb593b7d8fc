"""A part of an encoder inside a detector, fine-tuned or left as it is."""

from __future__ import annotations

from torch import nn


class Still(nn.Module):
    """A part of the encoder; `frozen`: its weights and batch-norm statistics stay, whatever mode the whole is in."""

    def __init__(self, part: nn.Module, *, frozen: bool) -> None:
        super().__init__()
        self.part, self.frozen = part, frozen
        part.requires_grad_(not frozen)

    def train(self, mode: bool = True) -> Still:
        """As any module, but a frozen part always evaluates."""
        super().train(mode)
        if self.frozen:
            self.part.eval()
        return self
