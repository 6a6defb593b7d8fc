"""The model card of an encoder: what it was trained on and how, whether it is healthy, what it is worth, and how to use it."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from byol.config import Request
from byol.encoders import Encoder, Input
from byol.evaluation import Evaluation
from byol.reporting import run as reports
from byol.reporting.run import Run, real

_SETTINGS = (
    "encoder", "image_size", "views", "epochs", "batch_size", "accumulate", "optimizer", "lr", "weight_decay", "warmup_epochs",
    "precision", "seed", "pretrained",
)  # fmt: skip
UNKNOWN = "unknown: whoever publishes these weights has to know it"


def card(encoder: Encoder, run: Path | None, *, timm: bool, network: str, data_licence: str | None = None, repo: str = "") -> str:
    """README.md of a model, with the header that the Hub reads. `run` is the folder that it came from, `repo` where it goes."""
    found = reports.read(run) if run is not None and (run / "plan.json").is_file() else None
    parts = [
        *_header(encoder, timm),
        f"# {_plain(repo.rpartition('/')[2] or (found.name if found else encoder.name))}",
        f"{_article(encoder)}, {encoder.dim:,} features, trained by byol; this is its {network} network.",
        *_use(encoder, timm, repo),
        *_trained(encoder, found),
        "Licence of the data: " + (_plain(data_licence) if data_licence else UNKNOWN) + ".",
        *(_evaluations(found) if found else ()),
    ]
    return "\n\n".join(parts) + "\n"


def _header(encoder: Encoder, timm: bool) -> Iterator[str]:
    method = _plain(str(encoder.provenance.get("method", "byol")))
    tags = list(dict.fromkeys(["self-supervised-learning", "byol", method]))
    task = ["pipeline_tag: image-feature-extraction"] if isinstance(encoder.input, Input) else []
    yield "\n".join(["---", f"library_name: {'timm' if timm else 'byol'}", *task, "tags:", *(f"- {json.dumps(t)}" for t in tags), "---"])


def _article(encoder: Encoder) -> str:
    i = encoder.input
    takes = f"images of {i.size} px and {i.channels} channels" if isinstance(i, Input) else "sounds"
    return f"`{_plain(encoder.name)}` for {takes}"


def _use(encoder: Encoder, timm: bool, repo: str) -> Iterator[str]:
    yield "## Use"
    where = repo or "."
    if timm:
        name = json.dumps(f"hf-hub:{repo}" if repo else "local-dir:.")
        config = "timm.data.resolve_model_data_config(net)"
        lines = ["import timm", "", f"net = timm.create_model({name}, pretrained=True).eval()"]
        yield _code("python", *lines, f"transform = timm.data.create_transform(**{config}, is_training=False)")
        yield _code("python", *_transformers(encoder, repo or "."))
    own = ", net=YOUR_MODULE" if encoder.custom else ""
    fetch = [f"# byol pull {where} --out model"] if repo else []
    folder = "model" if repo else "."
    lines = [*fetch, "import byol", "", f'encoder = byol.load("{folder}"{own})', "features = encoder(encoder.preprocess(...))"]
    yield _code("python", *lines)
    i = encoder.input
    if isinstance(i, Input) and (i.low, i.high) != (0, 255):
        yield f"Values from {i.low:g} to {i.high:g} become 0 to 1 first, and `byol` does that; for timm do it yourself."


def _transformers(encoder: Encoder, where: str) -> Iterator[str]:
    """The same in Hugging Face transformers, which wraps timm's networks; its processor makes images of three channels."""
    seen = encoder.input.channels == 3 if isinstance(encoder.input, Input) else False
    yield f"from transformers import {'AutoImageProcessor, ' * seen}AutoModel"
    yield ""
    yield f"model = AutoModel.from_pretrained({json.dumps(where)}).eval()  # features: model(pixel_values).pooler_output"
    if seen:
        yield f"processor = AutoImageProcessor.from_pretrained({json.dumps(where)})"


def _trained(encoder: Encoder, run: Run | None) -> Iterator[str]:
    yield "## Training"
    if run is None:
        known = {k: encoder.provenance.get(k) for k in ("method", "steps", "images")}
        yield "; ".join(f"{k}: {_plain(str(v))}" for k, v in known.items() if v is not None) or "Not known: there was no run to ask."
        return
    images = real(run.data.get("images")) or 0
    data = _plain(Path(run.spec).name or run.spec)
    yield f"Data: `{data}`, {images:,.0f} {run.words.many}, fingerprint `{_plain(str(run.data.get('fingerprint', 'unknown')))}`."
    s = run.settings
    rows = [("method", s.get("method")), *((k, s[k]) for k in _SETTINGS if k in s)]
    yield "\n".join(["| setting | value |", "|---|---|", *(f"| {k} | {_plain(str(v))} |" for k, v in rows)])
    yield _code("bash", _command(run))
    if run.records:
        last = run.records[-1]
        numbers = ", ".join(f"{k} {last.values[k]:.3g}" for k in ("loss", "spread", "rank") if k in last.values)
        why = f" ({_plain(last.reason)})" if last.reason and last.verdict != "OK" else ""
        yield f"Health at the end: {_plain(last.verdict)}{why}; {numbers}, after {last.step:,} updates."


def _command(run: Run) -> str:
    """The command of the run, without the folders of the machine that it ran on."""
    try:
        _, *options = Request.from_json(run.request).words()
    except ValueError:
        options = []
    return _line(shlex.join(["byol", "train", "DATA", *options]))


def _evaluations(run: Run) -> Iterator[str]:
    yield "## Evaluation"
    told = []
    for fields in run.evaluations:
        try:
            told.append("\n".join(Evaluation.from_json(fields).lines()))
        except (ValueError, TypeError):  # of another kind than by class labels: its protocol and its numbers as they are stored
            shown = {k: v for k, v in fields.items() if k in ("protocol", "description", "metric", "metrics", "scores", "rows", "notes")}
            told.append(json.dumps(shown, indent=1))
    if not told:
        yield "None was made of this run: `byol evaluate` makes one."
    for text in told:
        yield _code("", *(_line(line) for line in text.splitlines()))


def _code(language: str, *lines: str) -> str:
    return "\n".join([f"```{language}", *lines, "```"])


def _line(text: str) -> str:
    """One line that cannot end the block that it stands in."""
    return re.sub(r"[\x00-\x1f\x7f]", " ", text).replace("```", "'''")


def _plain(text: str) -> str:
    """Text of a file as one line of Markdown that is nothing but text."""
    return re.sub(r"[\x00-\x1f\x7f`|<>\[\]]", " ", text).strip()
