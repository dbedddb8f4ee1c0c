"""What stands before the listeners of a process, as the topology has it: certificates, which are read anew when their
files change, and proxies."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

import gevent

from zim.errors import BadCertificate
from zim.metrics import Metric, counter, gauge
from zim.net.handshakes import Handshakes
from zim.net.proxy import proxies
from zim.net.threads import in_thread

if TYPE_CHECKING:
    from zim.net.certificates import Certificates

log = logging.getLogger(__name__)

_LOOPBACK = ("127.0.0.0/8", "::1/128")
LOOK_S = 5.0  # how often files are looked at
SOON_S = 14 * 86_400.0  # before its end a certificate is warned of
WARN_S = 6 * 3_600.0  # how often


class HasFiles(Protocol):
    """One certificate, as the topology has it."""

    @property
    def certificate(self) -> str:
        """Its file, relative to the topology's."""

    @property
    def key(self) -> str:
        """The file of its key."""


class Listening(Protocol):
    """A listener, as the topology has it."""

    @property
    def address(self) -> str:
        """Where it is."""

    @property
    def tls(self) -> Sequence[HasFiles]:
        """Its certificates; none for no TLS."""

    @property
    def proxies(self) -> Sequence[str]:
        """Networks of those who may speak for others."""

    @property
    def proxy_protocol(self) -> bool:
        """Each of its connections begins with their header."""

    @property
    def client_header(self) -> str:
        """In which they say over HTTP for whom they speak."""


Listeners = Mapping[str, Sequence[Listening]]
"""By the key of the topology, `ws`, in its order."""

Read: TypeAlias = "Mapping[tuple[str, int], Certificates | None]"
"""The certificates of each listener: by the key of the topology and its place under that."""


def read_certificates(beside: Path, listeners: Listeners) -> Read:
    """Reads all that they are to show. Blocks for the disk.

    Raises:
        BadCertificate: one cannot be used.
    """
    return {(kind, i): _load(beside, kind, at) for kind, several in listeners.items() for i, at in enumerate(several)}


def _load(beside: Path, kind: str, at: Listening) -> Certificates | None:
    if not at.tls:
        return None
    from zim.net.certificates import CertificateFiles, load_certificates  # brings cryptography

    found = [(beside / one.certificate, beside / one.key) for one in at.tls]
    return load_certificates([CertificateFiles(*pair, f"{kind} {at.address}: tls") for pair in found])


class Entrances:
    """Of one process.

    Attributes:
        handshakes: of each listener, by the key of the topology, in its order.

    Raises:
        BadCertificate: a certificate cannot be used.
    """

    def __init__(self, beside: Path, listeners: Listeners, timeout_s: float) -> None:
        """
        Args:
            beside: the folder of the topology's file.
            timeout_s: for the handshakes of one connection.
        """
        self._beside = beside
        self.handshakes = {kind: [Handshakes(timeout_s) for _ in several] for kind, several in listeners.items()}
        self._warned_at = 0.0
        self.follow(listeners, read_certificates(beside, listeners), timeout_s)

    def follow(self, listeners: Listeners, read: Read, timeout_s: float) -> None:
        """From now on these are shown, these proxies believed, and handshakes have so much time. Does not switch."""
        self._listeners = listeners
        self._read = dict(read)
        for kind, i, handshakes in self._each():
            at, certificates = listeners[kind][i], read[kind, i]
            handshakes.context = certificates.context if certificates is not None else None
            handshakes.introduces, handshakes.timeout_s = at.proxy_protocol, timeout_s
            networks = at.proxies or (_LOOPBACK if at.proxy_protocol else ())
            handshakes.proxies = proxies(networks, at.client_header)

    def watch(self) -> None:
        """Reads anew what has changed. What cannot be used is told, and those before it stay. Runs for ever."""
        while True:
            gevent.sleep(LOOK_S)
            for kind, i, handshakes in self._each():
                before = self._read[kind, i]
                if before is None or not in_thread(before.is_outdated):
                    continue
                at = self._listeners[kind][i]
                try:
                    after = in_thread(_load, self._beside, kind, at)
                except BadCertificate as e:
                    log.error("certificate not read anew", extra={"problem": str(e)})
                    continue
                except Exception:  # no file may end a node that runs
                    log.exception("certificate not read anew")
                    continue
                if self._read[kind, i] is before and after is not None:  # else a reload was faster
                    self._read[kind, i], handshakes.context = after, after.context
                    log.info("certificate read anew", extra={"listener": at.address})
            self._warn()

    def _warn(self) -> None:
        if time.monotonic() - self._warned_at < WARN_S and self._warned_at:
            return
        self._warned_at = time.monotonic()
        for file, expires in self._expiries().items():
            left_s = expires - time.time()
            if left_s < SOON_S:
                what = "certificate expires soon" if left_s > 0 else "certificate has expired"
                log.warning(what, extra={"file": str(file), "days": round(left_s / 86_400, 1)})

    def metrics(self) -> Iterator[Metric]:
        """What it tells of itself."""
        failed: dict[tuple[str, ...], float] = {}
        for kind, _, handshakes in self._each():
            for why, count in handshakes.failed.items():
                failed[kind, why] = failed.get((kind, why), 0) + count
        what = "Connections that did not come through TLS or a proxy's introduction"
        yield counter("zim_node_failed_handshakes_total", what, failed, "listener", "reason")
        expires = {str(file): at for file, at in self._expiries().items()}
        yield gauge("zim_node_certificate_expires_seconds", "When a certificate expires: Unix time", expires, "file")

    def _expiries(self) -> dict[Path, float]:
        found: dict[Path, float] = {}
        for certificates in self._read.values():
            if certificates is not None:
                found |= certificates.expires
        return found

    def _each(self) -> Iterable[tuple[str, int, Handshakes]]:
        return [(kind, i, one) for kind, several in self.handshakes.items() for i, one in enumerate(several)]
