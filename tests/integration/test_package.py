"""The wheel and the sdist: all that belongs in them, and a fabric from the wheel alone, far from the checkout."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import free_ports, wait_until
from tests.programs import ROOT, started
from zim import __version__

IGNORED = {".git", ".venv", ".ci", ".github", "var", "build", "dist"}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both. The wheel is made from the sdist, which thereby has what it needs."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def zim(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command, installed from the wheel into an environment that has its dependencies and no checkout."""
    folder = tmp_path_factory.mktemp("env")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")  # not what its own .pth files add
    (wheel,) = packages.glob("*.whl")
    install = [sys.executable, "-m", "pip", "--python", str(folder), "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*install, "--ignore-installed", str(wheel)], check=True)
    return folder / "bin" / "zim"


def run(command: list[str], cwd: Path, exit_code: int = 0) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "ZIM_TOPOLOGY")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=cwd, env=environment)
    assert done.returncode == exit_code, done.stdout + done.stderr
    return done.stdout


def test_the_sdist_has_all_that_is_kept(packages: Path) -> None:
    (sdist,) = packages.glob("*.tar.gz")
    with tarfile.open(sdist) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    kept = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=ROOT)
    if kept.returncode:
        pytest.skip("this is no checkout")
    missing = [name for name in kept.stdout.splitlines() if name not in names]
    assert [name for name in missing if name.partition("/")[0] not in IGNORED] == [".gitignore"]


def test_the_wheel_has_zim_and_its_pages_and_nothing_else(packages: Path) -> None:
    (wheel,) = packages.glob("*.whl")
    assert wheel.name == f"zim-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as opened:
        names = set(opened.namelist())
    here = {str(path.relative_to(ROOT)) for path in (ROOT / "zim").rglob("*") if path.suffix in (".py", ".typed")}
    pages = f"zim-{__version__}.data/data/share/doc/zim/"
    brought = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]
    brought += [*(ROOT / "examples").glob("*.*"), *(ROOT / "ops/systemd").iterdir()]
    here |= {pages + str(path.relative_to(ROOT)) for path in brought}
    assert {name for name in names if ".dist-info/" not in name} == here
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def test_a_first_release_is_in_the_changelog() -> None:
    assert f"\n## [{__version__}] - 20" in (ROOT / "CHANGELOG.md").read_text()


def test_messages_name_pages_that_are_there(zim: Path, tmp_path: Path) -> None:
    (where,) = re.findall(r"examples/ are in (\S+)\.\n", run([str(zim), "--help"], tmp_path))
    assert (Path(where) / "examples/two-of-each.toml").is_file()
    run([str(zim), "init", "--production"], tmp_path)
    told = run([str(zim), "check", "--production"], tmp_path, exit_code=1)
    assert where in told
    for page in re.findall(r"docs/[\w/-]+\.md", told):
        assert (Path(where) / page).is_file(), page


@pytest.fixture
def up(zim: Path, tmp_path: Path) -> Iterator[Path]:
    """A folder where `zim init` was called, and a fabric of its file runs."""
    assert run([str(zim), "--version"], tmp_path).split()[-1] == __version__
    assert str(ROOT) not in run([str(zim.parent / "python"), "-c", "import zim; print(zim.__file__)"], tmp_path)
    run([str(zim), "init"], tmp_path)
    file = tmp_path / "topology.toml"
    ports = free_ports(20)
    text = file.read_text()
    for number, port in zip(("7172", "7176", "7170", "7270", "7470", "8080", "8090", "8092"), ports, strict=False):
        text = text.replace(f":{number}", f":{port}")
    file.write_text(text)
    run([str(zim), "check"], tmp_path)
    with started([str(zim), "up"], tmp_path) as (process, out, err):
        wait_until(lambda: "is up" in out.read_text() + err.read_text(), "it is up")
        yield tmp_path
        process.send_signal(signal.SIGINT)
        process.wait(30)
        assert process.returncode in (0, 130), err.read_text()


def test_from_the_wheel_to_a_push(zim: Path, up: Path) -> None:
    assert "offline" in run([str(zim), "push", "user", "7", '{"n":1}', "--wait", "2"], up)
    listener = [str(zim), "listen", "--uid", "7", "--ack", "--verbose"]
    with started(listener, up) as (process, out, _):
        wait_until(lambda: '{"n":1}' in out.read_text(), "what was pushed before is there")
        assert "comet-1" in run([str(zim), "who", "user", "7"], up)
        assert "1 session" in run([str(zim), "push", "user", "7", "now", "--wait", "5"], up)
        wait_until(lambda: "now" in out.read_text(), "what is pushed now is there")
        process.send_signal(signal.SIGINT)
        process.wait(20)
