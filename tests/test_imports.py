"""Imports run downward: read from the source of every module, also those inside functions and under TYPE_CHECKING."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

#: The rooms, one rank each: a module imports its own room and the ones before it. README.md prints them in this order.
ROOMS = (
    "phenomena",
    "files",
    "threads",
    "schema",
    "arrays",
    "flags",
    "grid",
    "assets",
    "video",
    "routing",
    "runs",
    "branch",
    "catalogue",
    "backbones",
    "memory",
    "generation",
    "worlds",
    "data",
    "annotation",
    "training",
    "tiny",
    "evaluation",
    "ui",
    "cli",
    "__main__",
    "app",
)
RANK = {name: rank for rank, name in enumerate(ROOMS)}


def sources() -> dict[str, Path]:
    """Every module of the package by its dotted name, and app.py."""
    modules = {"app": ROOT / "app.py"} if (ROOT / "app.py").exists() else {}
    for path in sorted((ROOT / "prophy").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


SOURCES = sources()


def imported_names(tree: ast.AST) -> set[str]:
    """Dotted names that a piece of code imports; ``from a import b`` gives ``a.b``."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"a relative import in line {node.lineno}: name the module in full"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imports_of(module: str) -> set[str]:
    return imported_names(ast.parse(SOURCES[module].read_text()))


def modules_imported_by(module: str) -> set[str]:
    """ProPhy's own modules among the imports of one: the longest name that is a module."""
    found = set()
    for name in imports_of(module):
        while name and name not in SOURCES:
            name = name.rpartition(".")[0]
        if name and name != "prophy":
            found.add(name)
    return found - {module}


def part(module: str) -> str:
    """The first name below ``prophy``, as in :data:`ROOMS`."""
    return module.split(".")[1] if module.startswith("prophy.") else module


def test_the_walk_sees_the_package():
    assert {"prophy.grid", "prophy.branch.attach", "prophy.worlds"} <= SOURCES.keys()
    assert "prophy.branch.refinement" in modules_imported_by("prophy.branch.model")
    assert "prophy.generation.pipelines" in modules_imported_by("prophy.cli"), "imports inside functions are missed"
    assert "torch" in imports_of("prophy.routing.trace"), "imports under TYPE_CHECKING are missed"


@pytest.mark.parametrize("module", SOURCES)
def test_imports_run_downward(module: str):
    if module == "prophy":
        return  # its public names are found on first use: a test below
    assert part(module) in RANK, f"place {part(module)!r} in ROOMS"
    above = {other for other in modules_imported_by(module) if RANK[part(other)] > RANK[part(module)]}
    assert not above, f"{module} imports {', '.join(sorted(above))}, which the design puts above it"


def test_no_module_imports_itself_by_a_detour():
    graph = {module: modules_imported_by(module) for module in SOURCES if module != "prophy"}
    done: set[str] = set()

    def walk(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"imports in a circle: {' -> '.join((*path, module))}"
        if module not in done:
            for other in sorted(graph[module]):
                walk(other, (*path, module))
            done.add(module)

    for module in graph:
        walk(module, ())


def test_the_branch_knows_no_backbone_no_text_model_and_no_screen():
    allowed = {"branch", "files", "grid", "phenomena", "routing", "schema"}
    for module in SOURCES:
        if part(module) == "branch":
            assert {part(other) for other in modules_imported_by(module)} <= allowed, module
            outside = {name.split(".")[0] for name in imports_of(module)}
            assert not outside & {"transformers", "gradio", "cv2", "accelerate", "tokenizers"}, module


#: What the families of a room share; every other module of these two rooms is a family's.
SHARED = {
    "prophy.backbones": {
        "attention",
        "autoencoder",
        "backbone",
        "lora",
        "lora_scale",
        "opening",
        "pipeline",
        "variants",
    },
    "prophy.catalogue": {"check", "describe", "experts", "families", "limits", "lora", "published"},
}


def family_files(room: str) -> set[str]:
    modules = {module for module in SOURCES if module.startswith(f"{room}.")}
    return modules - {f"{room}.{name}" for name in SHARED[room]}


def test_a_family_is_one_file_in_the_catalogue_and_one_in_backbones():
    first, second = ({module.rpartition(".")[2] for module in family_files(room)} for room in SHARED)
    assert first == second
    assert {"wan", "cogvideox"} <= first


def test_a_family_file_imports_no_other_family():
    for room in SHARED:
        for module in family_files(room):
            assert modules_imported_by(module) & family_files(room) == set(), module


#: a class of one family's, of the libraries' or of ours
FAMILY_CLASS = re.compile(r"\b(?:ProPhy)?(?:Wan|CogVideoX)[A-Z]\w+|\bAutoencoderKL(?:Wan|CogVideoX)\b")

#: The embedded model is a Wan: the room that builds it must say so. The package itself has both pipelines as names.
BUILT_AS_ONE_FAMILY = {"tiny"}
LENT = {"ProPhyCogVideoXPipeline", "ProPhyWanPipeline"}


def family_classes_in(tree: ast.AST) -> set[str]:
    """Names of classes of a single family that a piece of code imports, uses or writes, in docstrings too."""
    said: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            said.add(node.id)
        elif isinstance(node, ast.Attribute):
            said.add(node.attr)
        elif isinstance(node, ast.alias):
            said |= {node.name, node.asname or ""}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            said.add(node.value)
    return {match.group() for text in said for match in FAMILY_CLASS.finditer(text)}


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("from diffusers import WanTransformer3DModel", {"WanTransformer3DModel"}),
        ("def f(p: ProPhyCogVideoXPipeline): ...", {"ProPhyCogVideoXPipeline"}),
        ("diffusers.AutoencoderKLWan.from_pretrained(x)", {"AutoencoderKLWan"}),
        ("kind == 'CogVideoXTransformer3DModel'", {"CogVideoXTransformer3DModel"}),
        ("'Wan-AI/Wan2.1-T2V-1.3B-Diffusers', WAN, 'Wan transformers', Wanted", set()),
    ],
)
def test_the_names_of_family_classes_are_seen(code: str, found: set[str]):
    assert family_classes_in(ast.parse(code)) == found


def test_only_a_familys_own_files_name_its_classes():
    own = {module for room in SHARED for module in family_files(room)}
    for module in SOURCES.keys() - own:
        if part(module) not in BUILT_AS_ONE_FAMILY:
            named = family_classes_in(ast.parse(SOURCES[module].read_text()))
            assert named - (LENT if module == "prophy" else set()) == set(), f"{module}: ask prophy.backbones instead"


def test_gradio_stays_in_the_app():
    users = {module for module in SOURCES if any(name.split(".")[0] == "gradio" for name in imports_of(module))}
    assert {part(module) for module in users} <= {"ui", "app"}


NO_TORCH = (
    "video",
    "routing.trace",
    "routing.attention",
    "routing.targets",
    "routing.steering",
    "routing.schedule",
    "routing.distance",
    "runs.store",
    "runs.overlay",
    "runs.sheets",
    "runs.export",
    "catalogue.published",
    "catalogue.describe",
    "catalogue.limits",
    "catalogue.families",
    "catalogue.wan",
    "memory.profiles",
    "worlds",
    "data.jobs",
    "training.log",
    "training.about",
    "training.run_folder",
    "evaluation.results",
    "evaluation.report.html",
    "evaluation.report.readme",
    "cli",
)


@pytest.mark.parametrize("module", NO_TORCH)
def test_pictures_runs_and_traces_need_no_torch(module: str):
    code = f"import sys, prophy.{module}; print({{'torch', 'diffusers', 'transformers'}} & {{*sys.modules}} or 'none')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "none", f"importing prophy.{module} imports {done.stdout.strip()}"


def test_nothing_imports_torchvision():
    paths = [*SOURCES.values(), *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    for path in paths:
        names = {name.split(".")[0] for name in imported_names(ast.parse(path.read_text()))}
        assert "torchvision" not in names, path
    for path in ROOT.glob("requirements*.txt"):
        assert "torchvision" not in path.read_text(), path


def test_no_module_is_a_drawer_for_odds_and_ends():
    names = {name.strip("_").lower() for module in SOURCES for name in module.split(".")}
    assert not names & {"utils", "util", "helpers", "helper", "common", "misc", "manager"}


def test_no_package_is_named_after_a_diffusers_pipeline():
    """A saved pipeline of ``prophy.wan`` would be looked up in diffusers and fail to load."""
    import diffusers.pipelines

    theirs = {path.name for path in Path(diffusers.pipelines.__file__).parent.iterdir() if path.is_dir()}
    assert {"wan", "cogvideo"} <= theirs
    assert not {part(module) for module in SOURCES} & theirs


def test_the_readme_prints_the_rooms_in_the_order_of_their_ranks():
    readme = (ROOT / "README.md").read_text()
    tree = readme.split("## The tree", 1)[1].split("```")[1]
    package = tree.split("prophy/\n", 1)[1]
    printed = [line.split()[0] for line in package.splitlines() if line.startswith("  ")]
    assert [name.removesuffix("/").removesuffix(".py") for name in printed] == [name for name in ROOMS if name != "app"]
    for name in printed:
        path = ROOT / "prophy" / name
        assert path.is_dir() if name.endswith("/") else path.is_file(), name
    beside = {line.split()[0] for line in tree.splitlines() if line and not line.startswith(" ")}
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    folders = {name.split("/")[0] + "/" for name in tracked if "/" in name and not name.startswith(".")}
    if folders:  # none in an unpacked archive
        assert beside == folders | {"app.py"}
