import ast
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parent.parent / "src" / "byol"
LEVEL = {
    **dict.fromkeys(("rng", "files", "stored", "stopping", "allocator", "dist", "sync_norm", "replicas", "published", "asked"), 0),
    **dict.fromkeys(("config", "losses", "views", "encoders", "data", "optim", "geometry"), 1),
    "logmel": 0,
    "methods": 2,
    **dict.fromkeys(("training", "feeds", "checkpoint", "health", "evaluation", "dense", "registration", "longitudinal", "over_time"), 3),
    **dict.fromkeys(
        (
            "run",
            "trackers",
            "contact_sheet",
            "modalities",
            "recipes",
            "reporting",
            "exporting",
            "embeddings",
            "subjects",
            "families",
            "start",
            "others",
            "foreign",
            "card",
            "hub",
        ),
        4,
    ),
    **dict.fromkeys(("api", "ablation", "studies", "demonstration", "cli", "hear", "sklearn", "__init__", "__main__"), 5),
}
FILES = sorted(SRC.rglob("*.py"))


def part_of(path: Path) -> str:
    return path.relative_to(SRC).parts[0].removesuffix(".py")


def imports(path: Path) -> list[str]:
    """The modules of the package that a file imports, at its top or inside functions: `a.b` for byol.a.b."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "byol":
            found += [f"byol.{a.name}" for a in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
    return [name.removeprefix("byol.") for name in found if name.startswith("byol.") and name != "byol.__version__"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SRC)))
def test_no_file_imports_a_higher_layer(path):
    part = part_of(path)
    family = part.split("_")[0]  # reporting_page belongs to reporting
    level = LEVEL.get(part, LEVEL.get(family))
    assert level is not None, f"{part} has no layer; give it one in LEVEL"
    for name in imports(path):
        other = name.split(".")[0]
        if other in (part, "__version__"):
            continue
        other_level = LEVEL.get(other, LEVEL.get(other.split("_")[0]))
        assert other_level <= level, f"{path.name} (layer {level}) imports byol.{name} (layer {other_level})"
        if level == other_level == 1:
            assert name == other, f"{path.name} reaches inside byol.{other}: import byol.{other} itself"


def test_methods_know_nothing_of_training_data_or_views():
    for path in (SRC / "methods").glob("*.py"):
        known = set(imports(path)) - {"views.alter"}  # what changes an image, for a method that makes more of its views
        assert not {name.split(".")[0] for name in known} & {"training", "data", "views", "feeds", "run"}


def test_training_and_evaluation_know_no_concrete_method():
    for path in [SRC / "training.py", *(SRC / "evaluation").glob("*.py")]:
        assert not [name for name in imports(path) if name.startswith("methods.")]


def test_import_byol_imports_no_torch():
    code = "import sys, byol; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
