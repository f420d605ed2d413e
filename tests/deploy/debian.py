#!/usr/bin/env python3
"""Programs out of Debian's packages, unpacked into the tests' cache without being installed and without root: promtool,
zsh, fish, bash-completion.

    python3 debian.py         prints the folder, below which they stand as they would below /

Debian keeps one version of each package in a release, so these are not pinned by number: another release of Debian
means another unpacking. Only the standard library is used.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "mlflow"))

from environments import Failure, cache_root, locked, say  # noqa: E402

PACKAGES = ("prometheus", "zsh", "zsh-common", "fish", "fish-common", "libpcre2-32-0", "bash-completion")
# The server itself, which no test starts.
LEFT_OUT = ("usr/bin/prometheus",)
SECONDS = 300


def run(*command: str, folder: Path) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired as late:
        raise Failure(f"{command[0]} took longer than {SECONDS} s") from late
    if done.returncode != 0:
        raise Failure(f"{' '.join(command[:1] + command[-2:])} ended with {done.returncode}: {done.stdout[-600:]}")


def recipe() -> str:
    """What the folder is made of; another recipe means another one."""
    release = Path("/etc/os-release")
    return "\n".join([*PACKAGES, release.read_text() if release.exists() else "unknown"])


def unpack(folder: Path) -> None:
    """Lists and packages are fetched into a folder of our own: nothing of the system's is touched."""
    work = folder.with_name("debian.work")
    for old in (folder, work):
        if old.exists():
            shutil.rmtree(old)
    for part in ("lists/partial", "cache/archives/partial", "packages"):
        (work / part).mkdir(parents=True)
    own = ("-o", f"Dir::State::Lists={work}/lists", "-o", f"Dir::Cache={work}/cache", "-o", "APT::Sandbox::User=root")
    run("apt-get", "-q", *own, "update", folder=work)
    run("apt-get", "-q", *own, "download", *PACKAGES, folder=work / "packages")
    folder.mkdir()
    for package in sorted((work / "packages").glob("*.deb")):
        run("dpkg", "-x", str(package), str(folder), folder=work)
    for name in LEFT_OUT:
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(work)
    (folder / ".ready").write_text(recipe())


def root() -> Path:
    """The folder of the unpacked programs. Fails where there is no apt-get, no dpkg, or nothing to fetch from."""
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        raise Failure("apt-get and dpkg are not here")
    folder = cache_root() / "debian"
    with locked(cache_root() / "debian.lock"):
        ready = folder / ".ready"
        if not (ready.exists() and ready.read_text() == recipe()):
            say(f"debian: unpacking {', '.join(PACKAGES)} in {folder}")
            unpack(folder)
    return folder


def program(name: str, path: str) -> tuple[Path, dict[str, str]] | None:
    """A program of this machine, else one that was unpacked, and what it needs in its environment. None, and why on
    stderr, where it cannot be had."""
    if installed := shutil.which(name):
        return Path(installed), {}
    try:
        folder = root()
    except (Failure, OSError) as failure:
        print(f"skipped: {name} is not here and cannot be fetched: {failure}", file=sys.stderr)
        return None
    libraries = [str(p) for p in (folder / "usr/lib").glob("*-linux-gnu")]
    return folder / path, {"LD_LIBRARY_PATH": ":".join(libraries)}


if __name__ == "__main__":
    os.umask(0o022)
    try:
        print(root())
    except (Failure, OSError) as failure:
        sys.exit(f"debian: {failure}")
