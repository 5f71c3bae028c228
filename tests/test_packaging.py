"""What is installed and what is stored: extras, public names, packages, and the size of the repository."""

import ast
import importlib
import re
import shutil
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from setuptools import find_packages

import prophy

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

#: What an installation without extras does not have.
EXTRAS_ONLY = ("gradio", "gradio_client", "plotly", "pymunk")

#: Runs first in a Python that shall be like one without extras.
WITHOUT_EXTRAS = f"""
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {EXTRAS_ONLY}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
"""


def run_without_extras(code: str) -> subprocess.CompletedProcess[str]:
    program = WITHOUT_EXTRAS + textwrap.dedent(code)
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)


# --- requirements -----------------------------------------------------------------------------------------------------


def requirements_of(extra: str) -> dict[str, Requirement]:
    """Of pyproject.toml, by name, with the extras that an extra names."""
    found = {}
    for line in PYPROJECT["optional-dependencies"][extra]:
        requirement = Requirement(line)
        if requirement.name == "prophy":
            for other in requirement.extras:
                found |= requirements_of(other)
        else:
            found[requirement.name] = requirement
    return found


def requirements_txt() -> dict[str, Requirement]:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {requirement.name: requirement for requirement in requirements}


def test_requirements_txt_lists_what_pyproject_does_with_every_extra():
    everything = {r.name: r for r in map(Requirement, PYPROJECT["dependencies"])} | requirements_of("all")
    listed = requirements_txt()
    assert listed.keys() == everything.keys()
    for name in listed.keys() - {"torch"}:
        assert listed[name] == everything[name], name


def test_the_torch_that_was_tested_lies_in_the_range_that_is_allowed():
    (pin,) = requirements_txt()["torch"].specifier
    assert pin.operator == "=="
    allowed = next(r for r in map(Requirement, PYPROJECT["dependencies"]) if r.name == "torch")
    assert pin.version in allowed.specifier
    assert "2.10.0" in allowed.specifier, "the branch is to be installed beside somebody's own torch"


def test_all_names_every_other_extra():
    (everything,) = PYPROJECT["optional-dependencies"]["all"]
    assert Requirement(everything).extras == PYPROJECT["optional-dependencies"].keys() - {"all"}


def test_the_classifiers_say_which_pythons_the_public_workflow_runs():
    listed = {line.split(" :: ")[-1] for line in PYPROJECT["classifiers"] if "Python :: 3." in line}
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    (line,) = (line for line in workflow.splitlines() if "python: [" in line)
    assert listed == set(ast.literal_eval(line.split(":", 1)[1].strip()))


def test_pre_commit_checks_style_as_the_tests_requirements_do():
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    rev = re.search(r"ruff-pre-commit\n\s+rev: v([\d.]+)", hooks)[1]
    lines = (ROOT / "requirements-dev.txt").read_text().splitlines()
    (ruff,) = (Requirement(line) for line in lines if line.startswith("ruff"))
    assert rev in ruff.specifier


def test_the_citation_names_this_version_and_the_paper_that_the_readme_cites():
    cited = (ROOT / "CITATION.cff").read_text()
    said = dict(re.findall(r"^(\w+): (\S+)$", cited, re.MULTILINE))
    assert said["version"] == prophy.__version__
    assert said["license"] == PYPROJECT["license"]
    bibtex = (ROOT / "README.md").read_text().split("```bibtex", 1)[1]
    assert f'"{re.search(r"title *= {(.+)}", bibtex)[1]}"' in cited
    assert re.search(r"arXiv:([\d.]+)", bibtex)[1] in cited


def test_the_table_of_names_leads_from_modules_that_went_to_modules_that_are_there():
    table = (ROOT / "CHANGELOG.md").read_text().split("### Old and new names", 1)[1].split("\n## ", 1)[0]
    rows = [line.split("|")[1:3] for line in table.splitlines() if line.startswith("| `")]
    assert len(rows) > 80
    for before, now in rows:
        (old,), new = (re.findall(r"`(prophy[\w.]+)`", cell) for cell in (before, now))
        assert new, old
        assert old not in new, f"{old} has kept its name"
        for name in new:
            path = ROOT.joinpath(*name.split("."))
            assert path.is_dir() or path.with_suffix(".py").is_file(), f"{old}: there is no {name}"


# --- without extras ---------------------------------------------------------------------------------------------------


@pytest.mark.shipped
def test_opening_generating_and_saving_need_no_extra(tmp_path: Path):
    done = run_without_extras(f"""
        import prophy
        for name in prophy.__all__:
            getattr(prophy, name)
        pipeline = prophy.load(profile="all")
        made = prophy.generate(pipeline, prophy.GenerationSettings("a red ball bounces on the floor", steps=2))
        run = prophy.read_run(made.save({str(tmp_path)!r}).path)
        assert run.trace().num_kept == 2 and len(run.clip().frames) == 17
        print("saved", run.id)
    """)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("saved")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("app", "app needs gradio: pip install 'prophy[app]'"),
        ("annotate", "annotate needs pymunk: pip install 'prophy[annotate]'"),
        ("worlds preview", "worlds needs pymunk: pip install 'prophy[worlds]'"),
        ("publish runs/none --out runs/published", "publish needs plotly: pip install 'prophy[train]'"),
    ],
)
def test_a_command_whose_extra_is_missing_names_it_in_one_line(command: str, message: str):
    done = run_without_extras(f"from prophy.cli import main\nsys.exit(main({command.split()}))")
    assert done.returncode == 2, done.stderr
    assert done.stderr == f"prophy: {message}\n"


# --- public names -----------------------------------------------------------------------------------------------------


def test_every_public_name_is_there_and_type_checkers_see_where_it_is_from():
    tree = ast.parse((ROOT / "prophy" / "__init__.py").read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    assert {*seen, "__version__"} == set(prophy.__all__)
    assert list(prophy.__all__) == sorted(prophy.__all__)
    for name, module in seen.items():
        assert getattr(prophy, name) is getattr(importlib.import_module(module), name), name
    assert set(prophy.__all__) <= set(dir(prophy))


def test_the_reference_begins_with_every_public_name():
    page = (ROOT / "docs" / "api" / "index.rst").read_text()
    listed = re.findall(r":\w+:`~[\w.]+\.(\w+)`", page)
    assert sorted(listed) == [name for name in prophy.__all__ if name != "__version__"]


def test_a_name_that_is_not_public_is_an_ordinary_attribute_error():
    with pytest.raises(AttributeError, match="module 'prophy' has no attribute 'laod'"):
        prophy.laod  # noqa: B018


# --- what is installed ------------------------------------------------------------------------------------------------


def tracked_files() -> list[Path]:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a clone")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def test_every_folder_of_modules_is_a_package_that_git_keeps_and_a_wheel_holds():
    files = set(tracked_files())
    folders = {path.parent for path in (ROOT / "prophy").rglob("*.py")}
    assert {folder for folder in folders if folder / "__init__.py" not in files} == set()
    packaged = find_packages(str(ROOT), include=["prophy", "prophy.*"])
    assert {".".join(folder.relative_to(ROOT).parts) for folder in folders} == set(packaged)
    assert ROOT / "prophy" / "py.typed" in files


# --- what is stored ---------------------------------------------------------------------------------------------------


def kibibytes(files: list[Path]) -> int:
    """As ``du -k`` counts, in blocks of 4 KiB."""
    return sum(4 * -(-path.stat().st_size // 4096) for path in files)


def test_the_repository_stays_light():
    files = tracked_files()
    assert kibibytes(files) < 56_000, "CONTRIBUTING.md says what may be committed"
    assert kibibytes([path for path in files if path.is_relative_to(ROOT / "assets")]) < 50 * 1024


def test_pictures_of_the_documents_are_small():
    large = [path.name for path in (ROOT / "docs").glob("*.[pj][np]g") if path.stat().st_size > 256 * 1024]
    assert not large, "save them in 256 colours, see CONTRIBUTING.md"
