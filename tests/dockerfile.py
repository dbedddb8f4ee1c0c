"""A Dockerfile, built without Docker: a stage is a folder that debootstrap has made, its steps run there by chroot."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

MIRROR = "http://deb.debian.org/debian"
AUTHORITIES = "/usr/local/share/authorities.crt"
_UNDERSTOOD = {
    "ARG", "FROM", "RUN", "WORKDIR", "COPY", "ENV", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK",
    "ENTRYPOINT", "CMD",
}  # fmt: skip


@dataclass
class Image:
    """What a stage has become.

    Attributes:
        folder: its files.
        environment: for what runs in it.
        said: the instructions that say how it is run, with what stands behind them.
    """

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    said: dict[str, str] = field(default_factory=dict)

    @property
    def command(self) -> list[str]:
        """What a container runs."""
        return [*json.loads(self.said["ENTRYPOINT"]), *json.loads(self.said["CMD"])]


def instructions(text: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile, each with what stands behind it.

    Raises:
        ValueError: one is not known here.
    """
    lines = "".join(line for line in text.splitlines(keepends=True) if not re.match(r"\s*(#|$)", line))
    found = [(word.upper(), rest.strip()) for word, _, rest in (x.partition(" ") for x in _joined(lines))]
    if unknown := {word for word, _ in found} - _UNDERSTOOD:
        raise ValueError(f"not understood: {', '.join(sorted(unknown))}")
    return found


def _joined(lines: str) -> list[str]:
    return lines.replace("\\\n", " ").splitlines()


def build(file: Path, context: Path, folder: Path) -> Image:
    """Builds it. What the last stage is."""
    arguments: dict[str, str] = {}
    stages: dict[str, Image] = {}
    image = Image(folder)
    for word, rest in instructions(file.read_text()):
        for name, value in arguments.items():
            rest = rest.replace(f"${{{name}}}", value)
        match word:
            case "ARG":
                name, _, value = rest.partition("=")
                arguments[name] = value
            case "FROM":
                of, _, name = rest.partition(" AS ")
                image = Image(_base(of, folder, folder / (name or "final")))
                stages[name or "final"] = image
            case "RUN":
                run(image, ["sh", "-c", rest])
            case "WORKDIR":
                image.workdir = rest
                (image.folder / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
            case "COPY":
                _copy(image, rest, context, stages)
            case "ENV":
                image.environment |= dict(one.split("=", 1) for one in shlex.split(rest))
            case _:
                image.said[word] = rest
    return image


def run(image: Image, command: list[str]) -> str:
    """A step, as root, with /proc and /dev. What it prints."""
    inside = 'mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" && exec /usr/sbin/chroot "$0" "$@"'
    ours = {name: value for name, value in os.environ.items() if re.match(r"https?_proxy|no_proxy", name)}
    if _authorities():  # registries may be behind a proxy that only this machine knows
        ours |= dict.fromkeys(("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE"), AUTHORITIES)
    there = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive", **ours, **image.environment}
    at = ["sh", "-c", f'cd {shlex.quote(image.workdir)} && exec "$@"', "sh"]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-ec", inside, str(image.folder), *at, *command],
        env=there, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (command, done.stdout[-4000:], done.stderr[-4000:])
    return done.stdout


def _base(of: str, folder: Path, target: Path) -> Path:
    """The files of `debian:trixie-slim`, but for what is left out of it."""
    suite = of.removeprefix("debian:").removesuffix("-slim")
    made = folder / f"base-{suite}"
    if not made.exists():
        command = ["debootstrap", "--variant=minbase", suite, str(made), MIRROR]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        for name in ("/etc/resolv.conf", "/etc/hosts"):
            shutil.copyfile(name, made / name.lstrip("/"))
        if (found := _authorities()) is not None:
            shutil.copyfile(found, made / AUTHORITIES.lstrip("/"))
    subprocess.run(["cp", "-a", str(made), str(target)], check=True)
    return target


def _authorities() -> Path | None:
    """The certificates that this machine believes, if that is said."""
    said = os.environ.get("SSL_CERT_FILE", "")
    return Path(said) if said and Path(said).is_file() else None


def _copy(image: Image, rest: str, context: Path, stages: dict[str, Image]) -> None:
    *sources, target = rest.split()
    origin = context
    if sources[0].startswith("--from="):
        origin = stages[sources.pop(0).removeprefix("--from=")].folder
    to = image.folder / os.path.join(image.workdir, target).lstrip("/")
    for source in sources:
        found = origin / source.lstrip("/")
        if found.is_dir():  # what is in it
            ignored = None if origin != context else shutil.ignore_patterns("__pycache__")
            shutil.copytree(found, to, symlinks=True, dirs_exist_ok=True, ignore=ignored)
        else:
            shutil.copy(found, to / found.name if to.is_dir() else to)
