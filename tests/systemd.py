"""systemd as process 1 of namespaces of its own, over a copy of this machine's files that is thrown away."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import sysconfig
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness import wait_until
from tests.programs import ROOT, program

UNITS = ROOT / "ops" / "systemd"
PLACES = ("/usr/lib/systemd/systemd", "/lib/systemd/systemd")

# What zim.service asks for. There are no others: nothing of this machine is started.
_TARGETS = ("sysinit", "basic", "shutdown", "network-online", "multi-user", "umount", "rescue", "emergency")

_BOOT = """
set -eu
folder={folder}
mount --make-rprivate /
mount -t tmpfs tmpfs $folder
mkdir $folder/upper $folder/work $folder/root
mount -t overlay overlay -o lowerdir=/,upperdir=$folder/upper,workdir=$folder/work $folder/root
cd $folder/root
mount -t proc proc proc
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
mount --rbind /dev dev
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mkdir -p opt/zim/bin opt/zim/source opt/zim/python opt/zim/packages run/units var/lib etc/zim/secrets old-root
mount --bind {source} opt/zim/source
mount --bind {python} opt/zim/python
mount --bind {packages} opt/zim/packages
cat > opt/zim/bin/zim <<'END'
#!/bin/sh
export LD_LIBRARY_PATH=/opt/zim/python/lib PYTHONPATH=/opt/zim/source:/opt/zim/packages
exec /opt/zim/python/bin/{name} -m zim "$@"
END
chmod 755 opt/zim/bin/zim
for target in {targets}; do printf '[Unit]\\nDefaultDependencies=no\\n' > run/units/$target.target; done
cp {units}/*.service run/units
ip link set lo up
pivot_root . old-root
umount -l old-root
mount --make-rshared /
exec env -i container=lxc PATH=/usr/sbin:/usr/bin:/sbin:/bin SYSTEMD_UNIT_PATH=/run/units \\
  {systemd} --system --unit=multi-user.target --log-target=console
"""


class Machine:
    """A machine with zim in /opt/zim, and zim's units.

    Attributes:
        pid: of its process 1, as it is seen from here.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def sh(self, text: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Runs a line there, as root."""
        clean = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin:/opt/zim/bin", "LANG=C.UTF-8", "SYSTEMD_PAGER="]
        enter = ["nsenter", "-t", str(self.pid), "-m", "-p", "-u", "-i", "-n", "-C"]
        command = [*enter, *clean, "sh", "-c", text]
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                out, err = process.communicate(timeout=timeout_s)
            except BaseException:
                process.kill()
                raise
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def ran(self, text: str) -> str:
        """Runs a line that must succeed; what it prints."""
        done = self.sh(text)
        assert done.returncode == 0, (text, done.stdout, done.stderr, self.sh("cat /run/*.log").stdout[-4000:])
        return done.stdout

    def write(self, path: str, text: str) -> None:
        """A file there."""
        self.ran(f"mkdir -p $(dirname {path}) && printf %s {shlex.quote(text)} > {path}")

    def shown(self, unit: str, *names: str) -> dict[str, str]:
        """Properties of a unit."""
        lines = self.ran(f"systemctl show {unit} {' '.join(f'-p {name}' for name in names)}").splitlines()
        return dict(line.split("=", 1) for line in lines)


def _cgroups() -> Path:
    """Where the second version of control groups is mounted."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    return next(Path(where) for _, where, kind, *_ in mounts if kind == "cgroup2")


@contextmanager
def machine(folder: Path) -> Iterator[Machine]:
    """One that runs. Without systemd or root the test is skipped, but not in CI."""
    program("systemd-analyze", "systemd")
    if not os.environ.get("ZIM_TEST_IMAGES"):
        pytest.skip("make images boots systemd")
    if os.geteuid():
        assert not os.environ.get("CI"), "only root may boot systemd"
        pytest.skip("only root may boot systemd")
    systemd = next(place for place in PLACES if Path(place).exists())
    group = _cgroups() / f"zim-test-{uuid.uuid4().hex[:8]}"
    group.mkdir()
    inner, log = folder / "machine", folder / "boot.log"
    inner.mkdir()
    base = Path(sys.executable).resolve()  # that of a virtual environment may be in a home, which zim may not see
    text = _BOOT.format(
        folder=inner,
        source=ROOT,
        python=base.parents[1],
        packages=sysconfig.get_path("purelib"),
        name=base.name,
        targets=" ".join(_TARGETS),
        units=UNITS,
        systemd=systemd,
    )
    script = f"echo $$ > {group}/cgroup.procs && exec unshare -n -C -m -p -f -u -i sh -c {shlex.quote(text)}"
    with log.open("wb") as out:
        process = subprocess.Popen(["sh", "-c", script], stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    first: list[int] = []

    def is_up() -> bool:
        assert process.poll() is None, log.read_text()
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        if not children or Path(f"/proc/{children[0]}/comm").read_text().strip() != "systemd":
            return False
        first[:] = [int(children[0])]
        return Machine(first[0]).sh("systemctl is-active multi-user.target").returncode == 0

    try:
        wait_until(is_up, "systemd is up")
        yield Machine(first[0])
    except BaseException as e:
        e.add_note(f"systemd said:\n{log.read_text()[-4000:]}")
        raise
    finally:
        for pid in first:
            os.kill(pid, signal.SIGKILL)  # with it go all that it has started
        process.kill()
        process.wait()
        wait_until(lambda: _is_gone(group), "its control groups are gone")


def _is_gone(group: Path) -> bool:
    for one in sorted(group.rglob("*/"), reverse=True) if group.exists() else []:
        try:
            one.rmdir()
        except OSError:
            return False
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
