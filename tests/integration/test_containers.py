"""ops/containers: the image, built step by step without Docker, and run as a container would be; the compose files."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.dockerfile import Image, build, instructions
from tests.harness import wait_until
from tests.postgresql import USER, Postgres, place, require, wait_for
from tests.programs import ROOT, program
from zim.errors import TopologyError
from zim.topology import load

HERE = ROOT / "ops" / "containers"
COMPOSE = sorted(HERE.glob("compose*.yaml"))
KEY = """
[[api_key]]
id = "app"
sha256 = "0ec31f4fb4c8ea9e8b8b4b7a3b4c4d1ac4d2d5e1a6a9a8d9a3f0b7bd1a2c3d4e"
scopes = ["push"]
"""
NAMESPACES = ["-m", "-p", "-u", "-i", "-n"]


def test_the_dockerfile_has_only_what_is_understood_here() -> None:
    found = dict(instructions((HERE / "Dockerfile").read_text()))
    assert found["USER"] == "10001:10001"
    assert found["STOPSIGNAL"] == "SIGTERM"
    with pytest.raises(ValueError, match="ONBUILD"):
        instructions("FROM debian:trixie\nONBUILD RUN true\n")


def test_all_that_is_copied_is_sent() -> None:
    sent = re.findall(r"^!(.+)$", (HERE / "Dockerfile.dockerignore").read_text(), re.MULTILINE)
    copied = [rest for word, rest in instructions((HERE / "Dockerfile").read_text()) if word == "COPY"]
    assert {name for rest in copied if "--from" not in rest for name in rest.split()[:-1]} == set(sent)


@pytest.mark.parametrize("file", COMPOSE, ids=lambda file: file.name)
def test_compose_files_are_as_the_specification_wants_them(file: Path, tmp_path: Path) -> None:
    check = [str(Path(sys.executable).with_name("check-jsonschema")), "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*check, str(file)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(file.read_text().replace("read_only: true", "readonly: true"))
    assert subprocess.run([*check, str(wrong)], capture_output=True, timeout=60).returncode == 1


def with_key(folder: str, to: Path) -> Path:
    """The topology of a folder, to which the page has added a key."""
    file = to / f"{folder}.toml"
    file.write_text((HERE / folder / "topology.toml").read_text() + KEY)
    return file


@pytest.mark.parametrize("name", ["etc", "etc-postgresql"])
def test_nobody_gets_in_before_the_page_has_been_followed(name: str) -> None:
    with pytest.raises(TopologyError, match="there is no \\[\\[api_key"):
        load(HERE / name / "topology.toml")


@pytest.mark.parametrize("file", COMPOSE, ids=lambda file: file.name)
def test_what_compose_files_name_is_there(file: Path, tmp_path: Path) -> None:
    """Files, networks, volumes, other services; and the hosts and ports of the topology that they mount."""
    said: dict[str, Any] = yaml.safe_load(file.read_text())
    for name, service in said["services"].items():
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert (HERE / source).exists() if source.startswith("./") else source in said["volumes"], volume
        assert set(service.get("networks", [])) <= set(said.get("networks") or {})
        assert set(service.get("depends_on", {})) <= set(said["services"])
        if "build" in service:
            assert (HERE / service["build"]["context"] / service["build"]["dockerfile"]).exists()
            (mounted,) = [
                HERE / v.partition(":")[0] for v in service["volumes"] if v.partition(":")[2][:8] == "/etc/zim"
            ]
            topology = load(with_key(mounted.name, tmp_path))
            command = service.get("command") or ["up"]
            host = command[-1] if "--host" in command else None
            nodes = [node for node in topology.nodes if (node.host or None) == host]
            assert all(f"//{name}:" in (node.advertise or f"//{name}:") for node in nodes)
            inside = {at.address for node in nodes for _, all_ in node.listeners.items() for at in all_}
            for port in service.get("ports", []):
                assert f"0.0.0.0:{port.rpartition(':')[2]}" in inside
            assert {at.address for at in topology.admin} == {"127.0.0.1:7070"}  # where the health check looks


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    program("debootstrap", "debootstrap")
    if not os.environ.get("ZIM_TEST_IMAGES"):
        pytest.skip("make images builds it, which takes minutes")
    if os.geteuid():
        assert not os.environ.get("CI"), "only root may call chroot"
        pytest.skip("only root may call chroot")
    folder = tmp_path_factory.mktemp("image")
    try:
        yield build(HERE / "Dockerfile", ROOT, folder)
    finally:
        subprocess.run(["rm", "-rf", "--one-file-system", str(folder)], check=False)


class Container:
    """What runs. pid: of its process 1, as it is seen from here."""

    def __init__(self, image: Image, pid: int, process: subprocess.Popen[bytes], log: Path) -> None:
        self.image, self.pid, self.process, self.log = image, pid, process, log

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """As `docker exec` would."""
        env = [f"{name}={value}" for name, value in self.image.environment.items()]
        enter = ["nsenter", "-t", str(self.pid), *NAMESPACES, "-r", "-w", "-S", "10001", "-G", "10001"]
        return subprocess.run(
            [*enter, "env", "-i", *env, *command], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
        )


@contextmanager
def running(image: Image, folder: Path) -> Iterator[Container]:
    """A container: the image's own command and user, without capabilities, on a root that cannot be written to."""
    uid, gid = image.said["USER"].split(":")
    etc, log = folder / "etc", folder / "log"
    etc.mkdir()
    text = (HERE / "etc" / "topology.toml").read_text()
    key = subprocess.run(
        [sys.executable, "-m", "zim", "api-key", "make", "app", "--scope", "push"], capture_output=True, text=True
    )
    (etc / "topology.toml").write_text(f"{text}\n{key.stderr}")
    (folder / "key").write_text(key.stdout)
    env = [f"{name}={value}" for name, value in image.environment.items()]
    inside = f"""
      mount --make-rprivate /
      mount --bind {image.folder} {image.folder}
      mount -t proc proc {image.folder}/proc
      mount --bind {etc} {image.folder}/etc/zim
      mkdir -p {image.folder}/run/secrets
      mount -t tmpfs tmpfs {image.folder}/run/secrets
      echo a-secret-that-is-long-enough-for-HS256-and-more > {image.folder}/run/secrets/jwt
      for device in null urandom; do touch {image.folder}/dev/$device; done
      for device in null urandom; do mount --bind /dev/$device {image.folder}/dev/$device; done
      mount --bind {image.folder}/var/lib/zim {image.folder}/var/lib/zim
      mount -o remount,ro,bind {image.folder}
      ip link set lo up
      exec chroot {image.folder} setpriv --reuid {uid} --regid {gid} --clear-groups \\
        --bounding-set=-all --no-new-privs \\
        env -i -C {image.workdir} {shlex.join(env)} {shlex.join(image.command)}
    """
    command = ["unshare", "-m", "-p", "-u", "-i", "-n", "-f", "sh", "-ec", inside]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    found: list[int] = []
    try:
        wait_until(lambda: "is up" in log.read_text() or process.poll() is not None, "it is up")
        assert process.poll() is None, log.read_text()
        found.append(int(children.read_text()))
        yield Container(image, found[0], process, log)
    except BaseException as e:
        e.add_note(f"the container said:\n{log.read_text()[-4000:]}")
        raise
    finally:
        for pid in found:
            if process.poll() is None:
                os.kill(pid, signal.SIGKILL)
        process.kill()
        process.wait()


@pytest.mark.timeout(900)
def test_the_image_has_what_it_takes_and_no_more(image: Image) -> None:
    assert not list(image.folder.glob("opt/zim/lib/python3*/site-packages/pip"))
    assert list(image.folder.glob("opt/zim/lib/python3*/site-packages/psycopg"))
    assert not (image.folder / "source").exists()
    assert not list(image.folder.glob("var/lib/apt/lists/*"))
    assert (image.folder / "var/lib/zim").stat().st_uid == 10001


@pytest.mark.timeout(900)
def test_a_container_serves_and_is_healthy_and_stops(image: Image, tmp_path: Path) -> None:
    with running(image, tmp_path) as container:
        status = Path(f"/proc/{container.pid}/status").read_text()
        assert re.search(r"NSpid:\s+\d+\s+1\n", status), "it is process 1"
        assert re.search(r"CapBnd:\s+0+\n", status)
        key = (tmp_path / "key").read_text().strip()
        done = container.run("env", f"ZIM_API_KEY={key}", "zim", "push", "user", "anna", "hello")
        assert done.returncode == 0, done.stderr
        check = json.loads(image.said["HEALTHCHECK"].partition(" CMD ")[2])
        assert container.run(*check).returncode == 0
        assert container.run("zim", "reload").returncode == 0
        assert "Read-only" in container.run("touch", "/opt/zim/x", "/tmp/x").stderr

        # What others leave behind is buried.
        container.run("sh", "-c", "sleep 0.3 & sleep 0.1")
        inside = ["nsenter", "-t", str(container.pid), "-p", "-m", "-r", "sh", "-c"]
        text = "for f in /proc/[0-9]*/status; do grep -q 'State:.Z' $f && cat $f; done; true"
        time.sleep(0.5)
        assert subprocess.run([*inside, text], capture_output=True, text=True).stdout == ""

        assert subprocess.run([*inside, "kill -TERM 1"], capture_output=True).returncode == 0
        assert container.process.wait(30) == 0
        assert "stopped" in container.log.read_text()
    again = tmp_path / "again"
    again.mkdir()
    with running(image, again) as container:
        assert container.run(*check).returncode == 0


@pytest.mark.timeout(300)
def test_postgresql_and_its_standby_are_made_by_these_scripts() -> None:
    programs = require()
    with tempfile.TemporaryDirectory(prefix="zim-pg-", dir="/tmp", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        if not os.geteuid():
            subprocess.run(["chown", USER, name], check=True)
        primary, second = Postgres(folder, "primary", programs), Postgres(folder, "second", programs)
        primary.make()
        environment = {
            "PATH": f"{programs}:/usr/bin:/bin",
            "PGPASSWORD": "it's secret",
            "POSTGRES_USER": USER,
            "NAME": "db_2",
            "PRIMARY": "127.0.0.1",
        }
        as_user: dict[str, Any] = {"user": USER, "group": USER} if not os.geteuid() else {}
        standby = None
        try:
            primary.start()
            here = {"PGHOST": "127.0.0.1", "PGPORT": str(primary.port), "PGDATA": str(primary.data)}
            script = ["sh", str(HERE / "postgresql" / "primary.sh")]
            subprocess.run(script, env=environment | here, check=True, timeout=60, cwd=folder, **as_user)
            primary.stop()
            primary.start()
            here = {"PRIMARY_PORT": str(primary.port), "PGDATA": str(second.data)}
            settings = {**second.settings, "port": f"{second.port}", "unix_socket_directories": name}
            options = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
            script = ["sh", str(HERE / "postgresql" / "standby.sh"), *options]
            standby = subprocess.Popen(script, env=environment | here, cwd=folder, **as_user)
            rows = "SELECT application_name, sync_state FROM pg_stat_replication WHERE state = 'streaming'"
            wait_for(lambda: ("db_2", "quorum") in primary.execute(rows), "the standby is one that commits wait for")
            made = with_key("etc-postgresql", folder)
            topology = load(made)
            assert topology.log is not None
            url = place(primary, database="zim").url.replace(f"//{USER}@", "//zim@")
            made.write_text(made.read_text().replace(topology.log.url, url))
            for wanted in (1, 0, 0):  # none; made; there
                command = "zim log status" if wanted else "zim log status || zim log init"
                env = {
                    **os.environ,
                    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                    "PGPASSWORD": "it's secret",
                }
                env["ZIM_TOPOLOGY"] = str(made)
                done = subprocess.run(["sh", "-c", command], env=env, capture_output=True, text=True, timeout=60)
                assert done.returncode == wanted, done.stdout + done.stderr
            assert "SINGLE" not in done.stdout + done.stderr
        finally:
            if standby is not None:
                standby.send_signal(signal.SIGQUIT)
                standby.wait(30)
            primary.stop()
