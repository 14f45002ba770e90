"""The package as a whole: which room may import which, what an import costs, what the wheel holds, what is pinned.

The wheel is built from a copy of the sources and imported outside the repository by an interpreter that sees no `.pth`
file, so that the editable installation of the development environment cannot stand in for a file that is missing.
"""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parents[1]
SITE_PACKAGES = sysconfig.get_path("purelib")
ROOMS = ("schemas", "operators", "pipelines", "training")
MAY_IMPORT = {
    "schemas": {"schemas"},
    "operators": {"operators", "schemas"},
    "pipelines": {"pipelines", "operators", "schemas"},
    "training": {"training", "schemas"},
}
LAZY_SEAMS = {("pipelines/cli.py", "training")}
"""A file and a room that it may import, but only inside functions."""

HEAVY = (
    {"PIL", "av", "cv2", "scenedetect", "simplejpeg", "skimage"}
    | {"duckdb", "faiss", "numba", "pandas", "polars", "scipy", "sklearn"}
    | {"open_clip", "py3langid", "safetensors", "torch", "torchvision", "vllm"}
    | {"aiohttp", "boto3", "botocore", "httpx", "ray", "s3fs"}
)
"""Modules that cost time or memory, or come with an extra: an operator imports them in `setup()`."""
OPTIONAL_IN_TRAINING = {"torch", "torchvision", "safetensors"}


# Imports ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Import:
    """One import: the dotted name, the line, and whether it waits for a function to be called."""

    name: str
    line: int
    is_lazy: bool


def sources(*folders: str) -> list[Path]:
    """The Python files below folders of the repository."""
    return sorted(path for folder in folders for path in (REPOSITORY / folder).rglob("*.py"))


def imports(node: ast.AST, is_lazy: bool = False) -> Iterator[Import]:
    """The imports below a node, those by constant name through `import_module` included."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, child.lineno, is_lazy) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            base = "." * child.level + (child.module or "")
            yield from (Import(f"{base}.{alias.name}", child.lineno, is_lazy) for alias in child.names)
        elif isinstance(child, ast.Call) and child.args and isinstance(child.args[0], ast.Constant):
            called = child.func.attr if isinstance(child.func, ast.Attribute) else getattr(child.func, "id", "")
            if called in ("import_module", "__import__"):
                yield Import(str(child.args[0].value), child.lineno, is_lazy)
        is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from imports(child, is_lazy or is_function)


def violations(path: str, code: str) -> list[str]:
    """What a file, given by its path within the repository, imports against the rules."""
    room = path.split("/")[0]
    found: list[str] = []
    for one in imports(ast.parse(code)):
        top, _, rest = one.name.partition(".")
        target = rest.split(".")[0]
        is_seam = one.is_lazy and (path, target) in LAZY_SEAMS
        is_ours_and_allowed = room not in MAY_IMPORT or target in MAY_IMPORT[room] or is_seam
        if top in (*ROOMS, "infra", "") or (top == "corpusmith" and not is_ours_and_allowed):
            found.append(f"{path}:{one.line}: {one.name}")
    return found


def test_rooms_import_only_what_they_may() -> None:
    files = sources(*ROOMS, "tests")
    assert {path.relative_to(REPOSITORY).parts[0] for path in files} == {*ROOMS, "tests"}
    found = [v for path in files for v in violations(path.relative_to(REPOSITORY).as_posix(), path.read_text())]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("path", "code", "is_wrong"),
    [
        ("schemas/a.py", "from corpusmith.schemas.errors import UserError", False),
        ("schemas/a.py", "from corpusmith.operators import contract", True),
        ("operators/a.py", "def f():\n from corpusmith.pipelines.run import run", True),
        ("operators/a.py", "import importlib\nimportlib.import_module('corpusmith.training.model')", True),
        ("training/a.py", "from corpusmith import operators", True),
        ("pipelines/a.py", "def f():\n import corpusmith.training.model", True),
        ("pipelines/cli.py", "import corpusmith.training.model", True),
        ("pipelines/cli.py", "def f():\n import corpusmith.training.model", False),
        ("pipelines/a.py", "from operators.contract import Operator", True),
        ("pipelines/a.py", "from . import run", True),
        ("tests/test_a.py", "import corpusmith.training.model", False),
        ("tests/test_a.py", "import infra", True),
    ],
)
def test_the_import_rules_find_what_they_should(path: str, code: str, is_wrong: bool) -> None:
    assert bool(violations(path, code)) == is_wrong


@pytest.mark.parametrize(
    ("code", "rule"),
    [
        ("import schemas.recipe\n\nschemas.recipe\n", "TID251"),
        ("from operators import contract\n\ncontract\n", "TID251"),
        ("import infra\n\ninfra\n", "TID251"),
        ("from .run import run\n\nrun()\n", "TID252"),
        ("try:\n    f()\nexcept Exception:\n    pass\n", "BLE001"),
        ("print(1)\n", "T201"),
    ],
)
def test_the_linter_refuses(code: str, rule: str) -> None:
    command = [sys.executable, "-m", "ruff", "check", "--output-format=concise", "--no-cache"]
    done = subprocess.run(
        [*command, "--stdin-filename=pipelines/a.py", "-"], input=code, text=True, cwd=REPOSITORY, capture_output=True
    )
    assert done.returncode == 1 and rule in done.stdout, done.stdout + done.stderr


# What an import costs -----------------------------------------------------------------------------------------------


def modules_after(code: str) -> set[str]:
    """The top-level modules that are loaded once `code` has run in a fresh interpreter."""
    tail = "\nimport sys\nsys.stderr.write('\\n' + ' '.join({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code + tail], text=True, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.splitlines()[-1].split())


def test_listing_the_operators_imports_nothing_heavy() -> None:
    loaded = modules_after("from corpusmith.operators.registry import operators\nassert len(operators()) > 1")
    assert "corpusmith" in loaded
    assert not loaded & HEAVY


def test_help_imports_nothing_heavy() -> None:
    call = "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert not end.code"
    loaded = modules_after(f"from corpusmith.pipelines.cli import main\n{call}")
    assert "typer" in loaded
    assert not loaded & HEAVY


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_a_ray_worker_imports_the_same_files() -> None:
    import ray

    from corpusmith.operators import registry

    @ray.remote
    def names_and_file() -> tuple[list[str], str]:
        from corpusmith.operators import registry

        return list(registry.operators()), registry.__file__

    names, file = ray.get(names_and_file.remote(), timeout=60)
    installed = [n for n, cls in registry.operators().items() if cls.__module__.startswith("corpusmith.")]
    assert (names, file) == (installed, registry.__file__)


# The wheel ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel, built from a copy of the sources, is installed."""
    folder = tmp_path_factory.mktemp("wheel")
    copy, site = folder / "copy", folder / "site"
    for room in ROOMS:
        shutil.copytree(REPOSITORY / room, copy / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, copy)
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(copy))
    (wheel,) = folder.glob("*.whl")
    pip("install", "--no-deps", "--no-index", "--no-compile", "--target", str(site), str(wheel))
    return site


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, text=True, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def run_isolated(site: Path, code: str, *, columns: int = 80) -> str:
    """What `code` prints in an interpreter that sees the standard library, `site` and the third-party packages.

    With -I and -S no `.pth` file is read and neither the environment nor the working directory adds to the path.
    """
    head = f"import sys\nsys.path[:] = [p for p in sys.path if p] + {[str(site), SITE_PACKAGES]!r}\n"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", head + code],
        cwd=site.parent,
        env={"COLUMNS": str(columns), "PATH": "/usr/bin:/bin", "HOME": str(site.parent)},
        text=True,
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


IMPORT_ALL = """
import importlib, json, pkgutil
import corpusmith
origins, missing = {}, {}
for module in pkgutil.walk_packages(corpusmith.__path__, "corpusmith."):
    if module.name.endswith(".__main__"):
        continue
    try:
        origins[module.name] = importlib.import_module(module.name).__file__
    except ModuleNotFoundError as error:
        missing[module.name] = error.name
print(json.dumps([list(corpusmith.__path__), origins, missing]))
"""


def test_the_wheel_holds_every_file_of_the_rooms(installed: Path) -> None:
    expected = {
        path.relative_to(REPOSITORY).as_posix()
        for room in ROOMS
        for path in (REPOSITORY / room).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".md"
    }
    held = {p.relative_to(installed / "corpusmith").as_posix() for p in (installed / "corpusmith").rglob("*.*")}
    assert {Path(name).suffix for name in expected} >= {".py", ".yaml", ".html", ".css"}
    assert held >= expected, f"not in the wheel: {sorted(expected - held)}"
    assert {name for name in held if name.endswith(".py")} <= expected
    assert {path.name for path in installed.iterdir() if path.suffix != ".dist-info"} == {"corpusmith", "bin"}


@pytest.mark.skipif(not (REPOSITORY / ".git").exists(), reason="not a git repository")
def test_git_ignores_no_source_file() -> None:
    command = ["git", "ls-files", "--others", "--ignored", "--exclude-standard", "--", *ROOMS, "tests", "infra", "docs"]
    done = subprocess.run(command, text=True, cwd=REPOSITORY, capture_output=True, check=True)
    assert not [name for name in done.stdout.splitlines() if "__pycache__" not in name]


def test_every_module_of_the_wheel_imports_outside_the_repository(installed: Path) -> None:
    search_path, origins, missing = json.loads(run_isolated(installed, IMPORT_ALL).splitlines()[-1])
    assert search_path == [str(installed / "corpusmith")]
    away = {name: file for name, file in origins.items() if file and not Path(file).is_relative_to(installed)}
    assert not away
    modules = {
        ".".join(("corpusmith", *path.relative_to(REPOSITORY).with_suffix("").parts)).removesuffix(".__init__")
        for path in sources(*ROOMS)
        if path.stem != "__main__"
    }
    optional = {
        name
        for name, lacks in missing.items()
        if name.startswith("corpusmith.training.") and lacks in OPTIONAL_IN_TRAINING
    }
    assert set(missing) == optional, missing
    assert set(origins) | optional >= modules, f"not found: {sorted(modules - set(origins))}"


def test_the_wheel_lists_its_recipes(installed: Path) -> None:
    listed = run_isolated(installed, "from corpusmith.pipelines.cli import main\nmain(['recipes'])", columns=1000)
    recipes = {path.stem for path in (REPOSITORY / "pipelines" / "recipes").glob("*.yaml")}
    assert recipes
    assert recipes <= {line.split()[0].rstrip(":") for line in listed.splitlines() if line.strip()}
    assert str(REPOSITORY) not in listed


def test_the_wheel_declares_its_command_and_extras(installed: Path) -> None:
    (folder,) = installed.glob("corpusmith-*.dist-info")
    distribution = metadata.Distribution.at(folder)
    assert {entry.value for entry in distribution.entry_points} == {"corpusmith.pipelines.cli:main"}
    extras = set(distribution.metadata.get_all("Provides-Extra") or ())
    assert extras == {"s3", "heic", "nsfw", "demo", "video", "faiss", "faiss-gpu", "models", "llm", "train", "dev"}
    declared = [Requirement(text) for text in distribution.requires or ()]
    for extra in extras:
        assert any(one.marker and one.marker.evaluate({"extra": extra}) for one in declared), extra


# Pins and cluster ---------------------------------------------------------------------------------------------------


def pins() -> dict[str, Requirement]:
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(one.name): one for one in found}


def needed_by_developers() -> set[str]:
    """Names of all packages that `corpusmith[dev]` brings, as far down as they are installed."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras: dict[str, list[str]] = project["optional-dependencies"]
    todo = [Requirement(text) for name in ("s3", "heic", "nsfw", "faiss", "demo", "dev") for text in extras[name]]
    todo += [Requirement(text) for text in project["dependencies"]]
    seen: set[tuple[str, str]] = set()
    while todo:
        requirement = todo.pop()
        for extra in ("", *requirement.extras):
            key = (canonicalize_name(requirement.name), extra)
            if key in seen or key[0] == "corpusmith":
                continue
            seen.add(key)
            todo += [one for one in below(key[0]) if not one.marker or one.marker.evaluate({"extra": extra})]
    return {name for name, _ in seen}


def below(name: str) -> list[Requirement]:
    try:
        return [Requirement(text) for text in metadata.requires(name) or ()]
    except metadata.PackageNotFoundError:
        return []


def test_everything_that_developers_install_is_pinned() -> None:
    pinned = pins()
    assert not needed_by_developers() - set(pinned)
    for one in pinned.values():
        (bound,) = one.specifier
        assert (bound.operator, one.url, one.extras, one.marker) == ("==", None, set(), None), one


def test_the_cluster_definition_is_one_that_ray_accepts() -> None:
    import jsonschema

    spec = find_spec("ray")
    assert spec is not None and spec.origin is not None
    schema = json.loads((Path(spec.origin).parent / "autoscaler" / "ray-schema.json").read_text())
    cluster: dict[str, Any] = yaml.safe_load((REPOSITORY / "infra" / "ray-cluster.yaml").read_text())
    jsonschema.validate(cluster, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**cluster, "head_setup_comands": []}, schema)
    assert cluster["provider"]["type"] == "local"
