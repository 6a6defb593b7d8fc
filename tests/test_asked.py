from dataclasses import dataclass

import pytest

from byol import asked, dense, evaluation


@dataclass(frozen=True, kw_only=True)
class Every:
    """A setting of each type that protocols have."""

    steps: int = 1
    lr: float = 0.5
    best: float | None = 0.1
    fast: bool = False
    mode: str = "both"
    list: str | None = None
    lrs: tuple[float, ...] = (1.0,)
    epochs: tuple[int, ...] = (1,)


def read(text):
    return asked.read(text, {"every": Every}, "protocol")


def test_settings_have_the_types_that_they_are_declared_with():
    assert read("every") == Every()
    found = read("every:steps=3,lr=1,best=none,fast=True,mode=None,list=names.txt,lrs=1e-3/2,epochs=3/5")
    assert found == Every(steps=3, lr=1.0, best=None, fast=True, mode="None", list="names.txt", lrs=(0.001, 2.0), epochs=(3, 5))
    assert [type(v) for v in (found.steps, found.lr, *found.lrs, *found.epochs)] == [int, float, float, float, int, int]
    assert (read("every:best=2").best, read("every:list=none").list, read("every:fast=false").fast) == (2.0, None, False)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("ever", r"there is no protocol 'ever' \(did you mean every\?\); there are every"),
        ("every:step=3", r"no setting 'step=3' \(did you mean steps\?\); there are steps, lr, "),
        ("every:fast", r"no setting 'fast'"),
        ("every:steps=2.5", r"steps=2.5: give a whole number"),
        ("every:steps=true", r"steps=true: give a whole number"),
        ("every:lr=none", r"lr=none: give a number"),
        ("every:best=low", r"best=low: give a number or none"),
        ("every:fast=1", r"fast=1: give true or false"),
        ("every:lrs=1/x", r"lrs=1/x: give a number, or several with / between them"),
        ("every:epochs=1/2.5", r"epochs=1/2.5: give a whole number, or several"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_sentence(text, sentence):
    with pytest.raises(ValueError, match=sentence):
        read(text)


def test_both_kinds_of_protocols_are_read_in_one_way():
    for part, text in ((evaluation, "linear-sgd"), (dense, "segmentation")):
        assert part.load(f"{text}:batch_size=8").batch_size == 8
        with pytest.raises(ValueError, match=r"batch_size=none: give a whole number"):
            part.load(f"{text}:batch_size=none")
        with pytest.raises(ValueError, match=r"no setting 'batchsize=8' \(did you mean batch_size\?\)"):
            part.load(f"{text}:batchsize=8")


def test_the_name_of_a_protocol_holds_its_numbers_as_they_are_asked_for():
    assert evaluation.load("linear-sgd:tclip=20").name == "linear-sgd-tclip-20"
    assert evaluation.load("semi:held_out=0.25").name == "semi-held-out-0.25"
