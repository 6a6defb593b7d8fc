import dataclasses
import re
from pathlib import Path

import pytest

from byol.cli.help import flag
from byol.cli.options import COMMANDS, Evaluate, Report, Train
from byol.cli.usage import Help, parse
from byol.config import Request

# The public options, on purpose written out: adding one is a decision, and removing one breaks somebody's script.
FLAGS = {
    "demo": "--json --out --seed",
    "doctor": "--json --limit data",
    "train": "--accumulate --batch-size --compile --device --devices --download --dry-run --encoder --epochs --image-size --init --json "
    "--limit --method --minutes --on-collapse --out --precision --pretrained --recipe --seed --set --track --workers data",
    "resume": "--devices --json run",
    "evaluate": "--batch-size --device --devices --draws --json --labels --limit --no-baselines --precision --protocol --seed --test "
    "--workers data encoder",
    "ablate": "--batch-size --device --encoder --epochs --image-size --jobs --json --limit --minutes --out --recipe --seed --seeds --set "
    "--test --values data name",
    "study": "--json --out --seeds name",
    "embed": "--batch-size --device --devices --hop --json --limit --out --precision data encoder",
    "export": "--data-licence --format --json --network --out --takes run",
    "push": "--data-licence --json --network --private repo run",
    "pull": "--json --out --revision repo",
    "report": "--json --out run",
    "list": "--json what",
}


def help_of(*words):
    with pytest.raises(Help) as caught:
        parse([*words, "--help"])
    return str(caught.value)


def complaint(*words):
    with pytest.raises(ValueError, match=r"\w") as caught:
        parse(list(words))
    return str(caught.value)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_public_flags_are_frozen(command):
    cls = COMMANDS[command]
    places = {"train": {"data"}, "ablate": {"name", "data"}, "study": {"name"}}.get(command, {"data", "run", "repo", "encoder", "what"})
    found = {f.name if f.name in places else flag(f) for f in dataclasses.fields(cls)}
    assert found == set(FLAGS[command].split())


def test_every_command_has_frozen_flags():
    assert set(COMMANDS) == set(FLAGS)


def test_every_field_of_a_request_is_an_option_of_train_with_the_same_default():
    options = {f.name: f.default for f in dataclasses.fields(Train)}
    assert {f.name: options[f.name] for f in dataclasses.fields(Request)} == {f.name: f.default for f in dataclasses.fields(Request)}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_every_option_in_80_columns(command):
    text = help_of(command)
    assert max(map(len, text.splitlines())) <= 80
    words = set(re.findall(r"--[a-z-]+", text))
    assert words >= {w for w in FLAGS[command].split() if w.startswith("--")}


def test_the_overview_names_every_command_in_80_columns():
    text = help_of()
    assert max(map(len, text.splitlines())) <= 80
    assert all(f"byol {command}" in text for command in COMMANDS)


def test_values_get_the_types_of_their_fields():
    got = parse(["train", "photos/", "--epochs", "9", "--minutes=2.5", "--batch_size", "64", "--pretrained", "--out", "runs/a b"])
    assert got == Train(data="photos/", epochs=9, minutes=2.5, batch_size=64, pretrained=True, out=Path("runs/a b"))


@pytest.mark.parametrize(
    "words",
    [
        ["--set", "lr=0.3", "tau_base=0.9", "photos/"],
        ["photos/", "--set", "lr=0.3", "--set", "tau_base=0.9"],
        ["--set=lr=0.3", "photos/", "--set", "tau_base=0.9"],
    ],
)
def test_set_takes_pairs_in_any_order_and_leaves_the_data_alone(words):
    assert parse(["train", *words]) == Train(data="photos/", set=("lr=0.3", "tau_base=0.9"))


def test_labels_and_protocols_end_where_the_encoder_begins():
    got = parse(["evaluate", "--labels", "0.01", "0.1", "runs/a", "--protocol", "knn", "linear", "photos/", "--no-baselines"])
    assert got == Evaluate(encoder="runs/a", data="photos/", labels=(0.01, 0.1), protocol=("knn", "linear"), baselines=False)


def test_values_of_an_ablation_may_be_words():
    asked = parse(["ablate", "augmentations", "photos", "--values", "baseline", "no colour", "crop only", "--seeds", "1"])
    assert asked.values == ("baseline", "no colour", "crop only")
    asked = parse(["ablate", "--values", "no colour", "crop only", "augmentations", "photos"])
    assert (asked.name, asked.data, asked.values) == ("augmentations", "photos", ("no colour", "crop only"))


def test_report_takes_several_runs():
    assert parse(["report", "a", "b", "--json"]) == Report(run=("a", "b"), json=True)


def test_words_after_two_dashes_are_places():
    assert parse(["train", "--", "--odd-folder"]) == Train(data="--odd-folder")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["train", "photos/", "--bach-size", "64"], "no option --bach-size; did you mean --batch-size?"),
        (["train", "photos/", "--qqq"], "no option --qqq; see byol train --help"),
        (["trian", "photos/"], "no command trian; did you mean byol train?"),
        (["train"], "train needs DATA; see byol train --help"),
        (["embed"], "embed needs ENCODER, DATA and --out FILE; see byol embed --help"),
        (["train", "a", "b"], "train cannot use 'b'; see byol train --help"),
        (["train", "a", "--epochs", "ten"], "--epochs ten: give a whole number"),
        (["train", "a", "--minutes", "nan"], "--minutes nan: give a number"),
        (["train", "a", "--epochs", "--seed", "1"], "--epochs needs a value: --epochs N"),
        (["train", "a", "--precision", "fp8"], "--precision fp8: give one of auto, fp32, bf16"),
        (["train", "a", "--device", "quantum"], "--device quantum: give one of auto, cpu, cuda, mps"),
        (["train", "a", "--pretrained=yes"], "--pretrained takes no value; write it alone"),
        (["list", "recipe"], "WHAT recipe: give one of methods, recipes, encoders, data, views, protocols, studies"),
        (["train", ""], "DATA is empty; give it a value"),
    ],
)
def test_a_mistake_is_one_sentence_with_the_way_out(words, sentence):
    assert complaint(*words) == sentence


def test_a_folder_without_a_command_is_probably_to_be_trained_on(tmp_path):
    assert complaint(str(tmp_path)) == f"no command {tmp_path}; did you mean byol train {tmp_path}?"
