"""The shape of the project: import names, public faces, what a committed file may not say."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("traces", "profiler", "simulator", "dashboard")

# Written in pieces, so that this file passes its own test.
REGISTRY_HOSTS = re.compile(
    "|".join(["pypi" r"\.org", "files" r"\.pythonhosted", "download" r"\.pytorch", "index[-]url"])
)
MACHINE_PATHS = re.compile(r"(?<![\w.~/}-])/(?:" "work" "|" "root" "|home/" r"\w+|Users/" r"\w+)/")

needs_git = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")


def committed_files() -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listing.split("\0") if name and (ROOT / name).is_file()]


@pytest.mark.parametrize("room", [*ROOMS, "bebop"])
def test_import_names_belong_to_this_project_wherever_python_starts(room: str, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(
        [sys.executable, "-c", f"import {room}; print({room}.__file__)"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, f"{result.stderr}\nrun `make setup` to install the project"
    expected = ROOT / ("bebop.py" if room == "bebop" else f"{room}/__init__.py")
    assert Path(result.stdout.strip()).resolve() == expected.resolve()


def test_tests_are_a_package() -> None:
    assert (ROOT / "tests" / "__init__.py").exists()


def test_nothing_in_the_dashboard_is_named_like_a_package() -> None:
    names = {path.stem for path in (ROOT / "dashboard").rglob("*.py") if path.name != "__init__.py"}
    names |= {path.name for path in (ROOT / "dashboard").rglob("*") if path.is_dir()}
    # Streamlit puts the folder of its script on the path, where such a file would hide the package.
    assert not names & {*ROOMS, "bebop", "tests"}


@pytest.mark.parametrize(
    "path",
    sorted(path for room in ROOMS for path in (ROOT / room).rglob("__init__.py")),
    ids=lambda path: path.parent.name,
)
def test_a_public_face_imports_names_and_lists_them(path: Path) -> None:
    tree = ast.parse(path.read_text())
    imported: list[str] = []
    listed: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            imported += [alias.asname or alias.name for alias in node.names]
        elif isinstance(node, ast.Assign):
            assert [target.id for target in node.targets if isinstance(target, ast.Name)] == ["__all__"]
            listed = ast.literal_eval(node.value)
        else:
            assert isinstance(node, ast.Expr), f"{path}: {ast.unparse(node)} does not belong in a public face"
            assert isinstance(node.value, ast.Constant), f"{path}: {ast.unparse(node)} does not belong in a public face"
    assert sorted(imported) == sorted(listed)
    assert len(set(listed)) == len(listed)


@needs_git
def test_no_committed_file_names_a_registry_or_a_machine() -> None:
    found = []
    for path in committed_files():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), start=1):
            if REGISTRY_HOSTS.search(line) or MACHINE_PATHS.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert found == []


def test_what_make_installs_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line) for line in lines)
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in lines}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [
        *project["dependencies"],
        *extras["dashboard"],
        *extras["dev"],
        *extras["ray"],
        *extras["torch"],
        *extras["aiconfigurator"],
        *extras["llamacpp"],
    ]
    assert {re.split(r"[^A-Za-z0-9._-]", line)[0].lower() for line in wanted} <= pinned
