"""The units of ops/systemd: what systemd says of them, and zim under a systemd that is booted for it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import wait_until
from tests.pages import Page
from tests.programs import program
from tests.systemd import UNITS, Machine, machine

ONE, OF_SEVERAL = UNITS / "zim.service", UNITS / "zim@.service"
LOG = "[Service]\nStandardOutput=append:/run/zim.log\nStandardError=append:/run/zim.log\n"
TOPOLOGY = "/etc/zim/topology.toml"


def settings(unit: Path) -> list[str]:
    return [line for line in unit.read_text().splitlines() if line and not line.startswith("#")]


def test_systemd_understands_the_units(tmp_path: Path) -> None:
    analyze = program("systemd-analyze", "systemd")
    for name, text in (("zim.service", ONE.read_text()), ("zim@machine-1.service", OF_SEVERAL.read_text())):
        here = str(Path(sys.executable).with_name("zim"))
        (tmp_path / name).write_text(text.replace("/opt/zim/bin/zim", here))
        done = subprocess.run(
            [analyze, "verify", "--man=no", str(tmp_path / name)], capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, re.findall(rf".*{re.escape(name)}.*", done.stderr)) == (0, []), done.stderr


def test_what_zim_could_do_to_the_machine_is_little() -> None:
    """The score of `systemd-analyze security`, from 0, nothing, to 10; the page says it."""
    analyze = program("systemd-analyze", "systemd")
    done = subprocess.run(
        [analyze, "security", "--offline=true", "--no-pager", str(ONE)], capture_output=True, text=True, timeout=60
    )
    (score,) = re.findall(r"exposure level for zim.service: ([\d.]+)", done.stdout)
    assert float(score) <= 1.5
    assert "1.3" in Page("systemd", 0).text


def test_both_units_are_the_same_but_for_the_machine() -> None:
    of_several = [line.replace(" --host %i", "").replace(": machine %i", "") for line in settings(OF_SEVERAL)]
    assert of_several == settings(ONE)


@pytest.fixture(scope="module")
def booted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """With a topology as `zim init --production` writes it, whose issuer's secret only root can read."""
    with machine(tmp_path_factory.mktemp("systemd")) as found:
        found.ran(f"zim init --production {TOPOLOGY}")
        found.write("/etc/zim/secrets/jwt", "a-secret-that-is-long-enough-for-HS256-and-more")
        found.ran("chmod 600 /etc/zim/secrets/jwt")
        text = found.ran(f"cat {TOPOLOGY}")
        text = re.sub(r"^#(\[\[issuer|issuer|audience|algorithms|secret_file)", r"\1", text, flags=re.MULTILINE)
        found.write(TOPOLOGY, text.replace('"secrets/jwt"', '"/run/zim/secrets/jwt"'))
        for unit in ("zim", "zim@"):
            found.write(f"/run/units/{unit}.service.d/test.conf", LOG)
        more = "[Service]\nLoadCredential=jwt:/etc/zim/secrets/jwt\nWatchdogSec=3\n"
        found.write("/run/units/zim.service.d/more.conf", more)
        found.ran("systemctl daemon-reload")
        yield found


@pytest.fixture
def up(booted: Machine) -> Iterator[Machine]:
    booted.ran("systemctl start zim")
    yield booted
    booted.ran("systemctl stop zim")


def test_it_is_started_when_it_serves(up: Machine) -> None:
    shown = up.shown("zim", "ActiveState", "StatusText")
    assert shown == {"ActiveState": "active", "StatusText": "all nodes are ready"}
    up.ran(f"zim token make anna --topology {TOPOLOGY} > /tmp/anna")
    up.ran("zim push user anna hello --id one")
    assert up.ran("zim listen --token-file /tmp/anna --count 1 --timeout 20") == "hello\n"


def test_a_reload_is_done_when_it_says_so(up: Machine) -> None:
    before = up.shown("zim", "MainPID")
    up.ran(f"sed -i 's/^per_s.*//; s/^pushes_per_key.*/pushes_per_key = {{ per_s = 7, burst = 7 }}/' {TOPOLOGY}")
    up.ran("systemctl reload zim")
    assert "limits.pushes_per_key" in up.ran("tail -n 30 /run/zim.log")
    up.ran(f"echo wrong >> {TOPOLOGY}")
    assert up.sh("systemctl reload zim").returncode != 0
    up.ran(f"sed -i '$d' {TOPOLOGY}")
    assert up.shown("zim", "ActiveState") == {"ActiveState": "active"}
    up.ran("kill -HUP $(systemctl show zim -p MainPID --value)")
    wait_until(lambda: "by=SIGHUP" in up.ran("cat /run/zim.log"), "it has reloaded")
    wait_until(lambda: up.shown("zim", "ActiveState", "MainPID") == {"ActiveState": "active", **before}, "it goes on")


def test_a_node_that_dies_is_zims_own_affair(up: Machine) -> None:
    before = up.shown("zim", "MainPID", "NRestarts")
    up.ran("kill -KILL $(pgrep -f 'zim node comet-[1]')")
    wait_until(lambda: "node ready again node=comet-1" in up.ran("cat /run/zim.log"), "the comet is back")
    assert up.shown("zim", "MainPID", "NRestarts") == before


def test_what_hangs_is_restarted_by_its_watchdog(up: Machine) -> None:
    before, heard = up.shown("zim", "MainPID")["MainPID"], up.shown("zim", "WatchdogTimestampMonotonic")
    wait_until(lambda: up.shown("zim", "WatchdogTimestampMonotonic") != heard, "it says that its loop runs")
    up.ran(f"kill -STOP {before}")

    def is_another() -> bool:
        shown = up.shown("zim", "MainPID", "ActiveState")
        return shown["ActiveState"] == "active" and shown["MainPID"] not in (before, "0")

    wait_until(is_another, "it has been restarted")


def test_it_stops_in_order(booted: Machine) -> None:
    booted.ran("systemctl start zim")
    booted.ran("systemctl stop zim")
    assert booted.shown("zim", "ActiveState", "Result") == {"ActiveState": "inactive", "Result": "success"}
    assert "killed" not in booted.ran("tail -n 3 /run/zim.log")
    assert booted.sh("pgrep -f 'zim nod[e]'").stdout == ""


def test_one_machine_of_several(booted: Machine) -> None:
    booted.ran("rm -rf /var/lib/zim /var/lib/private/zim")
    booted.ran(f"rm {TOPOLOGY} && zim init --machines 2 {TOPOLOGY}")
    booted.ran(f'sed -i \'s/machine-\\([12]\\):/127.0.0.\\1:/; s/"var"/"\\/var\\/lib\\/zim"/\' {TOPOLOGY}')
    booted.ran("systemctl start zim@machine-1")
    assert "control-machine-1.sock" in booted.ran("ls /var/lib/zim/")
    booted.ran("systemctl reload zim@machine-1")
    booted.ran("systemctl stop zim@machine-1")
    assert booted.shown("zim@machine-1", "Result") == {"Result": "success"}


def test_a_user_that_stays_and_a_low_port(booted: Machine) -> None:
    """As the page has both: zim reads files of its user, and listens on 443."""
    page = Page("systemd", 0)
    (block,) = [block for block in page.blocks("sh", "Secrets") if "useradd" in block]
    booted.ran(f"rm -rf {TOPOLOGY} /var/lib/zim /var/lib/private/zim && zim init --production {TOPOLOGY}")
    booted.ran("systemctl start zim")
    booted.ran(block)
    before = booted.shown("zim", "MainPID")["MainPID"]
    assert booted.ran(f"stat -c %u /proc/{before}") == booted.ran("id -u zim")
    (right,) = page.blocks("ini", "What it may do")
    booted.write("/run/units/zim.service.d/port.conf", right)
    booted.ran("install -m 600 -o zim -g zim /etc/zim/secrets/jwt /etc/zim/tls/jwt")
    text = booted.ran(f"cat {TOPOLOGY}").replace("127.0.0.1:8090", "127.0.0.1:443")
    text = re.sub(r"^#(\[\[issuer|issuer|audience|algorithms|secret_file)", r"\1", text, flags=re.MULTILINE)
    booted.write(TOPOLOGY, text.replace('"secrets/jwt"', '"/etc/zim/tls/jwt"'))
    booted.ran("sysctl -w net.ipv4.ip_unprivileged_port_start=1024 && systemctl daemon-reload && systemctl restart zim")
    booted.ran(f"zim token make anna --topology {TOPOLOGY} > /tmp/anna")
    booted.ran("zim push user anna hello --id two")
    listen = "zim listen --token-file /tmp/anna --address ws://127.0.0.1:443 --count 1 --timeout 20"
    assert booted.ran(listen).splitlines()[-1] == '"hello"'
    booted.ran("systemctl stop zim && rm /run/units/zim.service.d/port.conf && systemctl daemon-reload")
