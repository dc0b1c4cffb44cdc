"""The same package data is found from a wheel, an editable install, a zipapp and a bare checkout."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import pytest
import zip_package

from meshctl import __version__
from meshctl.data_files import FOLDERS

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

# Prints one line for each file of the four data folders: FOLDER/PATH SHA256.
LIST_DATA = """
import hashlib
from meshctl.data_files import FOLDERS, data_folder
def walk(folder, path):
    for entry in folder.iterdir():
        if entry.name in ("__init__.py", "__pycache__"):
            continue
        if entry.is_dir():
            walk(entry, f"{path}/{entry.name}")
        else:
            print(f"{path}/{entry.name}", hashlib.sha256(entry.read_bytes()).hexdigest())
for name in FOLDERS:
    walk(data_folder(name), name)
"""


def run(*words: str | Path, cwd: Path) -> str:
    done = subprocess.run([str(w) for w in words], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def packaged_files(root: Path) -> set[str]:
    """The data files of a checkout, by name."""
    return {
        path.relative_to(root).as_posix()
        for folder in FOLDERS
        for path in (root / folder).rglob("*")
        if path.is_file() and path.name != "__init__.py" and "__pycache__" not in path.parts
    }


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what Git would give to somebody who clones, so that building leaves this tree alone."""
    copy = tmp_path_factory.mktemp("checkout")
    listing = ("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, run("git", "-c", "safe.directory=*", *listing, cwd=ROOT).split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def distributions(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist; the wheel is built from the sdist, as PyPI's users would have it."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, checkout, cwd=out)
    return out


@pytest.fixture(scope="module")
def wheel(distributions: Path) -> Path:
    return next(distributions.glob("*.whl"))


@pytest.fixture
def new_python(tmp_path: Path) -> Callable[..., Path]:
    """Makes a virtual environment that sees this one's libraries, and installs into it; gives its Python.

    Registry and network are not needed: the dependencies are those of the environment that runs the tests.
    """

    def make(*arguments: str | Path) -> Path:
        run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv", cwd=tmp_path)
        site = next((tmp_path / "venv").glob("lib/python*/site-packages"))
        borrowed = [p for p in sys.path if p.endswith("-packages")]
        (site / "zz_borrowed.pth").write_text("".join(f"{p}\n" for p in borrowed), encoding="utf-8")
        python = tmp_path / "venv" / "bin" / "python"
        run(
            python, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index",
            "--ignore-installed", *arguments, cwd=tmp_path,
        )
        return python

    return make


@pytest.fixture(scope="module")
def expected(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The listing that a bare checkout gives; the other three must give the same."""
    listing = run(sys.executable, "-c", f"import sys; sys.path.insert(0, {str(checkout)!r}){LIST_DATA}", cwd=checkout)
    assert {line.split()[0] for line in listing.splitlines()} == packaged_files(checkout)
    return listing


def sorted_lines(text: str) -> list[str]:
    return sorted(text.splitlines())


def where(python: Path, cwd: Path) -> str:
    return run(python, "-c", "import meshctl; print(meshctl.__file__)", cwd=cwd).strip()


def test_a_wheel_finds_its_data(wheel: Path, new_python: Callable[..., Path], expected: str, tmp_path: Path) -> None:
    python = new_python(wheel)
    assert where(python, tmp_path).startswith(str(tmp_path))
    assert sorted_lines(run(python, "-c", LIST_DATA, cwd=tmp_path)) == sorted_lines(expected)
    assert run(python.parent / "meshctl", "--version", cwd=tmp_path) == f"meshctl {__version__}\n"


@pytest.mark.parametrize("mode", ["lenient", "compat"])
def test_an_editable_install_finds_its_data(
    mode: str, checkout: Path, new_python: Callable[..., Path], expected: str, tmp_path: Path
) -> None:
    python = new_python("--config-settings", f"editable_mode={mode}", "--editable", checkout)
    assert where(python, tmp_path).startswith(str(checkout))
    assert sorted_lines(run(python, "-c", LIST_DATA, cwd=tmp_path)) == sorted_lines(expected)


def test_a_zipapp_finds_its_data(expected: str, tmp_path: Path) -> None:
    app = tmp_path / "meshctl.pyz"
    zip_package.build(app)
    program = f"import sys; sys.path.insert(0, {str(app)!r}){LIST_DATA}"
    assert sorted_lines(run(sys.executable, "-c", program, cwd=tmp_path)) == sorted_lines(expected)
    assert run(sys.executable, app, "--version", cwd=tmp_path) == f"meshctl {__version__}\n"


def test_a_wheel_carries_the_data_and_neither_tests_nor_documents(wheel: Path, checkout: Path) -> None:
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {f"meshctl/data/{name}" for name in packaged_files(checkout)} <= names
    assert {name.partition("/")[0] for name in names} == {"meshctl", f"wg_meshctl-{__version__}.dist-info"}
    assert not [name for name in names if "tests" in Path(name).parts or "__pycache__" in name]
    assert {n.rpartition("/")[2] for n in names if "/licenses/" in n} == {"LICENSE", "NOTICE"}


def test_the_source_distribution_carries_what_the_wheel_needs(distributions: Path, checkout: Path) -> None:
    with tarfile.open(next(distributions.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert packaged_files(checkout) <= names
    assert {"LICENSE", "NOTICE", "README.md", "pyproject.toml"} <= names


def test_the_listed_packages_are_those_on_disk() -> None:
    on_disk = {path.parent.relative_to(ROOT).as_posix().replace("/", ".") for path in ROOT.glob("meshctl/**/*.py")}
    data = {f"meshctl.data.{folder}" for folder in FOLDERS}
    assert sorted(PROJECT["tool"]["setuptools"]["packages"]) == sorted(on_disk | data)


def test_every_package_has_an_init() -> None:
    folders = {path.parent for path in [*ROOT.glob("meshctl/**/*.py"), *(ROOT / name / "x" for name in FOLDERS)]}
    assert not [str(folder) for folder in folders if not (folder / "__init__.py").is_file()]


def test_data_that_is_not_python_in_a_code_package_is_declared() -> None:
    patterns = PROJECT["tool"]["setuptools"]["package-data"]
    stray = [
        path.relative_to(ROOT).as_posix()
        for path in ROOT.glob("meshctl/**/*")
        if path.is_file() and path.suffix not in (".py", ".pyc") and path.name != "py.typed"
        and not any(
            path.match(pattern)
            for pattern in patterns.get(path.parent.relative_to(ROOT).as_posix().replace("/", "."), [])
        )
    ]
    assert not stray


def test_the_distribution_is_wg_meshctl_and_the_command_is_meshctl() -> None:
    project = PROJECT["project"]
    assert project["name"] == "wg-meshctl"
    assert project["scripts"] == {"meshctl": "meshctl.cli:main"}
    assert project["license"] == "Apache-2.0"
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "meshctl.__version__"}
