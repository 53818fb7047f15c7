"""Trains TIA, which turns an identity's semantic embedding and a mood into words of the caption."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from talkface.data.attributes import FaceDescription, portrait_attributes, portrait_descriptions
from talkface.data.faces import Portrait, held_out, portraits, weights
from talkface.diffusion.captions import Attributes, caption
from talkface.diffusion.sampling import noised
from talkface.systems.imagineid.ccf import TextualInversionAdapter, with_pseudo_words
from talkface.systems.imagineid.config import EMOTIONS
from talkface.systems.imagineid.pad import Pad
from talkface.training.datasets.latents import PortraitLatents, usable_portraits
from talkface.training.tasks.imagineid_ccf import VALIDATION_TIMES, CcfTask

_PHRASES_SAID = 0.4  # share of a caption's phrases after the pseudo-words, where there are any


class TiaTask(CcfTask):
    """TIA on portraits: pseudo-words are made of a face's semantic embedding, later of a voice's."""

    adapter = "tia"
    metric, mode = "val_loss", "min"

    def build(self) -> nn.Module:
        """TIA, as wide as the LDM's words."""
        return TextualInversionAdapter(self.config.model, self.base.config.text)

    def built_on(self) -> dict[str, nn.Module]:
        """The LDM, and PAD's embedding of faces and voices."""
        return {"base": self.base, "pad": self.pad.faces}

    def load(self, seed: int) -> None:
        """Latents, captions and semantic embeddings of portraits."""
        whole = portraits(self.manifest)
        features, album = portrait_descriptions(self.manifest, whole), usable_portraits(whole, self.face)
        known = portrait_attributes(self.manifest, album)
        train = [portrait for portrait in album if portrait.split == "train"]
        strangers = held_out(album, self.config.held_out)
        self.pad = Pad.from_pretrained(self.config.pad).to(self.device).requires_grad_(False)
        self.attributes = [known[portrait.key] for portrait in train]
        self.weights = weights(train)
        self.semantic, self.moods = self._embeddings(train, features), self._mood_embeddings(train, known)
        folder = self.manifest.directory
        variants = self.config.variants
        self.latents = PortraitLatents.of(train, self.autoencoder, variants, folder, seed, self.pixels)
        kept = PortraitLatents.of(strangers, self.autoencoder, 1, folder, pixels=self.pixels)
        ids = torch.from_numpy(self.base.tokenize("", voice=True).ids).to(self.device)
        self.fixed = {
            "clean": torch.from_numpy(kept.latents[:, 0]).float().to(self.device),
            "drawing": torch.from_numpy(self.drawings(kept.points[:, 0])).to(self.device),
            "semantic": self._embeddings(strangers, features),
            "mood": self._mood_embeddings(strangers, known),
            "ids": ids.expand(len(strangers), -1),
        }
        self.noise = self.fixed_noise(self.fixed["clean"])

    def _embeddings(self, chosen: list[Portrait], features: dict[str, FaceDescription]) -> Tensor:
        """Semantic embeddings (N, S) of portraits' faces."""
        rows = np.stack([features[portrait.key].features for portrait in chosen]).astype(np.float32)
        embeddings: Tensor = self.pad.faces(torch.from_numpy(rows).to(self.device))
        return embeddings

    def _mood_embeddings(self, chosen: list[Portrait], known: dict[str, Attributes]) -> Tensor:
        """Emotion embeddings (N, E) of portraits: happy for those that smile, else neutral."""
        smiles = [known[portrait.key].expression == "smiling" for portrait in chosen]
        names = ["happy" if smile else "neutral" for smile in smiles]
        return self.pad.emotion.embedding.weight[[EMOTIONS.index(name) for name in names]]

    def draw(self, generator: np.random.Generator) -> dict[str, np.ndarray]:
        """Latents, drawings, whose they are, and tokens."""
        chosen = generator.choice(len(self.weights), self.config.batch, p=self.weights)
        variant = generator.integers(self.latents.latents.shape[1], size=len(chosen))
        said = [self._said(self.attributes[k], generator) for k in chosen]
        return {
            "clean": self.latents.latents[chosen, variant].astype(np.float32),
            "drawing": self.drawings(self.latents.points[chosen, variant]),
            "chosen": chosen,
            "ids": np.stack(said),
        }

    def _said(self, attributes: Attributes, generator: np.random.Generator) -> np.ndarray:
        """The pseudo-words, and at times a few phrases after them."""
        nothing = generator.random() < self.config.no_caption
        return self.base.tokenize(
            "" if nothing else caption(attributes, generator, _PHRASES_SAID), voice=True
        ).ids

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
        text_embeddings = self.base.text(
            with_pseudo_words(words, batch["ids"], pseudo, self.base.pseudo_words)
        )
        mesh = self.base.encode_mesh(batch["drawing"]) if self.base.mesh else None
        velocity = self.base(noised(batch["clean"], noise, time), time, text_embeddings, mesh)
        return F.mse_loss(velocity, noise - batch["clean"])

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The error on held-out people with their own embedding, and with somebody else's."""
        others = self.fixed | {"semantic": self.fixed["semantic"].roll(1, 0)}
        count = len(self.fixed["clean"])
        found = {
            name: [
                float(self._error(batch, torch.full((count,), time, device=self.device), noise))
                for time, noise in zip(VALIDATION_TIMES, self.noise, strict=True)
            ]
            for name, batch in (("val_loss", self.fixed), ("val_loss_of_others", others))
        }
        return {name: float(np.mean(values)) for name, values in found.items()}
