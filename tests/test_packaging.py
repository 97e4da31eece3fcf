"""What the wheels are made from: rules that need no build to be checked.

The wheels themselves are tried by `make wheel-test` and measured by `make wheel-check`.
"""

from __future__ import annotations

import importlib.resources
import os
import re
import shlex
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from scripts.wheels import behind, build, check, lint, places
from scripts.wheels.common import Bundled, bundled, pins, suites

ROOT = Path(__file__).resolve().parent.parent


def faults_of(library: Bundled) -> list[str]:
    """Complaints about one entry of bundled.toml."""
    faults = []
    if behind.upstream(library.source) != library.version:
        faults.append("source is not a package of version")
    if library.version in library.refused:
        faults.append("a refused version is pinned")
    for ending in (".dsc", ".orig.tar.gz", ".debian.tar.xz"):
        if sum(name.endswith(ending) for name in library.sha256) != 1:
            faults.append(f"not one {ending}")
    for name, digest in library.sha256.items():
        if library.version not in name or not re.fullmatch("[0-9a-f]{64}", digest):
            faults.append(f"{name}: not of this version, or no SHA-256")
    return faults


def test_every_pin_is_whole() -> None:
    assert {library.name for library in bundled()} == {"openssl", "curl", "cjson"}
    assert {library.name: faults_of(library) for library in bundled()} == {
        name: [] for name in pins() if name != "debian"
    }
    assert suites()


def test_a_pin_that_is_not_whole_is_found() -> None:
    good = next(library for library in bundled() if library.name == "curl")
    fields = vars(good)
    assert faults_of(Bundled(**{**fields, "version": "8.21.0"}))
    assert faults_of(Bundled(**{**fields, "refused": {good.version: "it is bad"}}))
    assert faults_of(Bundled(**{**fields, "sha256": {}}))
    broken = dict.fromkeys(good.sha256, "0" * 63)
    assert faults_of(Bundled(**{**fields, "sha256": broken}))


@pytest.mark.parametrize(
    ("package", "version", "release"),
    [
        ("3.5.7-1~deb13u2", "3.5.7", True),
        ("8.23.0~rc3-1", "8.23.0~rc3", False),
        ("1:1.7.19+dfsg-2", "1.7.19", True),
    ],
)
def test_a_package_names_its_release(package: str, version: str, release: bool) -> None:
    assert behind.upstream(package) == version
    assert behind.is_release(package) is release


def test_what_is_behind_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def as_text(one: str, other: str) -> bool:  # dpkg is not everywhere
        return one > other

    monkeypatch.setattr(behind, "is_newer", as_text)

    def said(library: Bundled, *versions: str, is_there: bool = True) -> str:
        listed = [library.source, *versions]
        return behind.verdict(library, listed, lambda version: is_there)

    curl = next(library for library in bundled() if library.name == "curl")
    assert "up to date" in said(curl, "8.20.0-1", "8.9.9~rc1-1")
    assert said(curl, "8.99.0-1").endswith("BEHIND: 8.99.0-1 is out")
    lacking = said(curl, "8.99.0-1", is_there=False)
    assert "BEHIND: 8.99.0-1 is out, but the server does not have" in lacking
    openssl = next(library for library in bundled() if library.name == "openssl")
    assert "up to date" in said(openssl, "4.0.3-1")
    refused = Bundled(**{**vars(curl), "refused": {"8.99.0": "spins"}})
    assert "8.99.0 is refused: it spins" in said(refused, "8.99.0-1")


def test_what_is_no_code_is_packed_too() -> None:
    """Files beside the modules; in a wheel's copy of the package as in this folder."""
    files = importlib.resources.files("espresso")
    for name in ("py.typed", "_core.pyi", "sandbox/openapi.yaml"):
        assert files.joinpath(name).is_file()
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert "openapi.yaml" in listed["package-data"]["espresso.sandbox"]
    assert listed["py-modules"] == ["_espresso_pytest_plugin"]


def test_every_tool_is_pinned() -> None:
    text = (ROOT / "scripts/wheels/requirements.txt").read_text()
    wanted = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert wanted
    assert [line for line in wanted if not re.fullmatch(r"[\w-]+==[\w.]+", line)] == []


def test_workflows_pin_their_actions() -> None:
    if not (ROOT / ".github").exists():
        pytest.skip("not a checkout")
    assert lint.workflows()
    for path in lint.workflows():
        assert lint.unpinned(path.read_text()) == []
    assert lint.unpinned("  - uses: actions/checkout@v7\n") == ["actions/checkout@v7"]


def test_every_wheel_is_audited() -> None:
    """Those of `make wheel` as they are built, those of other machines by the job."""
    workflow = ROOT / ".github/workflows/release.yml"
    if not workflow.exists():
        pytest.skip("not a checkout")
    jobs = re.split(r"^  (?=[a-z]+:$)", workflow.read_text(), flags=re.MULTILINE)
    (platforms,) = (job for job in jobs if job.startswith("platforms:"))
    assert re.search(r"cibuildwheel --output-dir dist\b", platforms)
    assert "abi3audit --strict dist/*-abi3-*.whl" in platforms
    assert platforms.index("abi3audit") < platforms.index("upload-artifact")


def test_every_place_of_roots_is_tried() -> None:
    """What trust.c looks at, and what `make wheel-test` moves a store to."""
    text = (ROOT / "src/core/trust.c").read_text()
    lists = re.findall(r"system_(directories|files)\[\] = \{(.*?)\};", text, re.DOTALL)
    known = {name: set(re.findall(r'"(.+?)"', body)) for name, body in lists}
    assert known["directories"] == set(places.HASHED.values())
    assert known["files"] == set(places.BUNDLES.values())


def test_contributing_names_every_part() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for target, parts in (("wheel-test", places.PARTS), ("wheel-check", check.PARTS)):
        named = re.findall(rf"^\| `make {target} PARTS=(\w+)` \|", text, re.MULTILINE)
        assert named == list(parts)


def test_an_archive_does_not_tell_who_made_it(tmp_path: Path) -> None:
    made = []
    for turn in (1, 2):
        source = tmp_path / f"source{turn}"
        source.write_text("text")
        os.utime(source, (turn * 1e9, turn * 1e9))
        archive = tmp_path / f"raw{turn}.tar.gz"
        with tarfile.open(archive, "w:gz") as tar:
            info = tar.gettarinfo(source, "tree/file")
            info.uid, info.uname = turn, f"user{turn}"
            with source.open("rb") as file:
                tar.addfile(info, file)
        build.normalise(archive, tmp_path / f"done{turn}.tar.gz")
        made.append((tmp_path / f"done{turn}.tar.gz").read_bytes())
    assert made[0] == made[1]
    with tarfile.open(tmp_path / "done1.tar.gz") as tar:
        assert tar.getnames() == ["tree/file"]


def test_the_suite_runs_on_what_is_installed_alone(tmp_path: Path) -> None:
    """A module of the repository beside the tests would hide that of the wheel."""
    wheel = tmp_path / "espresso.whl"
    files = ("espresso/__init__.py", "_espresso_pytest_plugin.py", "e.dist-info/RECORD")
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in files:
            archive.writestr(name, "")
        archive.extractall(installed)
    assert check.brought(wheel) == {"espresso", "_espresso_pytest_plugin.py"}
    in_repository()
    tree = tmp_path / "tree"
    check.link_installed(tree, installed, check.brought(wheel))
    assert (tree / "tests/test_packaging.py").is_file()
    modules = {path.name for path in ROOT.glob("*.py")} - {"setup.py"}
    for name in {"espresso", *modules}:
        assert (tree / name).resolve() == installed / name


def test_the_suite_on_a_wheel_is_that_of_make_test(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same runs of pytest, so that none of its tests is left out."""
    monkeypatch.delenv("TESTS", raising=False)
    text = (ROOT / "Makefile").read_text().replace("\\\n", "")
    body = re.search(r"^test: .*\n((?:\t.*\n)+)", text, re.MULTILINE)
    assert body is not None
    named = check.GUARD_TESTS
    guard = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob(named))
    wanted = []
    for line in re.findall(r"@\$\(PYTEST\) (.*)", body[1]):
        words = [guard if word == named else [word] for word in shlex.split(line)]
        wanted.append([word for some in words for word in some])
    assert len(wanted) == 3
    assert check.pytest_runs() == wanted


def in_repository() -> set[str]:
    """What the repository keeps, or will; skips the test where there is none."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    return set(build.tracked())


def test_what_is_installed_is_all_there_is(tmp_path: Path) -> None:
    """Packages and data are lists in pyproject.toml, and a build in place does not
    look at them: what is forgotten there is missing in wheels alone."""
    command = [sys.executable, "setup.py", "--quiet", "build_py"]
    subprocess.run([*command, "--build-lib", str(tmp_path)], cwd=ROOT, check=True)
    built = {
        path.relative_to(tmp_path).as_posix()
        for path in tmp_path.rglob("*")
        if path.is_file()
    }
    kept = {name for name in in_repository() if name.startswith("espresso/")}
    assert built == kept | {"_espresso_pytest_plugin.py"}


def test_the_sdist_is_whole(tmp_path: Path) -> None:
    """A build from it needs what no package has: sources, headers, scripts."""
    wanted = {name for name in in_repository() if name.startswith(("src/", "scripts/"))}
    with tarfile.open(build.build_sdist(tmp_path)) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert wanted - held == set()
    assert {"setup.py", "pyproject.toml", "README.md", "LICENSE"} <= held


@pytest.mark.parametrize(
    ("variable", "named"),
    [("PKG_CONFIG", "pkg-config"), ("CC", "a C compiler")],
)
def test_a_build_says_what_is_missing(
    variable: str, named: str, tmp_path: Path
) -> None:
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--force"]
    command += ["--build-lib", str(tmp_path), "--build-temp", str(tmp_path)]
    env = {**os.environ, variable: "/nowhere/program"}
    env.pop("ESPRESSO_STATIC", None)
    done = subprocess.run(command, cwd=ROOT, env=env, text=True, capture_output=True)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(f"espresso cannot be built, missing here: {named}. ")
    assert "apt-get install" in line


def test_a_static_build_says_what_is_missing(tmp_path: Path) -> None:
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--force"]
    (tmp_path / "licenses").mkdir()
    env = {**os.environ, "ESPRESSO_STATIC": str(tmp_path)}
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        (tree / name).write_bytes((ROOT / name).read_bytes())
    (tree / "espresso/sandbox/replies").mkdir(parents=True)
    done = subprocess.run(command, cwd=tree, env=env, text=True, capture_output=True)
    assert done.returncode == 1
    assert f"missing here: {tmp_path}/lib/libcurl.a" in done.stderr
