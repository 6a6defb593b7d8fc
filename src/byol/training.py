"""The loop: views, loss, backward, optimiser step, then `method.after_step`; a log line and a checkpoint now and then.

It knows the `Method` contract and no method. Step k, counted from 0, uses lr(k) and progress k/K; which images and views
come is a pure function of the step, so a checkpoint is weights, optimiser state and one number.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from byol import checkpoint, health
from byol.allocator import keep_freed_memory
from byol.config import Plan
from byol.files import write_text
from byol.methods import Method, StepOutput
from byol.optim import learning_rate
from byol.stored import parse

Record = dict[str, float | int | str]


class Feed(Protocol):
    """Where views come from: `feed(a, b)` yields the views of the forward passes a .. b-1, each a tuple of (B, C, S, S)."""

    def __call__(self, start: int, stop: int) -> Iterator[tuple[Tensor, ...]]: ...


class Watcher(Protocol):
    """Who is told how it goes."""

    def step(self, done: int) -> None: ...
    def log(self, record: Record) -> None: ...


@dataclass(frozen=True)
class Outcome:
    """How a call of `fit` ended."""

    step: int  # finished updates
    ended: str  # "finished", "interrupted" or "collapsed"
    seconds: float
    record: Record  # the last line of the log
    mend: str = ""  # a collapsed run: the setting to start again with


def fit(
    run: Path,
    plan: Plan,
    method: nn.Module,
    optimizer: torch.optim.Optimizer,
    feed: Feed,
    *,
    start: int = 0,
    watcher: Watcher | None = None,
    interrupted: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Train from update `start` to the end of the plan, to an interruption or to collapse; writes the log and checkpoints."""
    began = time.monotonic()
    if plan.settings.device == "cpu":
        keep_freed_memory()
    loop = Loop(run, plan, method, optimizer, watcher, start)
    passes = feed(start * plan.settings.accumulate, plan.steps * plan.settings.accumulate)
    ended = "finished"
    # Dropout in an encoder draws from torch's generator: seeded by the step, and given back as it was.
    with torch.random.fork_rng(devices=[torch.device(plan.settings.device)] if plan.settings.device.startswith("cuda") else []):
        for step in range(start, plan.steps):
            loop.update(step, islice(passes, plan.settings.accumulate))
            if loop.collapsed and plan.settings.on_collapse == "stop":
                mend = next(iter(loop.method.risks().values()), f"lr={plan.settings.lr / 4:g}")
                return Outcome(step + 1, "collapsed", time.monotonic() - began, loop.record, mend)
            stop = interrupted()
            loop.maybe_save(step + 1, force=stop or step + 1 == plan.steps)
            if stop and step + 1 < plan.steps:
                ended = "interrupted"
                break
    return Outcome(step + 1 if start < plan.steps else start, ended, time.monotonic() - began, loop.record)


class Loop:
    """The state of the loop that is not in the checkpoint, since it follows from the step or is about time."""

    def __init__(
        self, run: Path, plan: Plan, method: nn.Module, optimizer: torch.optim.Optimizer, watcher: Watcher | None, start: int
    ) -> None:
        self.run, self.plan, self.optimizer, self.watcher = run, plan, optimizer, watcher
        self.module, self.method = method, _contract(method)
        self.record: Record
        self.collapsed = False
        self._saved = self._logged = time.monotonic()
        self._logged_step = start
        self._non_finite = torch.zeros((), device=plan.settings.device)
        # Statistics of batch norm: a pass that is not finite would stay in them for good.
        self._statistics = joined([b for b in method.buffers() if b.is_floating_point()])
        self._before = [t.clone() for t in self._statistics]
        method.train()
        lines = trim_log(run / "metrics.jsonl", start)
        self.record = lines[-1] if lines else {}  # what is known of a run that has nothing left to do
        self._suspects = int(lines[-1].get("suspects", 0)) if lines else 0  # measurements in a row that looked like collapse
        self._first_spread = float(lines[0].get("spread", 0)) if lines else 0.0

    def update(self, step: int, passes: Iterator[tuple[Tensor, ...]]) -> None:
        """One optimiser step over `accumulate` forward passes, then the target, then perhaps a line of the log."""
        s = self.plan.settings
        lr = learning_rate(step, peak=self.plan.peak_lr, warmup=self.plan.warmup_steps, total=self.plan.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)
        self.optimizer.zero_grad(set_to_none=True)
        for before, now in zip(self._before, self._statistics, strict=True):
            before.copy_(now)
        loss = torch.zeros((), device=s.device)
        for micro, views in enumerate(passes):
            torch.manual_seed((s.seed * 1_000_003 + step * s.accumulate + micro) % 2**63)
            with autocast(s.device, s.precision):
                out = self.method(views)
            (out.loss / s.accumulate).backward()  # type: ignore[no-untyped-call]
            loss += out.loss.detach() / s.accumulate
        norm = self._finite_gradient()
        self._keep_finite(norm)
        self.optimizer.step()
        # The target moves after the optimiser and once per update, however many passes it took (test_the_target_moves_last).
        self.method.after_step(step / self.plan.steps)
        if self.watcher:
            self.watcher.step(step + 1)
        if (step + 1) % s.log_steps == 0 or step + 1 == self.plan.steps or step == 0:
            self._log(step, lr, loss, norm, out)

    def _finite_gradient(self) -> Tensor:
        """The gradient's norm; a gradient that is not finite becomes zero, without asking the device to wait."""
        grads = [p.grad for p in self.module.parameters() if p.grad is not None]
        norm: Tensor = torch.stack(torch._foreach_norm(grads)).norm()
        if norm.device.type != "cpu":
            bad = ~norm.isfinite()
            for g in grads:
                g.masked_fill_(bad, 0)
        elif not norm.isfinite():
            torch._foreach_zero_(grads)
        self._non_finite += ~norm.isfinite()
        return norm

    def _keep_finite(self, norm: Tensor) -> None:
        """The statistics as they were before an update whose gradient is not finite; no device waits."""
        for now, before in zip(self._statistics, self._before, strict=True):
            if norm.device.type != "cpu":
                torch.where(norm.isfinite(), now, before, out=now)
            elif not norm.isfinite():
                now.copy_(before)

    def _log(self, step: int, lr: float, loss: Tensor, norm: Tensor, out: StepOutput) -> None:
        """One line of metrics.jsonl; the only place where the loop reads numbers from the device."""
        s, now = self.plan.settings, time.monotonic()
        m = health.measure(out.projections)
        self._first_spread = self._first_spread or m.spread
        verdict, reason = health.verdict(
            m,
            step=step,
            warmup=self.plan.warmup_steps,
            lr=lr,
            first_spread=self._first_spread,
            non_finite=int(self._non_finite),
            risks=self.method.risks(),
        )
        # A network may start almost collapsed and recover: two measurements in a row, and not at the very start.
        self._suspects = self._suspects + 1 if verdict == "COLLAPSED" else 0
        self.collapsed = self._suspects >= 2 and step >= 20
        if verdict == "COLLAPSED" and not self.collapsed:
            verdict = "WARN"
        images = (step + 1 - self._logged_step) * s.batch_size * s.accumulate
        progress = step / self.plan.steps
        self.record = {
            "step": step + 1,
            "epoch": round((step + 1) / self.plan.steps_per_epoch, 3),
            "loss": float(loss),
            "lr": lr,
            **self.method.schedule(progress),
            "images_per_second": round(images / max(now - self._logged, 1e-9), 1),
            "grad_norm": float(norm),
            "spread": m.spread,
            "rank": m.rank,
            "positive_cosine": m.positive_cosine,
            "negative_cosine": m.negative_cosine,
            **{k: float(v) for k, v in (out.metrics | self.method.diagnostics()).items()},
            "suspects": self._suspects,
            "verdict": verdict,
            "reason": reason,
        }
        self._logged, self._logged_step = now, step + 1
        self._non_finite.zero_()
        # JSON has no NaN: what is not finite is written as a string, which says more than null.
        line = {k: v if not isinstance(v, float) or v - v == 0 else str(v) for k, v in self.record.items()}
        with (self.run / "metrics.jsonl").open("a", encoding="utf-8") as f:
            f.write(json.dumps(line) + "\n")
        if self.watcher:
            self.watcher.log(self.record)

    def maybe_save(self, done: int, *, force: bool) -> None:
        """A checkpoint if it is time."""
        due = time.monotonic() - self._saved >= self.plan.settings.checkpoint_minutes * 60
        if force or due:
            checkpoint.save(self.run / "last.safetensors", step=done, method=self.module, optimizer=self.optimizer)
            self._saved = time.monotonic()


def joined(buffers: list[Tensor]) -> list[Tensor]:
    """One flat tensor for each type; the buffers become parts of them, so that a hundred are copied at once."""
    out = []
    for dtype in dict.fromkeys(b.dtype for b in buffers):
        same = [b for b in buffers if b.dtype == dtype]
        flat = torch.cat([b.detach().flatten() for b in same])
        for buffer, part in zip(same, flat.split_with_sizes([b.numel() for b in same]), strict=True):
            buffer.data = part.view(buffer.shape)
        out.append(flat)
    return out


def autocast(device: str, precision: str) -> AbstractContextManager[object]:
    """The context in which forward passes run: bf16 autocast, or nothing."""
    return torch.autocast(torch.device(device).type, torch.bfloat16) if precision == "bf16" else nullcontext()


def rate(plan: Plan, method: nn.Module, optimizer: torch.optim.Optimizer, feed: Feed, *, seconds: float = 3.0) -> float:
    """Images per second of a training step here, measured on throw-away copies of method and optimiser."""
    s = plan.settings
    if s.device == "cpu":
        keep_freed_memory()  # as in the run itself
    timed, images, began = _contract(method.train()), 0, 0.0
    warm = 1 if s.device == "cpu" and s.image_size > 64 else 5  # passes until memory and clock rates have settled
    for n, views in enumerate(feed(0, 10**9)):
        with autocast(s.device, s.precision):
            out = timed(views)
        out.loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        timed.after_step(0.0)
        float(out.loss.detach())  # wait for the device
        if n == warm:
            began = time.monotonic()
        elif n > warm:
            images += s.batch_size
            if time.monotonic() - began > seconds and n >= warm + 3:
                break
    return images / (time.monotonic() - began)


def trim_log(path: Path, step: int) -> list[Record]:
    """Drop the lines after `step`, logged after the checkpoint from which the run goes on; returns those that stay."""
    if not path.exists():
        return []
    lines = [(line, _record_of(line)) for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    kept = [(line, record) for line, record in lines if record is not None and int(record["step"]) <= step]
    write_text(path, "".join(line + "\n" for line, _ in kept))
    return [record for _, record in kept]


def _record_of(line: str) -> Record | None:
    """A line of the log; None for one cut short by a kill, or that no run wrote."""
    try:
        record = parse(line)
        if isinstance(record, dict) and isinstance(record["step"], int):
            float(record.get("spread", 0)), int(record.get("suspects", 0))
            return record
    except (ValueError, KeyError, TypeError, OverflowError):
        pass
    return None


def _contract(method: nn.Module) -> Method:
    return method  # type: ignore[return-value]  # nn.Module cannot say that it follows a protocol
