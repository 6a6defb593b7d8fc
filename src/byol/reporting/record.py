"""What was trained on what, every setting with its reason, and everything needed to do it again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence

from byol import families
from byol.reporting.html import Markup, copyable, duration, join, missing, number, table, tag
from byol.reporting.run import Run, listing, mapping, real

# What `byol evaluate` takes when an option is not given (test_an_evaluation_is_repeated_by_the_command_that_made_it).
EVALUATE: dict[str, object] = {
    "test": None, "labels": [1.0], "draws": 5, "seed": 0, "limit": None, "baselines": True, "precision": "fp32", "batch_size": 256,
}  # fmt: skip
_SKIPPED = 40  # rows of the table of files that were left out
_VERSIONS = ("byol", "torch", "python", "machine")
_DERIVED = {
    "steps_per_epoch": "whole batches of an epoch / accumulate",
    "steps": "updates in all",
    "warmup_steps": "updates in which the rate rises from 0",
    "peak_lr": "lr × batch × accumulate / 256",
}
_UNITS = {"image_size": "px",  "batch_size": "images a pass",
          "lr": "per 256 images",  "log_steps": "updates", "checkpoint_minutes": "minutes"}  # fmt: skip


def facts(run: Run) -> Markup:
    """The few facts that a person wants first."""
    s, images = run.settings, real(run.data.get("images")) or real(run.plan.get("images")) or 0
    skipped = len(listing(run.data.get("skipped")))
    last = run.records[-1] if run.records else None
    done = (
        f"{number(round(last.epoch, 1))} of {number(real(s.get('epochs')) or 0)} epochs"
        if last and not run.finished
        else f"{s.get('epochs')} epochs"
    )
    steps = f"{number(last.step)} updates of {_batch(run)} {run.words.many}" if last else f"{number(run.steps)} updates planned"
    pairs = [
        (
            "Trained on",
            f"{number(images)} {run.words.many}",
            f"{run.spec}" + (f", {number(skipped)} skipped" if skipped else "") + "; labels not used",
        ),
        ("Network", str(s.get("encoder", "?")), f"{_size(run)}, {s.get('method')}" + (_dim(run))),
        ("Length", done, steps),
        (
            "Time",
            duration(run.seconds()) if last else "–",
            f"{s.get('device')}, {s.get('precision')}; {run.config.get('machine', 'machine not recorded')}",
        ),
    ]
    boxes = (tag("div", tag("dt", a), tag("dd", b), tag("dd", c, class_="more")) for a, b, c in pairs)
    return tag("dl", *boxes, class_="facts")


def _size(run: Run) -> str:
    """What the encoder sees of a sample."""
    if run.words.one == "image":
        return f"{run.settings.get('image_size')} px"
    return f"{number(real(mapping(run.plan.get('input')).get('channels')) or 0)} {run.words.channels}"


def _batch(run: Run) -> str:
    return number((real(run.settings.get("batch_size")) or 0) * (real(run.settings.get("accumulate")) or 1))


def _dim(run: Run) -> str:
    dim = real(run.encoder.get("dim"))
    return f", {number(dim)} features" if dim else ""


def plan(run: Run) -> Markup:
    """Every value with the reason for it."""
    reasons = mapping(run.plan.get("reasons"))
    rows: list[list[str]] = []
    for group in ("settings", "method", "views"):
        for key, value in mapping(run.plan.get(group)).items():
            rows.append(
                [
                    tag("th", key, scope="row", class_=f"of-{group}"),
                    tag("td", _value(key, value), class_="value"),
                    str(reasons.get(key, "")),
                ]
            )
    rows += [[key, tag("td", value, class_="value"), why] for key, value, why in _derived(run)]
    said = [tag("p", f"To be expected: {run.plan['expected']}.", class_="note")] if run.plan.get("expected") else []
    notes = [tag("p", str(n), class_="note") for n in listing(run.plan.get("notes"))]
    return join([*said, *notes, table(["setting", "value", "because"], rows, "plan")])


def _derived(run: Run) -> list[tuple[str, str, str]]:
    """(name, value, how) of what follows from the settings."""
    return [(key, number(value), how) for key, how in _DERIVED.items() if (value := real(run.plan.get(key))) is not None]


def _value(key: str, value: object) -> str:
    found = real(value)
    text = number(found) if found is not None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if key == "seed" and found is not None:
        text = str(value)
    return f"{text} {_UNITS[key]}" if key in _UNITS else text


def data(run: Run) -> Markup:
    """What the run was trained on, and every file that was left out, with the reason."""
    if not run.data:
        return missing("There is no data.json in this run, so what it was trained on is known only by name.", run.says("resume"))
    d, skipped = run.data, [mapping(s) for s in listing(run.data.get("skipped"))]
    kept = f"{number(real(d.get('images')) or 0)} {run.words.many} from {d.get('spec')} ({d.get('kind')})."
    parts = [tag("p", kept, tag("br"), tag("small", "fingerprint ", tag("code", str(d.get("fingerprint"))), class_="break"))]
    if not skipped:
        return join([*parts, tag("p", "No file was skipped.", class_="note")])
    rows = [[str(s.get("name", "")), str(s.get("reason", ""))] for s in skipped[:_SKIPPED]]
    more = [tag("p", f"and {number(len(skipped) - _SKIPPED)} more, listed in data.json", class_="note")] if len(skipped) > _SKIPPED else []
    many = "1 file was skipped:" if len(skipped) == 1 else f"{number(len(skipped))} files were skipped:"
    return join([*parts, tag("p", many), table(["file", "reason"], rows, "names"), *more])


def repeat(run: Run) -> Markup:
    """The command, the versions, the machine, and the files that hold the rest."""
    commands = "\n".join([run.command(), *_evaluations(run), run.says("report")])
    rows: list[list[str]] = [[k, str(run.config.get(k, "not recorded"))] for k in _VERSIONS]
    rows.append(["seed", str(run.settings.get("seed", "not recorded"))])
    rows.append(["data", tag("td", str(run.data.get("fingerprint", "not recorded")), class_="break")])
    if run.encoder.get("sha256"):
        rows.append(["encoder", tag("td", str(run.encoder["sha256"]), class_="break")])
    said = "The same seed gives the same samples, views and steps; on the same machine also the same weights, bit for bit."
    files = [_file("config.json", run.config), _file("plan.json", run.plan), _file("data.json", _brief(run.data))]
    return join([copyable(commands), tag("p", said, class_="note"), table(["", ""], rows, "versions"), *files])


def _evaluations(run: Run) -> list[str]:
    """The commands of the evaluations that there are; those that differ in the protocol alone are one."""
    protocols: dict[tuple[str, str, bool], list[str]] = {}
    for e in run.evaluations:
        asked = mapping(e.get("asked"))
        word = str(asked.get("protocol") or e.get("protocol", ""))
        task = word.partition(":")[0] in families.names()  # not in one command with the others
        protocols.setdefault((*_options(asked, run.spec), task), []).append(word)
    return [f"{run.says('evaluate', spec)} --protocol {shlex.join(names)}{options}" for (spec, options, _), names in protocols.items()]


def _options(asked: dict[str, object], spec: str) -> tuple[str, str]:
    """The data, and every option that is not the command's own default, as typed."""
    words: list[str] = []
    for key, default in EVALUATE.items():
        value = asked.get(key, default)
        if value == default:
            continue
        words.append(f"--{'no-' * (value is False)}{key.replace('_', '-')}")
        words += [] if isinstance(value, bool) else [str(v) for v in listing(value) or [value]]
    return str(asked.get("data", spec)), "".join(f" {shlex.quote(w)}" for w in words)


def _brief(content: dict[str, object]) -> dict[str, object]:
    """The same with the list of skipped files cut: the page holds them once."""
    skipped = listing(content.get("skipped"))
    return content if len(skipped) <= _SKIPPED else {**content, "skipped": [*skipped[:_SKIPPED], f"... {len(skipped) - _SKIPPED} more"]}


def _file(name: str, content: dict[str, object]) -> Markup:
    if not content:
        return missing(f"{name} is missing from the run or damaged.")
    return tag("details", tag("summary", name), copyable(json.dumps(content, indent=1, ensure_ascii=False)))


def differences(runs: Sequence[Run]) -> Markup:
    """The settings in which the runs differ, a column each."""
    flat = [_flat(r) for r in runs]
    keys = list(dict.fromkeys(k for f in flat for k in f))
    rows: list[list[str]] = [
        [k, *(tag("td", f.get(k, "–"), class_="value") for f in flat)] for k in keys if len({f.get(k) for f in flat}) > 1
    ]
    if not rows:
        return tag("p", "None: the runs have the same settings, versions and data.", class_="note")
    return table(["", *(r.name for r in runs)], rows, "numbers wide")


def _flat(run: Run) -> dict[str, str]:
    """All settings, versions and the data of a run as text, by name."""
    found = {k: _value(k, v) for group in ("settings", "method", "views") for k, v in mapping(run.plan.get(group)).items()}
    found |= {key: value for key, value, _ in _derived(run)}
    found |= {k: str(run.config[k]) for k in _VERSIONS if k in run.config}
    found["data"] = run.spec
    found["images"] = number(real(run.data.get("images")) or 0)
    found["fingerprint of the data"] = str(run.data.get("fingerprint", ""))[:12]
    return found
