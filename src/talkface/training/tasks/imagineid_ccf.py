"""Trains CCF's adapters one after another over the frozen face LDM.

With rollouts, some rows of a batch are shown what a video would show, not what is real: SCA the frame before
as the renderer hands it on, MBA a face that SCA drew. Otherwise they never learn to put up with either.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from talkface.data.attributes import portrait_attributes, portrait_descriptions
from talkface.data.faces import held_out, portraits, weights
from talkface.data.manifest import Manifest
from talkface.diffusion.base import Base
from talkface.diffusion.captions import Attributes, caption
from talkface.face.draw import draw_mesh
from talkface.face.model import FaceModel
from talkface.face.portrait import PIXELS
from talkface.hub import COMPACT, save_pretrained
from talkface.nn.marks import latents_mark, weights_mark
from talkface.nn.picture import gradient_loss, weighted_l1
from talkface.systems.imagineid.ccf import (
    Hint,
    MaskBlendingAdapter,
    SpatialConditionalAdapter,
    TextualInversionAdapter,
    decode_blended,
    with_pseudo_words,
)
from talkface.systems.imagineid.config import EMOTIONS, CcfConfig
from talkface.systems.imagineid.frames import STEPS, around_face, draw_latents, hint_of
from talkface.systems.imagineid.moving import enlarged_mask, hidden_cells
from talkface.systems.imagineid.pad import Pad
from talkface.training import Task
from talkface.training.datasets.footage import Footage
from talkface.training.datasets.latents import LatentAlbum
from talkface.training.draws import to_device
from talkface.training.tasks.diffusion_ldm import clear_ones

_TIMES = (0.2, 0.5, 0.8)  # at which adapters are validated


@dataclass(frozen=True, kw_only=True)
class CcfTrainConfig:
    """Settings of an adapter's training.

    Attributes:
        model: sizes.
        base, pad: names or directories of what is frozen; ``base`` may be a Stable Diffusion.
        face_model: name or directory of the 3DMM.
        batch: pictures.
        variants: of each portrait, for TIA.
        frames: of each clip, for SCA and MBA.
        no_reference, no_before, no_caption: share of what is hidden, so that each can be missing.
        blur: standard deviation of the noise on semantic embeddings, for TIA: a voice's lies no nearer to its
            face's.
        face: how much more the face counts than what is around it.
        held_out: pictures on which it is validated.
        rollout: share of a batch's rows whose frame before (SCA) or face (MBA) is a video's, not real.
        rollout_steps: of the sampler that draws them.
        rollout_blended: whether SCA's frame before is as where MBA blends: around the face the moved
            reference, which need not be drawn. Otherwise it is what SCA draws there by itself.
        sca: name or directory of the SCA that draws faces for MBA.
    """

    model: CcfConfig = field(default_factory=CcfConfig)
    base: str = COMPACT
    pad: str = "pad"
    face_model: str = "face"
    batch: int = 12
    variants: int = 6
    frames: int = 24
    no_reference: float = 0.15
    no_before: float = 0.2
    no_caption: float = 0.5
    blur: float = 0.2
    face: float = 2.0
    held_out: int = 48
    rollout: float = 0.0
    rollout_steps: int = STEPS
    rollout_blended: bool = False
    sca: str = "imagineid-sca"


class CcfTask(Task):
    """What the adapters' trainings share: the frozen LDM and the error of its velocity."""

    Config = CcfTrainConfig
    adapter: str

    def __init__(self, config: CcfTrainConfig, data: Path, seed: int = 0, device: str = "cpu") -> None:
        self.config, self.device = config, torch.device(device)
        self.manifest = Manifest.load(data)
        self.face = FaceModel.from_pretrained(config.face_model)
        self.warp = self.face.mesh_warp()
        frozen = Base.from_pretrained(config.base, self.device)
        self.base, self.autoencoder, self.pixels = frozen.model, frozen.autoencoder, frozen.pixels
        torch.manual_seed(seed)
        self.modules = {self.adapter: self.build().to(self.device)}
        self.prepare(seed)

    def build(self) -> nn.Module:
        """The adapter."""
        raise NotImplementedError

    def prepare(self, seed: int) -> None:
        """Load what is trained and validated on."""
        raise NotImplementedError

    def export(self, directory: Path, metrics: dict[str, float]) -> None:
        """Write the adapter as the hub reads it."""
        module = self.modules[self.adapter]
        config = {"class": type(module).__name__, "model": asdict(self.config.model), "metrics": metrics}
        config["built_on"] = {name: weights_mark(part) for name, part in self.built_on().items()}
        save_pretrained(directory, config, module.state_dict(), card=None)

    def built_on(self) -> dict[str, nn.Module]:
        """What the adapter is worth nothing without."""
        return {"base": self.base}

    def drawings(self, points: np.ndarray) -> np.ndarray:
        """Drawings (B, 6, H/2, W/2) of meshes (B, 478, 3)."""
        return np.stack([draw_mesh(self.warp, one, PIXELS, self.pixels // 2) for one in points])

    def noised(self, clean: Tensor, time: Tensor, noise: Tensor) -> Tensor:
        """Latents (B, 4, h, w) on their way to noise at times (B,)."""
        part = time[:, None, None, None]
        return (1 - part) * clean + part * noise


def _fixed_noise(shape: tuple[int, ...], device: torch.device) -> Tensor:
    noise = np.random.default_rng(0).standard_normal((len(_TIMES), *shape)).astype(np.float32)
    return torch.from_numpy(noise).to(device)


class TiaTask(CcfTask):
    """TIA on portraits: pseudo-words of a face's semantic embedding, for a voice's takes its place later."""

    adapter = "tia"
    metric, mode = "val_loss", "min"

    def build(self) -> nn.Module:
        """TIA, as wide as the LDM's words."""
        return TextualInversionAdapter(self.config.model, self.base.config.text)

    def built_on(self) -> dict[str, nn.Module]:
        """The LDM, and PAD's embedding of faces and voices."""
        return {"base": self.base, "pad": self.pad.faces}

    def prepare(self, seed: int) -> None:
        """Latents, captions and semantic embeddings of portraits."""
        whole = portraits(self.manifest)
        seen, album = portrait_descriptions(self.manifest, whole), clear_ones(whole, self.face)
        known = portrait_attributes(self.manifest, album)
        train = [portrait for portrait in album if portrait.split == "train"]
        strangers = held_out(album, self.config.held_out)
        pad = self.pad = Pad.from_pretrained(self.config.pad).to(self.device).requires_grad_(False)
        embedding = pad.emotion.embedding.weight

        def mood(chosen: list) -> Tensor:
            smiles = [known[portrait.key].expression == "smiling" for portrait in chosen]
            return embedding[[EMOTIONS.index("happy" if smile else "neutral") for smile in smiles]]

        def semantic(chosen: list) -> Tensor:
            features = np.stack([seen[portrait.key].features for portrait in chosen]).astype(np.float32)
            return pad.faces(torch.from_numpy(features).to(self.device))

        self.attributes = [known[portrait.key] for portrait in train]
        self.weights, self.semantic, self.moods = weights(train), semantic(train), mood(train)
        folder = self.manifest.directory
        self.album = LatentAlbum.of(train, self.autoencoder, self.config.variants, folder, seed, self.pixels)
        kept = LatentAlbum.of(strangers, self.autoencoder, 1, folder, pixels=self.pixels)
        self.fixed = {
            "clean": torch.from_numpy(kept.latents[:, 0]).float().to(self.device),
            "drawing": torch.from_numpy(self.drawings(kept.points[:, 0])).to(self.device),
            "semantic": semantic(strangers),
            "mood": mood(strangers),
            "ids": torch.from_numpy(self.base.tokenize("", voice=True).ids)
            .to(self.device)
            .expand(len(strangers), -1),
        }
        self.noise = _fixed_noise(tuple(self.fixed["clean"].shape), self.device)

    def draw(self, generator: np.random.Generator) -> dict[str, np.ndarray]:
        """Latents, drawings, whose they are, and tokens."""
        chosen = generator.choice(len(self.weights), self.config.batch, p=self.weights)
        variant = generator.integers(self.album.latents.shape[1], size=len(chosen))
        said = [self._said(self.attributes[k], generator) for k in chosen]
        return {
            "clean": self.album.latents[chosen, variant].astype(np.float32),
            "drawing": self.drawings(self.album.points[chosen, variant]),
            "chosen": chosen,
            "ids": np.stack(said),
        }

    def _said(self, attributes: Attributes, generator: np.random.Generator) -> np.ndarray:
        """The pseudo-words, and at times a few phrases after them."""
        nothing = generator.random() < self.config.no_caption
        return self.base.tokenize("" if nothing else caption(attributes, generator, 0.4), voice=True).ids

    def training_step(self, batch: dict[str, Tensor], optimizer_index: int, step: int) -> dict[str, Tensor]:
        """Squared error of the frozen LDM's velocity."""
        time = torch.randn(len(batch["clean"]), device=self.device).sigmoid()
        semantic = self.semantic[batch["chosen"]]
        blurred = F.normalize(semantic + self.config.blur * torch.randn_like(semantic), dim=-1)
        meant = batch | {"semantic": blurred, "mood": self.moods[batch["chosen"]]}
        return {"loss": self._error(meant, time, torch.randn_like(batch["clean"]))}

    def _error(self, batch: dict[str, Tensor], time: Tensor, noise: Tensor) -> Tensor:
        words = self.base.text.embed(batch["ids"])
        pseudo = self.modules["tia"](batch["semantic"], batch["mood"])
        meaning = self.base.text(with_pseudo_words(words, batch["ids"], pseudo, self.base.pseudo_words))
        mesh = self.base.see(batch["drawing"]) if self.base.mesh else None
        velocity = self.base(self.noised(batch["clean"], time, noise), time, meaning, mesh)
        return F.mse_loss(velocity, noise - batch["clean"])

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The error on held-out people with their own embedding, and with somebody else's."""
        others = self.fixed | {"semantic": self.fixed["semantic"].roll(1, 0)}
        count = len(self.fixed["clean"])
        found = {
            name: [
                float(self._error(batch, torch.full((count,), time, device=self.device), noise))
                for time, noise in zip(_TIMES, self.noise, strict=True)
            ]
            for name, batch in (("val_loss", self.fixed), ("val_loss_of_others", others))
        }
        return {name: float(np.mean(values)) for name, values in found.items()}


class FootageTask(CcfTask):
    """What the trainings on footage share."""

    def prepare(self, seed: int) -> None:
        """Frames of training clips, and of held-out ones."""
        mark = latents_mark(self.autoencoder)
        given = (self.face, self.autoencoder, self.config.frames, mark, seed, self.pixels)
        self.footage = Footage.of(self.manifest, "train", *given)
        self.held_out = Footage.of(self.manifest, self.manifest.choosing, *given)
        spread = np.linspace(0, len(self.held_out) - 1, min(self.config.held_out, len(self.held_out)))
        chosen = spread.round().astype(int)
        self.fixed = to_device(self.rows(self.held_out, chosen, len(chosen)), self.device)
        self.noise = _fixed_noise(tuple(self.fixed["target"].shape), self.device)
        self.nothing = torch.from_numpy(self.base.tokenize("").ids)[None].to(self.device)

    def rows(self, footage: Footage, chosen: np.ndarray, rolled: int = 0) -> dict[str, np.ndarray]:
        """Latents, the mesh's drawing and where the face is.

        Of the first ``rolled`` rows, what they are drawn from besides.
        """
        names = "target", "moved", "before"
        latents = {name: getattr(footage, name)[chosen].astype(np.float32) for name in names}
        cells = np.stack([hidden_cells(one, self.pixels // 8) for one in footage.points[chosen]])
        old_cells = np.stack([hidden_cells(one, self.pixels // 8) for one in footage.before_points[chosen]])
        masks = np.stack([enlarged_mask(one, self.pixels)[None] for one in footage.points[chosen]])
        found = latents | {
            "drawing": self.drawings(footage.points[chosen]),
            "hidden": cells,
            "hidden_before": old_cells,
            "mask": masks,
        }
        return found | self.origins(footage, chosen[:rolled]) if rolled else found

    def origins(self, footage: Footage, chosen: np.ndarray) -> dict[str, np.ndarray]:
        """What rolled rows (R) are drawn from besides: the reference at the mesh of the frame before."""
        return {"moved_before": footage.moved_before[chosen].astype(np.float32)}

    def draw(self, generator: np.random.Generator) -> dict[str, np.ndarray]:
        """A batch as :meth:`rows` gives it."""
        config = self.config
        chosen = generator.choice(len(self.footage), config.batch, p=self.footage.weight)
        # The rows are in no order, so the first are as good as any.
        rolled = max(1, round(config.rollout * config.batch)) if config.rollout > 0 else 0
        return self.rows(self.footage, chosen, rolled)

    def drawn(self, sca: nn.Module, hint: Hint, noise: Tensor) -> Tensor:
        """Latents (R, 4, h, w) of frames as the renderer draws them, without gradient."""
        kind = self.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
        steps = self.config.rollout_steps
        # The renderer says by itself what is computed in that type.
        with torch.no_grad(), torch.autocast(kind, enabled=False):
            meaning = self.base.read(self.nothing)
            return draw_latents(self.base, sca, meaning, hint, noise, steps, dtype=dtype)


class ScaTask(FootageTask):
    """SCA: the velocity of a frame's latents, given its mesh, the moved reference and the frame before.

    The best weights have the least ``val_loss``; with rollouts, the least mean of it and ``val_loss_rolled``.
    """

    adapter = "sca"
    metric, mode = "val_loss", "min"

    def build(self) -> nn.Module:
        """SCA, from the U-Net's own weights."""
        return SpatialConditionalAdapter(self.base.config, self.base)

    def prepare(self, seed: int) -> None:
        """As for all footage."""
        super().prepare(seed)
        if self.config.rollout > 0:
            self.metric = "val_loss_both"

    def origins(self, footage: Footage, chosen: np.ndarray) -> dict[str, np.ndarray]:
        """The reference at the mesh of the frame before, and, where it is to be drawn, that mesh."""
        found = super().origins(footage, chosen)
        if self.config.rollout_blended:
            return found
        return found | {"drawing_before": self.drawings(footage.before_points[chosen])}

    def training_step(self, batch: dict[str, Tensor], optimizer_index: int, step: int) -> dict[str, Tensor]:
        """Squared error; the reference and the frame before are hidden at times."""
        count = len(batch["target"])
        chance = torch.rand(count, 2, device=self.device)
        known = chance > torch.tensor([self.config.no_reference, self.config.no_before], device=self.device)
        time = torch.randn(count, device=self.device).sigmoid()
        noise = torch.randn_like(batch["target"])
        before = self._real(batch)
        if "moved_before" in batch:
            rolled = self.rolled(batch, noise)
            before = torch.cat([rolled, before[len(rolled) :]])
        return {"loss": self._error(batch, before, known.float(), time, noise).mean()}

    def rolled(self, batch: dict[str, Tensor], noise: Tensor) -> Tensor:
        """The frame before as the renderer hands it on, (R, 4, h, w), of the rows that have an origin.

        It is drawn as a video's first frame, from the same noise (B, 4, h, w) as the frame itself will be.
        """
        latents = batch["moved_before"]
        hidden = batch["hidden_before"][: len(latents)]
        if not self.config.rollout_blended:
            hint = hint_of(batch["drawing_before"], latents, hidden, None)
            latents = self.drawn(self.modules["sca"], hint, noise[: len(latents)])
        return around_face(latents, hidden)

    @staticmethod
    def _real(batch: dict[str, Tensor]) -> Tensor:
        return around_face(batch["before"], batch["hidden_before"])

    def _error(
        self, batch: dict[str, Tensor], before: Tensor, known: Tensor, time: Tensor, noise: Tensor
    ) -> Tensor:
        """Squared error of each frame (B,), the face's counting more."""
        meaning = self.base.read(self.nothing.expand(len(time), -1))
        mesh = self.base.see(batch["drawing"]) if self.base.mesh else None
        hint = Hint(batch["drawing"], batch["moved"], before, batch["hidden"], known)
        noisy = self.noised(batch["target"], time, noise)
        control = self.modules["sca"](*self.base.inputs(noisy, time, mesh), meaning, hint)
        velocity = self.base(noisy, time, meaning, mesh, **control)
        weight = 1 + self.config.face * batch["hidden"]
        error = (velocity - noise + batch["target"]).square() * weight
        return error.sum((1, 2, 3)) / weight.sum((1, 2, 3)) / noise.shape[1]

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The error on held-out people with all hints, a rolled frame before, and the mesh alone."""
        fixed, count = self.fixed, len(self.fixed["target"])
        real = self._real(fixed)
        found: dict[str, list[float]] = {"val_loss": [], "val_loss_rolled": [], "val_loss_mesh_alone": []}
        for time, noise in zip(_TIMES, self.noise, strict=True):
            now = torch.full((count,), time, device=self.device)
            befores = real, self.rolled(fixed, noise), real
            for (name, errors), before in zip(found.items(), befores, strict=True):
                known = torch.full((count, 2), float(name != "val_loss_mesh_alone"), device=self.device)
                errors.append(float(self._error(fixed, before, known, now, noise).mean()))
        means = {name: float(np.mean(values)) for name, values in found.items()}
        return means | {"val_loss_both": (means["val_loss"] + means["val_loss_rolled"]) / 2}


class MbaTask(FootageTask):
    """MBA: pictures of a frame's face amid the moved reference's surroundings.

    The best weights have the highest ``val_psnr``; with rollouts, the highest mean of it and
    ``val_psnr_rolled``.
    """

    adapter = "mba"
    metric, mode = "val_psnr", "max"

    def build(self) -> nn.Module:
        """MBA, as wide as the decoder at each size."""
        return MaskBlendingAdapter(self.autoencoder.config.decoder)

    def built_on(self) -> dict[str, nn.Module]:
        """The autoencoder."""
        return {"autoencoder": self.autoencoder}

    def prepare(self, seed: int) -> None:
        """Frames, and with rollouts the SCA that draws faces."""
        super().prepare(seed)
        self.sca: SpatialConditionalAdapter | None = None
        if self.config.rollout > 0:
            sca = SpatialConditionalAdapter.from_pretrained(self.base, self.config.sca)
            self.sca = sca.to(self.device).requires_grad_(False)
            self.metric = "val_psnr_both"

    def training_step(self, batch: dict[str, Tensor], optimizer_index: int, step: int) -> dict[str, Tensor]:
        """Distance from the whole frame, where it borders on the face above all."""
        rolled = self.rolled(batch, torch.randn_like(batch["target"])) if self.sca is not None else None
        drawn, goal = self._draw(batch, rolled)
        border = 1 + 4 * self._border(batch["mask"])
        out = {"l1": weighted_l1(drawn, goal, border), "gradient": gradient_loss(drawn, goal, border)}
        return {"loss": out["l1"] + out["gradient"]} | {name: v.detach() for name, v in out.items()}

    def rolled(self, batch: dict[str, Tensor], noise: Tensor) -> Tensor:
        """Faces that SCA draws in the midst of a video, (R, 4, h, w), of the rows that have an origin."""
        assert self.sca is not None
        count = len(batch["moved_before"])
        first = {name: batch[name][:count] for name in ("drawing", "moved", "hidden", "hidden_before")}
        # Where MBA blends, what is around the face is the reference's in the frame before, too.
        before = around_face(batch["moved_before"], first["hidden_before"])
        hint = hint_of(first["drawing"], first["moved"], first["hidden"], before)
        return self.drawn(self.sca, hint, noise[:count])

    def _draw(self, batch: dict[str, Tensor], rolled: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Blended pictures (B, 3, H, W) and what they should be; the first rows' faces are ``rolled``."""
        adapter = self.modules["mba"]
        assert isinstance(adapter, MaskBlendingAdapter)
        count = 0 if rolled is None else len(rolled)
        faces = batch["target"] if rolled is None else torch.cat([rolled, batch["target"][count:]])
        drawn = decode_blended(self.autoencoder, adapter, faces, batch["moved"], batch["mask"])
        with torch.no_grad():
            goal = self.autoencoder.decode(batch["target"])
            if rolled is not None:
                # MBA cannot change a face: asked for the real one in a drawn one's place, it would learn to
                # mend it from without. The one fades into the other where the mask does, or a seam would be
                # asked for.
                mask = batch["mask"][:count]
                faded = mask * self.autoencoder.decode(rolled) + (1 - mask) * goal[:count]
                goal = torch.cat([faded, goal[count:]])
        return drawn, goal

    @staticmethod
    def _border(mask: Tensor) -> Tensor:
        """1 where the mask is between 0 and 1."""
        return ((mask > 0.01) & (mask < 0.99)).float()

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """PSNR of held-out frames, in all and at the face's border; with rollouts, of drawn faces, too."""
        found = self._psnr("val_psnr", None)
        if self.sca is None:
            return found
        found |= self._psnr("val_psnr_rolled", self.rolled(self.fixed, self.noise[0]))
        return found | {"val_psnr_both": (found["val_psnr"] + found["val_psnr_rolled"]) / 2}

    def _psnr(self, name: str, rolled: Tensor | None) -> dict[str, float]:
        drawn, goal = self._draw(self.fixed, rolled)
        border = self._border(self.fixed["mask"]).expand_as(drawn) > 0
        error = (drawn - goal).square()
        return {
            name: float(-10 * torch.log10(error.mean() + 1e-8)),
            f"{name}_border": float(-10 * torch.log10(error[border].mean() + 1e-8)),
        }
