"""Request, facts and recipe -> the plan: what was asked for goes over what a recipe says, and every value keeps its reason."""

from __future__ import annotations

from dataclasses import fields, replace

from byol.config import Plan, Request, Settings, of_one_view, parse_assignments
from byol.recipes.choices import Choices, Facts
from byol.recipes.named import load
from byol.recipes.stated import kind_of, own_values

PAYS = 1.15  # gain from which bf16 is taken: below, its coarser numbers cost more than the time

_MANY = {"recording": "recordings of neurons", "rgbd": "RGB-D frames"}  # what data are called, where it is not the kind with an s


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
