"""What `zim up` tells of its nodes."""

from __future__ import annotations

import http.client
import signal

from tests.harness import free_ports, running, wait_until


def test_deaths_are_counted_and_who_is_there_is_told() -> None:
    at = f"127.0.0.1:{free_ports(1)[0]}"

    def metrics() -> dict[str, float]:
        connection = http.client.HTTPConnection(at, timeout=10)
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
        connection.close()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}

    with running(fabric={"admin": at}) as fabric:
        found = metrics()
        assert {found[f'zim_up_node_ready{{node="{name}"}}'] for name in fabric.names} == {1}
        assert {found[f'zim_up_node_deaths_total{{node="{name}"}}'] for name in fabric.names} == {0}
        fabric.kill("job-1", signal.SIGKILL)
        wait_until(lambda: metrics()['zim_up_node_deaths_total{node="job-1"}'] == 1, "its death is counted")
        wait_until(lambda: metrics()['zim_up_node_ready{node="job-1"}'] == 1, "it is back")
        assert metrics()['zim_up_node_deaths_total{node="comet-1"}'] == 0
