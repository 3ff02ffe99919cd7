"""What is done to this project, each in an environment of its own: `nox -l` lists it.

Without arguments: the tests on every Python that is here, lint and types.
"""

from __future__ import annotations

import os
import tempfile
import zipfile
from pathlib import Path

import nox

PYPROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PYPROJECT)
"""The versions that the classifiers name."""

nox.needs_version = ">=2025.5"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.error_on_missing_interpreters = False
nox.options.error_on_external_run = True
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["tests", "lint", "types"]


def _find_pythons_of_pyenv() -> None:
    """Put the Pythons of pyenv on the path, instead of its shims.

    A shim is there for each version that is installed, and fails unless that version is active.
    """
    root = os.environ.get("PYENV_ROOT")
    if root is None:
        return
    shims = Path(root, "shims")
    installed = sorted(
        found.parent
        for version in PYTHONS
        for found in Path(root, "versions").glob(f"{version}.*/bin/python{version}")
    )
    rest = [each for each in os.environ["PATH"].split(os.pathsep) if Path(each) != shims]
    os.environ["PATH"] = os.pathsep.join([*map(str, reversed(installed)), *rest])


_find_pythons_of_pyenv()


def _install(session: nox.Session, *groups: str) -> None:
    """Install the package as it is here, and groups of what it is developed with."""
    session.install("-e", ".", *nox.project.dependency_groups(PYPROJECT, *groups))


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests; arguments go to pytest."""
    _install(session, "test")
    session.run("python", "-X", "dev", "-m", "pytest", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format."""
    session.install(*nox.project.dependency_groups(PYPROJECT, "lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("python", "-m", "replicate_async._tools.generate_sync", "--check")


@nox.session
def generate(session: nox.Session) -> None:
    """Write the sync facade anew; with `-- --check`, only compare."""
    session.install(*nox.project.dependency_groups(PYPROJECT, "lint"))
    session.run("python", "-m", "replicate_async._tools.generate_sync", *session.posargs)


@nox.session
def types(session: nox.Session) -> None:
    """Check the types with mypy and pyright."""
    _install(session, "types")
    session.install("nox")  # this file is checked, too
    session.run("mypy")
    session.run("pyright")
    session.run("pyright", "--verifytypes", "replicate_async", "--ignoreexternal")


@nox.session
def libraries(session: nox.Session) -> None:
    """Run libraries that import `replicate` with `replicate_async.v1`."""
    _install(session, "test", "libraries")
    session.env["REPLICATE_ASYNC_LIBRARIES"] = "1"
    session.run("python", "-m", "pytest", "tests/v1/test_libraries.py", *session.posargs)


@nox.session
def recipes(session: nox.Session) -> None:
    """Run the recipes for Ray, Dask, Celery, datasets, Gradio and Streamlit with these tools."""
    _install(session, "test", "recipes")
    session.env["REPLICATE_ASYNC_RECIPES"] = "1"
    session.run("python", "-m", "pytest", "tests/examples/test_recipes.py", *session.posargs)


@nox.session
def readme(session: nox.Session) -> None:
    """Run what the README shows, and test what it says of the official client."""
    _install(session, "test")
    paths = ("tests/test_readme.py", "tests/test_comparison.py")
    session.run("python", "-X", "dev", "-m", "pytest", *paths, *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into docs/_build/html, and check its links and its search."""
    _install(session, "docs")
    output = "docs/_build/html"
    session.run("python", "-m", "sphinx", "-n", "-W", "--keep-going", "-q", "docs", output)
    session.run("python", "docs/_ext/links.py", output)
    session.run("python", "docs/_ext/search.py", output)


@nox.session
def screenshots(session: nox.Session) -> None:
    """Take the screenshots of the documentation again, all or those that are named; then look at them."""
    _install(session, "screenshots")
    session.run("python", "docs/screenshots/take.py", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Run the tests, and tell which lines and branches they miss."""
    _install(session, "test")
    session.install("coverage>=7.10")
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", *session.posargs)
    session.run("coverage", "combine")
    session.run("coverage", "report", "--show-missing", "--skip-covered")


@nox.session
def bench(session: nox.Session) -> None:
    """Compare the speed with hand-written aiohttp and the official client."""
    _install(session, "test")
    session.run("python", "benchmarks/compare.py", *session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    """Run the demo."""
    session.install("-e", ".")
    session.run("python", "-m", "replicate_async", "demo", *session.posargs)


@nox.session
def long(session: nox.Session) -> None:
    """Run the tests that the others shorten: storms of faults, fan-outs that are killed, and their memory."""
    _install(session, "test")
    session.env["REPLICATE_ASYNC_LONG_TESTS"] = "1"
    session.env["REPLICATE_STORM_RUNS"] = "3000"
    tests = ("test_storm.py", "test_map_killed.py", "test_map_memory.py")
    paths = [f"tests/contract/{name}" for name in tests]
    session.run("python", "-m", "pytest", "-s", *paths, *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Feed a million hostile inputs to all that reads what strangers send; `-- 50000` is another number."""
    _install(session, "test")
    inputs, *rest = session.posargs or ["1000000"]
    session.env["REPLICATE_FUZZ_INPUTS"] = inputs
    options = ["-n", "auto", "--hypothesis-profile", "new"]
    session.run("python", "-m", "pytest", *options, "tests/fuzz", *rest)


@nox.session
def soak(session: nox.Session) -> None:
    """Run mixed load for ten minutes, and see that nothing grows; `-- --minutes 60` takes an hour."""
    session.install("-e", ".")
    session.run("python", "benchmarks/soak.py", *session.posargs)


@nox.session
def security(session: nox.Session) -> None:
    """Look for dangerous code with bandit, and for known defects of dependencies with pip-audit."""
    _install(session, "security")
    session.run("bandit", "-q", "-c", "pyproject.toml", "-r", "replicate_async")
    session.run("bash", ".ci/audit", external=True)


@nox.session
def build(session: nox.Session) -> None:
    """Build the wheel, look into it, and run the demo from it."""
    session.install("build")
    with tempfile.TemporaryDirectory() as place:
        session.run("python", "-m", "build", "--outdir", place)
        [wheel] = Path(place).glob("*.whl")
        names = zipfile.ZipFile(wheel).namelist()
        if "replicate_async/py.typed" not in names:
            session.error("the wheel has no py.typed")
        if strays := [
            name
            for name in names
            if not name.startswith(("replicate_async/", "replicate_async-")) or "/_tools/" in name
        ]:
            session.error(f"the wheel has what is not for users: {strays}")
        session.install("--force-reinstall", "--no-deps", str(wheel))
        session.install(str(wheel))
        session.chdir(place)  # where the package is not beside us
        session.run("python", "-m", "replicate_async", "demo")
