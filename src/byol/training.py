"""The loop: views, loss, backward, optimiser step, then `method.after_step`; a log line and a checkpoint now and then.

It knows the `Method` contract and no method. Step k, counted from 0, uses lr(k) and progress k/K; which images and views
come is a pure function of the step, so a checkpoint is weights, optimiser state and a few counts.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from byol import checkpoint, dist, health
from byol.allocator import keep_freed_memory
from byol.config import Plan
from byol.files import append, sync, write_text
from byol.methods import Batch, Method, StepOutput
from byol.optim import learning_rate
from byol.replicas import replicated
from byol.stored import parse

Record = dict[str, float | int | str]
IN_A_ROW = 5  # updates whose loss or gradient is not finite, after which the next one is hardly better


class Feed(Protocol):
    """Where views come from: `feed(a, b)` yields what the method is called with in the forward passes a .. b-1."""

    def __call__(self, start: int, stop: int) -> Iterator[Batch]: ...


class Watcher(Protocol):
    """Who is told how it goes."""

    def step(self, done: int) -> None: ...
    def log(self, record: Record) -> None: ...
    def note(self, text: str) -> None: ...


@dataclass(frozen=True)
class Outcome:
    """How a call of `fit` ended."""

    step: int  # finished updates
    ended: str  # "finished", "interrupted", "collapsed" or "not finite"
    seconds: float
    record: Record  # the last line of the log
    mend: str = ""  # a collapsed run: the setting to start again with
    left_out: range = range(0)  # a run of numbers that are not finite: its last updates, counted from 0, which had no effect


def fit(
    run: Path,
    plan: Plan,
    method: nn.Module,
    optimizer: torch.optim.Optimizer,
    feed: Feed,
    *,
    views: nn.Module | None = None,
    start: int = 0,
    watcher: Watcher | None = None,
    interrupted: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Train from update `start` to the end of the plan, to an interruption or to collapse; writes the log and checkpoints.

    `views` holds what the feed's views remember from step to step, which a checkpoint has to keep.

    Of several processes all come here; the first one writes, and tells the others where the weights stand.
    """
    began = time.monotonic()
    if plan.settings.device == "cpu":
        keep_freed_memory()
    loop = Loop(run, plan, method, optimizer, watcher, start, views)
    passes = feed(start * plan.settings.accumulate, plan.steps * plan.settings.accumulate)
    ended, agreed = "finished", dist.Agreement()
    # Dropout in an encoder draws from torch's generator, which is seeded by the step, alike in all processes, and given back as it was.
    with torch.random.fork_rng(devices=[torch.device(plan.settings.device)] if plan.settings.device.startswith("cuda") else []):
        for step in range(start, plan.steps):
            loop.update(step, islice(passes, plan.settings.accumulate))
            if loop.collapsed and plan.settings.on_collapse == "stop":
                mend = next(iter(loop.method.risks().values()), f"lr={plan.settings.lr / 4:g}")
                return Outcome(step + 1, "collapsed", time.monotonic() - began, loop.record, mend)
            if loop.broken:
                loop.maybe_save(step + 1, force=True)
                dist.wait()
                return Outcome(
                    step + 1, "not finite", time.monotonic() - began, loop.record, left_out=range(step + 1 - loop.broken, step + 1)
                )
            stop = agreed(interrupted())
            loop.maybe_save(step + 1, force=stop or step + 1 == plan.steps)
            if stop and step + 1 < plan.steps:
                ended = "interrupted"
                break
    dist.wait()  # until the checkpoint is written
    return Outcome(step + 1 if start < plan.steps else start, ended, time.monotonic() - began, loop.record)


class Loop:
    """The state of the loop that is not in the checkpoint, since it follows from the step or is about time."""

    def __init__(
        self,
        run: Path,
        plan: Plan,
        method: nn.Module,
        optimizer: torch.optim.Optimizer,
        watcher: Watcher | None,
        start: int,
        views: nn.Module | None = None,
    ) -> None:
        self.run, self.plan, self.optimizer, self.watcher, self.views = run, plan, optimizer, watcher, views
        self.module, self.method, self.forward = method, _contract(method), replicated(method, optimizer)
        self.record: Record
        self.collapsed = False
        self.broken = 0  # updates in a row that were left out, once they are too many
        self._saved = self._logged = time.monotonic()
        self._cost = 0.0  # seconds that the last checkpoint took
        self._logged_step = start
        self._unwritten, self._trouble = "", ""  # lines that the disk did not take, and why it did not
        counts = dist.from_first(lambda: vars(checkpoint.counts(run, start)))
        self._left_out, self._in_a_row = torch.tensor([counts["left_out"], counts["in_a_row"]], device=plan.settings.device).unbind()
        method.train()
        self._hold()
        first, last = _ends(run / "metrics.jsonl", start)
        self.record = last  # what is known of a run that has nothing left to do
        self._told_left_out = int(last.get("left_out", 0))
        self._suspects = int(last.get("suspects", 0))  # measurements in a row that looked like collapse
        self._first_spread = float(first.get("spread", 0.0))

    def update(self, step: int, passes: Iterator[Batch]) -> None:
        """One optimiser step over `accumulate` forward passes, then the target, then perhaps a line of the log."""
        s = self.plan.settings
        plan = self.plan
        lr = learning_rate(step, peak=plan.peak_lr, warmup=plan.warmup_steps, total=plan.steps, schedule=s.lr_schedule)
        for group in self.optimizer.param_groups:
            group["lr"] = (plan.peak_lr if group.get("constant") else lr) * group.get("lr_scale", 1.0)
        self.optimizer.zero_grad(set_to_none=True)
        if self._held:  # a network without batch norm may have no buffers
            torch._foreach_copy_(self._before, self._held)
        losses = []
        for micro, (views, rows) in enumerate(passes):
            torch.manual_seed((s.seed * 1_000_003 + step * s.accumulate + micro) % 2**63)
            with self._alone(micro + 1 < s.accumulate):
                with autocast(s.device, s.precision):
                    out = self.forward(views, **rows)
                (out.loss / s.accumulate).backward()
            losses.append(out.loss.detach())
        loss = dist.mean(torch.stack(losses).mean())
        norm: Tensor = torch.stack(torch._foreach_norm([p.grad for p in self.module.parameters() if p.grad is not None])).norm()
        self._take(norm.isfinite() & loss.isfinite(), step)
        if self.watcher:
            self.watcher.step(step + 1)
        if (step + 1) % s.log_steps == 0 or step + 1 == self.plan.steps or step == 0 or self.broken:
            self._log(step, lr, loss, norm, out)

    def _alone(self, more: bool) -> AbstractContextManager[object]:
        """Gradients of several processes meet once per update, in its last forward pass."""
        return self.forward.no_sync() if more and isinstance(self.forward, DistributedDataParallel) else nullcontext()

    def _hold(self) -> None:
        """Sets what is put back after an update that is left out, with the memory to keep it in meanwhile.

        The optimiser leaves its own tensors as they were. What else there is changes in the passes (statistics of batch norm) or in
        `after_step` (the target): on a CPU that is not called at all then; a GPU would have to be waited for to know, so it is.
        """
        place = torch.device(self.plan.settings.device).type
        self._skips = getattr(self.optimizer, "_step_supports_amp_scaling", False)  # it looks at `found_inf`
        self._asks = place == "cpu" or not (self._skips or place == "meta")
        self._held = joined(list(self.module.buffers()))
        if not self._asks:
            own = {p for group in self.optimizer.param_groups for p in group["params"]}
            self._held += [p.detach() for p in self.module.parameters() if p not in own]
        self._before = [t.clone() for t in self._held]

    def _take(self, finite: Tensor, step: int) -> None:
        """The optimiser's step and the target's, or, where `finite` is false, everything as it was before the update.

        On several processes `finite` has to be the same on all of them.
        """
        self._left_out = self._left_out + ~finite
        self._in_a_row = (self._in_a_row + 1) * ~finite
        if not self._asks and self._skips:
            self.optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]  # what torch's own scaler sets
        if not self._asks or finite:
            self.optimizer.step()
            # The target moves after the optimiser and once per update, however many passes it took (test_the_target_moves_last).
            self.method.after_step(step / self.plan.steps)
        if not self._asks:
            for now, before in zip(self._held, self._before, strict=True):
                torch.where(finite, now, before, out=now)
        elif not finite:
            if self._held:
                torch._foreach_copy_(self._held, self._before)
            self._look_back()

    def _look_back(self) -> None:
        """Enough updates in a row were left out: more of them would be as well."""
        self.broken = n if (n := int(self._in_a_row)) >= IN_A_ROW else 0

    def _log(self, step: int, lr: float, loss: Tensor, norm: Tensor, out: StepOutput) -> None:
        """One line of metrics.jsonl; the only place where the loop reads numbers from the device."""
        s, now = self.plan.settings, time.monotonic()
        m = health.measure(tuple(dist.gathered(p) for p in out.projections))
        self._look_back()
        left_out = int(self._left_out)
        self._first_spread = self._first_spread or m.spread
        verdict, reason = health.verdict(
            m,
            step=step,
            warmup=self.plan.warmup_steps,
            lr=lr,
            first_spread=self._first_spread,
            non_finite=left_out - self._told_left_out,
            risks=self.method.risks(),
            options=[f.name for f in fields(self.method.Config)],
            directions=not getattr(self.method, "FEW_DIRECTIONS", False),
        )
        # A network may start almost collapsed and recover: two measurements in a row, and not at the very start.
        self._suspects = self._suspects + 1 if verdict == "COLLAPSED" else 0
        self.collapsed = self._suspects >= 2 and step >= 20
        if verdict == "COLLAPSED" and not self.collapsed:
            verdict = "WARN"
        if self._trouble and verdict == "OK":
            verdict, reason = "WARN", self._trouble
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
            **{k: float(dist.mean(v)) for k, v in (out.metrics | self.method.diagnostics()).items()},
            "left_out": left_out,
            "suspects": self._suspects,
            "verdict": verdict,
            "reason": reason,
        }
        self._logged, self._logged_step, self._told_left_out = now, step + 1, left_out
        # JSON has no NaN: what is not finite is written as a string, which says more than null.
        line = {k: v if not isinstance(v, float) or v - v == 0 else str(v) for k, v in self.record.items()}
        if dist.rank() == 0:
            self._unwritten += json.dumps(line) + "\n"
        try:
            self._write()
        except OSError as error:
            self._trouble = _unsaved(error)
        if self.watcher:
            self.watcher.log(self.record)

    def _write(self) -> None:
        """The lines of the log that are in no file yet; OSError if there is no room for them."""
        if self._unwritten:
            append(self.run / "metrics.jsonl", self._unwritten)
            self._unwritten = ""

    def maybe_save(self, done: int, *, force: bool) -> None:
        """A checkpoint if it is time. One that cannot be written is tried again when the next is due; raises OSError if forced.

        Where writing takes long they come less often, up to ten times, so that no more than a hundredth of the time goes into them.
        """
        began, seconds = time.monotonic(), self.plan.settings.checkpoint_minutes * 60
        if dist.rank() or not (force or began - self._saved >= max(seconds, min(99 * self._cost, 10 * seconds))):
            return
        try:
            self._save(done)
            self._trouble = ""
        except OSError as error:
            if force:
                raise
            self._trouble = _unsaved(error)
        self._saved = time.monotonic()
        self._cost = self._saved - began

    def _save(self, done: int) -> None:
        # The log first: no line of an update before the checkpoint may be missing, whenever the power goes.
        self._write()
        if (self.run / "metrics.jsonl").exists():
            sync(self.run / "metrics.jsonl")
        counts = {"left_out": int(self._left_out), "in_a_row": int(self._in_a_row)}
        checkpoint.save(self.run / checkpoint.LAST, step=done, method=self.module, optimizer=self.optimizer, views=self.views, **counts)


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
    """Images per second of a training step here, measured on throw-away copies of method and optimiser.

    Of several processes one measures its share of each batch, which the feed gives it; the others are taken to be as fast.
    """
    s = plan.settings
    if s.device == "cpu":
        keep_freed_memory()  # as in the run itself
    timed, images, began = _contract(method.train()), 0, 0.0
    warm = 1 if s.device == "cpu" and s.image_size > 64 else 5  # passes until memory and clock rates have settled
    for n, (views, rows) in enumerate(feed(0, 10**9)):
        with autocast(s.device, s.precision):
            out = timed(views, **rows)
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


def _ends(log: Path, step: int) -> tuple[Record, Record]:
    """The first and the last line of the log up to the step, both empty where there is none."""

    def read() -> list[Record]:
        lines = trim_log(log, step)
        return [lines[0], lines[-1]] if lines else [{}, {}]

    ends: list[Record] = dist.from_first(read)
    return ends[0], ends[1]


def trim_log(path: Path, step: int) -> list[Record]:
    """Drop the lines after `step`, logged after the checkpoint from which the run goes on; returns those that stay."""
    if not path.exists():
        return []
    lines = [(line, _record_of(line)) for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    kept = [(line, record) for line, record in lines if record is not None and int(record["step"]) <= step]
    text = "".join(line + "\n" for line, _ in kept)
    if text.encode() != path.read_bytes():
        write_text(path, text)
    return [record for _, record in kept]


def _unsaved(error: OSError) -> str:
    return f"{error.filename} cannot be written ({error.strerror}); training goes on and tries again with the next checkpoint"


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
