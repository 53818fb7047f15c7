"""The first frame: a portrait for a voice, drawn by the LDM over a mesh with the shape that PAD infers."""

import logging
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from talkface.diffusion.autoencoder import LATENT_FACTOR
from talkface.diffusion.base import Base
from talkface.diffusion.captions import Attributes, known_words, phrases
from talkface.diffusion.critic import PortraitCritic, eye_likeness
from talkface.diffusion.sampling import (
    TIMESTEP_SHIFT,
    Control,
    default_guidance,
    default_steps,
    guided,
    in_dtype,
    restore_spectrum,
    sample,
)
from talkface.errors import NoFaceFound
from talkface.face import topology as tp
from talkface.face.crop import face_unit
from talkface.face.draw import draw_mesh
from talkface.face.mesh import FaceMesh
from talkface.face.model import FaceModel
from talkface.face.portrait import PORTRAIT_NOSE, PORTRAIT_SIDE
from talkface.face.tracker import FaceTracker
from talkface.systems.imagineid.adapters import Adapters
from talkface.systems.imagineid.ccf import SpatialCondition, with_pseudo_words
from talkface.systems.imagineid.config import EMOTIONS
from talkface.systems.imagineid.pad import Pad
from talkface.systems.imagineid.random_traits import AGE_WORDS, draw_hair, draw_person
from talkface.systems.imagineid.reference_warp import hidden_cells
from talkface.systems.imagineid.voice import Speaker

logger = logging.getLogger(__name__)

_POSE_SPREAD = np.radians([2.0, 5.0, 2.0])  # standard deviation of pitch, yaw and roll
_SHAPE_SPREAD = 1.3  # factor of the spread of the shape: the LDM makes people more alike than they are
_MOST_TRIES = 12
_DRAFT_BATCH = 6  # drafts that are drawn together; a Stable Diffusion, far wider, draws one by one
_FINISHED = 3  # of the best drafts that are restored and judged
_EYE_OPENNESS = (0.07, 0.11)  # least and most, in inter-ocular distances
_ON_MESH = 0.06  # largest adherence, in inter-ocular distances, at which a face lies on its mesh
ABLATIONS = ("tia", "texture", "restorer", "reference", "mba", "before")
"""What can be left out: TIA, the plausible face that the restorer is shown, the restorer, SCA's reference,
MBA, and the frame before."""
_CERTAIN = 0.65  # probability from which the caption says woman or man


@dataclass(frozen=True)
class PortraitOptions:
    """How a portrait is drawn.

    Attributes:
        prompt: the user's words.
        steps: of the sampler; None for the model's own.
        guidance: classifier-free guidance; 1 is as trained, None the model's own.
        candidates: portraits to choose the best of.
        without: parts to leave out, of ABLATIONS, for ablations.
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
        adherence: mean distance of the face from the mesh that the LDM was given, over the inter-ocular
            distance; None where the base is given no mesh.
        soundness: how well it is drawn: of a draft as the texture model finds it, of a finished portrait as
            the critic does.
        caption: that the LDM was given.
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
        return (self.adherence or 0.0) < _ON_MESH

    def rank(self) -> tuple[bool, float]:
        """Order of preference: faces on their mesh first, and among these by how well they are drawn."""
        return self.close, self.soundness


class PortraitImaginer:
    """Draws portraits for voices.

    Args:
        base: the frozen LDM.
        adapters: over it; TIA and SCA are used if they are there.
        pad: its embeddings of moods are used.
        face: the 3DMM.
        tracker: finds the face in each portrait.
        critic: chooses among portraits.
        dtype: of the LDM's arithmetic.

    Attributes:
        trusting: whether the mesh that was asked for is believed where no face is seen: only random networks
            need that.
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
        self.dtype, self.trusting = dtype, False
        self.base, self.adapters, self.face, self.tracker = base, adapters, face, tracker
        self.critic = critic
        self.moods = pad.emotion.embedding.weight.detach()
        self.device = next(base.model.parameters()).device
        self.warp = face.mesh_warp()

    def __call__(self, speaker: Speaker, mood: np.ndarray, seed: int, options: PortraitOptions) -> Imagined:
        """Draw a portrait, the best of some candidates.

        Args:
            speaker: inferred from the voice.
            mood: (8,) probabilities of EMOTIONS.
            seed: another one gives another person.
            options: how it is drawn.

        Raises:
            NoFaceFound: no candidate shows a face.
        """
        generator = np.random.default_rng(seed)
        mesh = resting_mesh(self.face, speaker, generator, self.base.pixels)
        person = draw_person(speaker, generator)
        hair = draw_hair(person, options.prompt, generator)
        caption = self._caption(person, options.prompt, hair)
        text_embeddings, ignored = self._text_embeddings(person, mood, caption, options)
        drafts: list[Imagined] = []
        tried, enough = 0, options.candidates
        while tried < enough:
            count = min(_DRAFT_BATCH if self.base.compact else 1, enough - tried)
            noise = torch.cat([self._noise(speaker, generator) for _ in range(count)])
            for image in self._draw(text_embeddings, mesh, noise, options):
                found = self._check(image, mesh, caption, ignored)
                drafts += [replace(found, soundness=self._soundness(found, mesh))] if found else []
            tried += count
            if tried == enough and not any(draft.close for draft in drafts):
                enough = min(enough + 1, _MOST_TRIES)
        if not drafts:
            raise NoFaceFound(
                f"no face came out of {_MOST_TRIES} tries with seed={seed}; choose another seed or prompt"
            )
        drafts.sort(key=Imagined.rank, reverse=True)
        finished = [self._finished(draft, mesh, options) for draft in drafts[:_FINISHED]]
        return replace(max(finished, key=Imagined.rank), tries=tried)

    # -- captions ----------------------------------------------------------------------------------

    def _caption(self, person: Speaker, prompt: str, hair: str) -> str:
        """A caption of the person, with the user's words at its end."""
        words = voice_words(person, prompt)
        if self.base.compact:
            return ", ".join(filter(None, [*words, hair, prompt.strip()]))
        subject = " ".join(["a", *(words or ["person"])])
        parts = [f"portrait photo of {subject}", hair, prompt.strip(), "looking at the camera"]
        return ", ".join(filter(None, parts))

    def _text_embeddings(
        self, speaker: Speaker, mood: np.ndarray, caption: str, options: PortraitOptions
    ) -> tuple[Tensor, list[str]]:
        """Text embeddings (1, L, C) of a caption, and its words that were ignored.

        They hold the voice's pseudo-words, unless the prompt contradicts the voice.
        """
        model, tia = self.base.model, self.adapters.tia
        if tia is None or "tia" in options.without or contradicts(speaker, options.prompt):
            return self.base.embed_prompt(caption)
        tokens = model.tokenize(caption, voice=True)
        ids = torch.from_numpy(tokens.ids)[None].to(self.device)
        semantic = torch.from_numpy(speaker.semantic).float()[None].to(self.device)
        emotion = self._smile(mood).to(self.device)
        with torch.inference_mode():
            words = with_pseudo_words(model.text.embed(ids), ids, tia(semantic, emotion), model.pseudo_words)
            return model.text(words), tokens.ignored

    def _smile(self, mood: np.ndarray) -> Tensor:
        """Embedding (1, E) of a mood between neutral and happy: TIA was trained on these two."""
        happy = float(mood[EMOTIONS.index("happy")])
        plain, smiling = (self.moods[EMOTIONS.index(name)] for name in ("neutral", "happy"))
        return ((1 - happy) * plain + happy * smiling)[None]

    # -- drawing -----------------------------------------------------------------------------------

    def _noise(self, speaker: Speaker, generator: np.random.Generator) -> Tensor:
        """Noise (1, 4, h, w): a random projection of the voice's embedding.

        With one seed, two recordings of one voice have similar noise, and other voices have other noise. The
        noise of two seeds is independent.
        """
        side = self.base.pixels // LATENT_FACTOR
        voice = speaker.semantic / max(float(np.linalg.norm(speaker.semantic)), 1e-6)
        if not voice.any():  # the embedding is unknown: any unit vector will do
            voice = np.eye(len(voice))[0]
        noise = np.tensordot(voice, generator.standard_normal((len(voice), 1, 4, side, side)), 1)
        return torch.from_numpy(noise.astype(np.float32)).to(self.device)

    @torch.inference_mode()
    def _draw(
        self, text_embeddings: Tensor, mesh: np.ndarray, noise: Tensor, options: PortraitOptions
    ) -> np.ndarray:
        """Pictures (B, H, W, 3) uint8 of noise (B, 4, h, w)."""
        model = self.base.model
        drawing = self.drawing(mesh)
        seen = model.encode_mesh(drawing)
        if seen is not None:
            seen = seen.expand(len(noise), -1, -1, -1)
        guidance = default_guidance(model) if options.guidance is None else options.guidance
        steps = options.steps or default_steps(model)
        velocity = guided(model, text_embeddings, seen, guidance, self._control(drawing, mesh))
        latents = sample(in_dtype(velocity, self.dtype), noise, steps, shift=TIMESTEP_SHIFT)
        latents = restore_spectrum(latents, model.config.spectrum)
        picture = self.base.autoencoder.decode(latents).permute(0, 2, 3, 1)
        images: np.ndarray = (picture * 255).round().byte().cpu().numpy()
        return images

    @torch.inference_mode()
    def _finished(self, drawn: Imagined, mesh: np.ndarray, options: PortraitOptions) -> Imagined:
        """A draft, restored if the base has a restorer, with the critic's score."""
        found: Imagined | None = None
        if self.base.restorer is not None and "restorer" not in options.without:
            plausible = "texture" not in options.without
            image = self.base.restore(drawn.image, mesh, self.drawing(mesh), plausible)
            found = self._check(image, mesh, drawn.caption, drawn.ignored)
            if found is None:
                logger.warning("a restored portrait shows no face; the LDM's own is taken")
        found = found or drawn
        return replace(found, soundness=self.critic.judge(found.image, found.points))

    def _soundness(self, draft: Imagined, mesh: np.ndarray) -> float:
        """How well a draft is drawn: how plausible its face is, or else how alike its eyes are."""
        if self.base.texture is None:
            return eye_likeness(draft.image, draft.points)
        return -self.base.texture.strangeness(draft.image, mesh)

    def drawing(self, mesh: np.ndarray) -> Tensor:
        """Drawing (1, 6, H/2, W/2) of a mesh (478, 3) in pixels of the base's pictures."""
        pixels = self.base.pixels
        return torch.from_numpy(draw_mesh(self.warp, mesh, pixels, pixels // 2))[None].to(self.device)

    def _control(self, drawing: Tensor, mesh: np.ndarray) -> Control | None:
        """SCA, for a base without a mesh encoder."""
        sca = self.adapters.sca
        if self.base.compact or sca is None:
            return None
        side = self.base.pixels // LATENT_FACTOR
        nothing = torch.zeros(1, 4, side, side, device=self.device)
        hidden = torch.from_numpy(hidden_cells(mesh, side, self.base.pixels))[None].to(self.device)
        known = torch.zeros(1, 2, device=self.device)
        condition = SpatialCondition(drawing, nothing, nothing, hidden, known)
        return lambda given, step, text: sca(given, step, text, condition.expanded(len(given)))

    # -- choosing ------------------------------------------------------------------------------------

    def _check(
        self, image: np.ndarray, mesh: np.ndarray, caption: str, ignored: list[str]
    ) -> Imagined | None:
        """The portrait with its tracked mesh; None if there is no face in it."""
        meshes: list[FaceMesh] = self.tracker.track_image(image)
        if not meshes and not self.trusting:
            return None
        points = meshes[0].points if meshes else mesh
        apart = adherence(points, mesh) if self.base.compact or self.adapters.sca else None
        return Imagined(image, points, apart, 0.0, caption, ignored)


def resting_mesh(
    face: FaceModel, speaker: Speaker, generator: np.random.Generator, pixels: int
) -> np.ndarray:
    """A mesh (478, 3) at rest, with a shape and a pose that are drawn at random.

    Args:
        face: the 3DMM.
        speaker: whose expected shape and spread the shape is drawn from.
        generator: draws shape and pose.
        pixels: side of the picture in whose pixels the mesh is.
    """
    spread = _SHAPE_SPREAD * speaker.shape_spread
    alpha = speaker.shape + spread * generator.standard_normal(len(speaker.shape))
    neutral = with_open_eyes(face, face.mean + np.tensordot(alpha.astype(np.float32), face.identity, 1))
    turn = Rotation.from_rotvec(_POSE_SPREAD * generator.standard_normal(3)).as_matrix()
    points: np.ndarray = (neutral @ turn.T).astype(np.float32)
    points *= pixels / (PORTRAIT_SIDE * face_unit(points))
    middle = np.array([(pixels - 1) / 2, PORTRAIT_NOSE[1] * pixels], np.float32)
    points[:, :2] += middle - points[tp.NOSE_TIP, :2]
    return points


def with_open_eyes(face: FaceModel, neutral: np.ndarray) -> np.ndarray:
    """A canonical face (478, 3), changed so that its eyes are neither closed nor wide open."""
    lids = face.eyelids()
    now = float(tp.eye_openness(neutral).mean())
    beta = lids.gap * (float(np.clip(now, *_EYE_OPENNESS)) - now) / np.square(lids.gap).sum()
    opened: np.ndarray = neutral + np.tensordot(beta, face.upper, 1).astype(np.float32)
    return opened


def adherence(found: np.ndarray, mesh: np.ndarray) -> float:
    """Mean distance of two meshes (478, 2 or 3) of a picture, over the inter-ocular distance."""
    apart = np.linalg.norm((found[:, :2] - mesh[:, :2])[: tp.FACE_VERTICES], axis=1).mean()
    return float(apart / tp.inter_ocular(mesh))


def voice_words(speaker: Speaker, prompt: str) -> list[str]:
    """Words for the sex and age that PAD infers, unless a prompt says something of them."""
    said = set(known_words(prompt))
    uncertain = max(speaker.male, 1 - speaker.male) < _CERTAIN
    male = None if said & {"woman", "man"} or uncertain else speaker.male
    age = None if said & set(AGE_WORDS) else speaker.age
    return phrases(Attributes(male=male, age=age))


def contradicts(speaker: Speaker, prompt: str) -> bool:
    """Whether a prompt asks for another sex than PAD infers."""
    said = set(known_words(prompt))
    return bool(said & {"woman"} and speaker.male > 0.5) or bool(said & {"man"} and speaker.male < 0.5)
