"""The first frame: a face that could belong to a voice, imagined by the LDM over a mesh of PAD's shape."""

import logging
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from talkface.diffusion.base import Base
from talkface.diffusion.captions import Attributes, known_words, phrases
from talkface.diffusion.critic import PortraitCritic, alike
from talkface.diffusion.sampling import (
    SHIFT,
    Control,
    guided,
    in_dtype,
    own_guidance,
    own_steps,
    restored,
    sample,
)
from talkface.errors import NoFaceFound
from talkface.face import topology as tp
from talkface.face.crop import face_unit
from talkface.face.draw import draw_mesh
from talkface.face.mesh import FaceMesh
from talkface.face.model import FaceModel
from talkface.face.portrait import SIDE
from talkface.face.tracker import FaceTracker
from talkface.systems.imagineid.adapters import Adapters
from talkface.systems.imagineid.ccf import Hint, with_pseudo_words
from talkface.systems.imagineid.chance import AGE_WORDS, hair_of, one_of
from talkface.systems.imagineid.config import EMOTIONS
from talkface.systems.imagineid.moving import hidden_cells
from talkface.systems.imagineid.pad import Pad
from talkface.systems.imagineid.voice import Speaker

logger = logging.getLogger(__name__)

_NOSE = 0.58  # of the picture's height, where the tip of the nose is
_TURNS = np.radians([2.0, 5.0, 2.0])  # standard deviation of pitch, yaw and roll
_VARIETY = 1.3  # of the spread that a voice leaves to the shape; the LDM makes people more alike
_MOST_TRIES = 12
_TOGETHER = 6  # drafts that are drawn in one batch; a Stable Diffusion, far wider, draws one by one
_FINISHED = 3  # drafts, the soundest ones, that are restored and judged
_OPEN = (0.07, 0.11)  # least and most openness of eyes, in inter-ocular distances
_CLOSE = 0.06  # of the inter-ocular distance, within which the face lies on the mesh
PARTS = ("tia", "texture", "restorer", "reference", "mba", "before")
"""What can be left out: TIA, the plausible face that the restorer is shown, the restorer, SCA's reference,
MBA, and the frame before."""
_SURE = 0.65  # probability from which on the caption says woman or man


@dataclass(frozen=True)
class Wish:
    """What is asked for, beside the voice.

    Attributes:
        prompt: the user's words.
        steps: of the sampler; None for the model's own.
        guidance: how much the caption counts; 1 is as trained, None as much as the model needs.
        candidates: portraits to choose the best of.
        without: parts to leave out, of PARTS, to see what they are worth.
    """

    prompt: str = ""
    steps: int | None = None
    guidance: float | None = None
    candidates: int = 6
    without: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Imagined:
    """A portrait of nobody.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        points: (478, 3) its tracked mesh, pixels.
        adherence: mean distance of the face from the mesh that was asked for, over the inter-ocular
            distance; None where the base does not see meshes.
        soundness: how little strange a draft is; of a finished portrait the critic's opinion.
        caption: what the LDM was told.
        ignored: words of the prompt that it does not know.
        tries: portraits that were drawn.
    """

    image: np.ndarray
    points: np.ndarray
    adherence: float | None
    soundness: float
    caption: str
    ignored: list[str] = field(default_factory=list)
    tries: int = 1

    @property
    def close(self) -> bool:
        """Whether the face lies on the mesh, as far as that is known."""
        return (self.adherence or 0.0) < _CLOSE

    def rank(self) -> tuple[bool, float]:
        """The higher, the rather it is to be taken: on its mesh before not, then by how well it is drawn."""
        return self.close, self.soundness


class PortraitImaginer:
    """Draws portraits for voices.

    Args:
        base: the frozen LDM.
        adapters: those over it; TIA and SCA are used if they are there.
        pad: for the embeddings of moods.
        face: the 3DMM.
        tracker: checks that there is a face, and where.
        critic: tells the better of two portraits.
        dtype: of the LDM's arithmetic.
    """

    def __init__(
        self,
        base: Base,
        adapters: Adapters,
        pad: Pad,
        face: FaceModel,
        tracker: FaceTracker,
        critic: PortraitCritic,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.dtype = dtype
        self.base, self.adapters, self.face, self.tracker = base, adapters, face, tracker
        self.critic = critic
        self.moods = pad.emotion.embedding.weight.detach()
        self.device = next(base.model.parameters()).device
        self.warp = face.mesh_warp()

    def __call__(self, speaker: Speaker, mood: np.ndarray, seed: int, wish: Wish) -> Imagined:
        """Imagine a portrait, the best of some candidates.

        Args:
            speaker: what the voice tells.
            mood: (8,) probabilities of EMOTIONS.
            seed: another one gives another person.
            wish: what is asked for.

        Raises:
            NoFaceFound: no candidate shows a face.
        """
        generator = np.random.default_rng(seed)
        mesh = resting_mesh(self.face, speaker, generator, self.base.pixels)
        person = one_of(speaker, generator)
        caption = self._caption(person, wish.prompt, hair_of(person, wish.prompt, generator))
        meaning, ignored = self._meaning(person, mood, caption, wish)
        drafts: list[Imagined] = []
        tried, enough = 0, wish.candidates
        while tried < enough:
            count = min(_TOGETHER if self.base.compact else 1, enough - tried)
            noise = torch.cat([self._noise(speaker, generator) for _ in range(count)])
            for image in self._draw(meaning, mesh, noise, wish):
                found = self._check(image, mesh, caption, ignored)
                drafts += [replace(found, soundness=self._soundness(found, mesh))] if found else []
            tried += count
            if tried == enough and not any(draft.close for draft in drafts):
                enough = min(enough + 1, _MOST_TRIES)
        if not drafts:
            raise NoFaceFound(
                f"no face came out of {_MOST_TRIES} tries with seed {seed}; choose another seed or prompt"
            )
        drafts.sort(key=Imagined.rank, reverse=True)
        finished = [self._finished(draft, mesh, wish) for draft in drafts[:_FINISHED]]
        return replace(max(finished, key=Imagined.rank), tries=tried)

    # -- what the LDM is told --------------------------------------------------------------------

    def _caption(self, person: Speaker, prompt: str, hair: str) -> str:
        """The user's words, after those that voice and chance tell and they do not."""
        told = told_words(person, prompt)
        if self.base.compact:
            return ", ".join(filter(None, [*told, hair, prompt.strip()]))
        subject = " ".join(["a", *(told or ["person"])])
        return ", ".join(
            filter(None, [f"portrait photo of {subject}", hair, prompt.strip(), "looking at the camera"])
        )

    def _meaning(
        self, speaker: Speaker, mood: np.ndarray, caption: str, wish: Wish
    ) -> tuple[Tensor, list[str]]:
        """Meaning (1, L, C) of a caption, with the voice's pseudo-words unless the prompt contradicts it."""
        model, tia = self.base.model, self.adapters.tia
        if tia is None or "tia" in wish.without or contradicts(speaker, wish.prompt):
            return self.base.meaning(caption)
        tokens = model.tokenize(caption, voice=True)
        ids = torch.from_numpy(tokens.ids)[None].to(self.device)
        semantic = torch.from_numpy(speaker.semantic).float()[None].to(self.device)
        emotion = self._smile(mood).to(self.device)
        with torch.inference_mode():
            words = with_pseudo_words(model.text.embed(ids), ids, tia(semantic, emotion), model.pseudo_words)
            return model.text(words), tokens.ignored

    def _smile(self, mood: np.ndarray) -> Tensor:
        """Embedding (1, E) of how happy a mood is: TIA has seen faces that smile, and others."""
        happy = float(mood[EMOTIONS.index("happy")])
        plain, smiling = (self.moods[EMOTIONS.index(name)] for name in ("neutral", "happy"))
        return ((1 - happy) * plain + happy * smiling)[None]

    # -- drawing -----------------------------------------------------------------------------------

    def _noise(self, speaker: Speaker, generator: np.random.Generator) -> Tensor:
        """Noise (1, 4, h, w): a random projection of the voice's embedding.

        One seed gives alike noise to two recordings of one voice, other noise to other voices, and another
        seed has nothing in common with it.
        """
        side = self.base.pixels // 8
        voice = speaker.semantic / max(float(np.linalg.norm(speaker.semantic)), 1e-6)
        if not voice.any():  # nothing is told: as if it were any one voice
            voice = np.eye(len(voice))[0]
        noise = np.tensordot(voice, generator.standard_normal((len(voice), 1, 4, side, side)), 1)
        return torch.from_numpy(noise.astype(np.float32)).to(self.device)

    @torch.inference_mode()
    def _draw(self, meaning: Tensor, mesh: np.ndarray, noise: Tensor, wish: Wish) -> np.ndarray:
        """Pictures (B, H, W, 3) uint8 of noise (B, 4, h, w)."""
        model = self.base.model
        drawing = self.drawing(mesh)
        seen = model.see(drawing)
        if seen is not None:
            seen = seen.expand(len(noise), -1, -1, -1)
        guidance = own_guidance(model) if wish.guidance is None else wish.guidance
        velocity = guided(model, meaning, seen, guidance, self._control(drawing, mesh))
        latents = sample(in_dtype(velocity, self.dtype), noise, wish.steps or own_steps(model), shift=SHIFT)
        latents = restored(latents, model.config.spectrum)
        picture = self.base.autoencoder.decode(latents).permute(0, 2, 3, 1)
        return (picture * 255).round().byte().cpu().numpy()

    @torch.inference_mode()
    def _finished(self, drawn: Imagined, mesh: np.ndarray, wish: Wish) -> Imagined:
        """A draft as a photograph would show it, if the base can tell, and the critic's opinion of it."""
        found: Imagined | None = None
        if self.base.restorer is not None and "restorer" not in wish.without:
            plausible = "texture" not in wish.without
            image = self.base.photograph(drawn.image, mesh, self.drawing(mesh), plausible)
            found = self._check(image, mesh, drawn.caption, drawn.ignored)
            if found is None:
                logger.warning("a restored portrait shows no face; the LDM's own is taken")
        found = found or drawn
        return replace(found, soundness=self.critic.judge(found.image, found.points))

    def _soundness(self, draft: Imagined, mesh: np.ndarray) -> float:
        """How well a draft is drawn: as far as a face could look so, else by how alike its eyes are."""
        if self.base.texture is None:
            return alike(draft.image, draft.points)
        return -self.base.texture.strangeness(draft.image, mesh)

    def drawing(self, mesh: np.ndarray) -> Tensor:
        """Drawing (1, 6, H/2, W/2) of a mesh (478, 3) in pixels of the base's pictures."""
        pixels = self.base.pixels
        return torch.from_numpy(draw_mesh(self.warp, mesh, pixels, pixels // 2))[None].to(self.device)

    def _control(self, drawing: Tensor, mesh: np.ndarray) -> Control | None:
        """SCA shows the mesh to a base that does not see it by itself."""
        sca = self.adapters.sca
        if self.base.compact or sca is None:
            return None
        side = self.base.pixels // 8
        nothing = torch.zeros(1, 4, side, side, device=self.device)
        hidden = torch.from_numpy(hidden_cells(mesh, side, self.base.pixels))[None].to(self.device)
        known = torch.zeros(1, 2, device=self.device)
        hint = Hint(drawing, nothing, nothing, hidden, known)
        return lambda given, step, meaning: sca(given, step, meaning, hint.expanded(len(given)))

    # -- choosing ------------------------------------------------------------------------------------

    def _check(
        self, image: np.ndarray, mesh: np.ndarray, caption: str, ignored: list[str]
    ) -> Imagined | None:
        """The portrait, if there is a face in it."""
        meshes: list[FaceMesh] = self.tracker.track_image(image)
        if not meshes:
            return None
        points = meshes[0].points
        apart = adherence(points, mesh) if self.base.compact or self.adapters.sca else None
        return Imagined(image, points, apart, 0.0, caption, ignored)


def resting_mesh(
    face: FaceModel, speaker: Speaker, generator: np.random.Generator, pixels: int
) -> np.ndarray:
    """A mesh (478, 3) at rest, in pixels of a picture, of the voice's shape and what it leaves open."""
    alpha = speaker.shape + _VARIETY * speaker.shape_spread * generator.standard_normal(len(speaker.shape))
    neutral = awake(face, face.mean + np.tensordot(alpha.astype(np.float32), face.identity, 1))
    turn = Rotation.from_rotvec(_TURNS * generator.standard_normal(3)).as_matrix()
    points = (neutral @ turn.T).astype(np.float32)
    points *= pixels / (SIDE * face_unit(points))
    middle = np.array([(pixels - 1) / 2, _NOSE * pixels], np.float32)
    points[:, :2] += middle - points[tp.NOSE_TIP, :2]
    return points


def awake(face: FaceModel, neutral: np.ndarray) -> np.ndarray:
    """A canonical face (478, 3) whose eyes are as open as most people's: a portrait looks back."""
    lids = face.eyelids()
    now = float(tp.eye_openness(neutral).mean())
    beta = lids.gap * (float(np.clip(now, *_OPEN)) - now) / np.square(lids.gap).sum()
    return neutral + np.tensordot(beta, face.upper, 1).astype(np.float32)


def adherence(found: np.ndarray, mesh: np.ndarray) -> float:
    """Mean distance of two meshes (478, 2 or 3) of a picture, over the inter-ocular distance."""
    apart = np.linalg.norm((found[:, :2] - mesh[:, :2])[: tp.FACE_VERTICES], axis=1).mean()
    return float(apart / tp.inter_ocular(mesh))


def told_words(speaker: Speaker, prompt: str) -> list[str]:
    """Words for the sex and age that a voice tells, unless a prompt says something of its own."""
    said = set(known_words(prompt))
    male = None if said & {"woman", "man"} or max(speaker.male, 1 - speaker.male) < _SURE else speaker.male
    age = None if said & set(AGE_WORDS) else speaker.age
    return phrases(Attributes(male=male, age=age))


def contradicts(speaker: Speaker, prompt: str) -> bool:
    """Whether a prompt asks for a sex that the voice does not tell."""
    said = set(known_words(prompt))
    return bool(said & {"woman"} and speaker.male > 0.5) or bool(said & {"man"} and speaker.male < 0.5)
