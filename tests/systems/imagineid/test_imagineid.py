"""ImagineID: what is heard, the stages of PAD and the adapters of CCF, on tiny models."""

from dataclasses import replace

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import RATE
from talkface.diffusion.autoencoder import FaceAutoencoder
from talkface.diffusion.captions import PSEUDO_WORDS, tokenize
from talkface.diffusion.model import FaceDiffusion
from talkface.face.draw import MESH_CHANNELS, MESH_PIXELS
from talkface.face.model import FaceModel
from talkface.face.tracker import FaceTracker
from talkface.speech.features import SAMPLES_PER_FEATURE, ContentEncoder, FeatureStream
from talkface.systems.imagineid.ccf import (
    MaskBlendingAdapter,
    SpatialCondition,
    SpatialConditionalAdapter,
    TextualInversionAdapter,
    decode_blended,
    with_pseudo_words,
)
from talkface.systems.imagineid.config import EMOTIONS, CcfConfig
from talkface.systems.imagineid.losses import gaussian, voice_to_face
from talkface.systems.imagineid.pad import Pad, Speech
from talkface.systems.imagineid.pad_input import PROSODY, pad_input
from talkface.systems.imagineid.reference_warp import hidden_cells, move_portrait

# -- hearing ---------------------------------------------------------------------------------------


@given(st.integers(1, 3 * RATE))
def test_as_much_is_heard_as_there_is(count: int) -> None:
    stream = FeatureStream(ContentEncoder.debug())
    found = pad_input(np.random.default_rng(0).normal(0, 0.1, count).astype(np.float32), stream)
    frames = -(-count // SAMPLES_PER_FEATURE)
    assert len(found) == frames
    assert found.content.shape == (frames, 16)
    assert found.prosody.shape == (frames, PROSODY)
    assert np.isfinite(found.prosody).all()


# -- PAD -------------------------------------------------------------------------------------------


def speech_of(batch: int, count: int, content: int = 16) -> Speech:
    return Speech(
        torch.randn(batch, count, content), -20 * torch.rand(batch, count), torch.randn(batch, count, PROSODY)
    )


@settings(max_examples=30)
@given(st.integers(4, 60))
def test_stages_fit_together(pairs: int) -> None:
    pad, count = Pad.debug(), 2 * pairs
    speech = speech_of(2, count)
    with torch.no_grad():
        told = pad.identity(speech)
        mouth = pad.content.mean(speech, told.code())
        logits = pad.emotion.logits(speech, told.code(), mouth)
        upper, more = pad.emotion.express(logits.softmax(-1))
    torch.testing.assert_close(told.semantic.norm(dim=1), torch.ones(2))
    assert (told.shape_spread > 0).all()
    assert (told.age_spread > 0).all()
    assert mouth.shape == (2, pairs, 28)
    assert logits.shape == (2, logits.shape[1], len(EMOTIONS))
    assert abs(logits.shape[1] - count / 4) < 1
    assert upper.shape == (*logits.shape[:2], 16)
    assert more.shape == (*logits.shape[:2], 28)


def test_a_neutral_voice_has_no_expression() -> None:
    pad = Pad.debug()
    upper, mouth = pad.emotion.express(torch.eye(len(EMOTIONS))[:1])
    assert not upper.any()
    assert not mouth.any()


def test_likelihood_is_best_at_the_truth() -> None:
    value = torch.tensor([1.0, -2.0])
    spread = torch.full((2,), 0.5)
    at, beside = gaussian(value, value, spread), gaussian(value, value + 0.3, spread)
    assert at < beside
    assert gaussian(value, value + 0.5, spread) < gaussian(value, value + 0.5, spread / 4)


def test_contrast_leaves_pictures_of_the_same_person_alone() -> None:
    voices = torch.nn.functional.normalize(torch.randn(3, 4), dim=1)
    faces = voices.clone()
    faces[2] = faces[1]
    apart, together = torch.eye(3, dtype=torch.bool), torch.eye(3, dtype=torch.bool)
    together[1, 2] = together[2, 1] = True
    factor = torch.tensor(10.0)
    voices[2] = voices[1]
    assert voice_to_face(voices, faces, factor, together) < voice_to_face(voices, faces, factor, apart)


# -- CCF -------------------------------------------------------------------------------------------


def test_pseudo_words_stand_where_their_tokens_are() -> None:
    model = FaceDiffusion.debug()
    adapter = TextualInversionAdapter(CcfConfig(semantic=8, emotion=4, hidden=16), model.config.text)
    ids = torch.from_numpy(tokenize("man, beard", PSEUDO_WORDS).ids)[None]
    with torch.no_grad():
        pseudo = adapter(torch.randn(1, 8), torch.randn(1, 4))
        words = model.text.embed(ids)
        found = with_pseudo_words(words, ids, pseudo, model.pseudo_words)
    assert pseudo.shape == (1, len(PSEUDO_WORDS), model.config.text)
    torch.testing.assert_close(found[:, 1 : 1 + len(PSEUDO_WORDS)], pseudo)
    torch.testing.assert_close(found[:, 0], words[:, 0])
    torch.testing.assert_close(found[:, 1 + len(PSEUDO_WORDS) :], words[:, 1 + len(PSEUDO_WORDS) :])


def a_condition(batch: int = 1) -> SpatialCondition:
    return SpatialCondition(
        torch.rand(batch, MESH_CHANNELS, MESH_PIXELS, MESH_PIXELS),
        torch.randn(batch, 4, 32, 32),
        torch.randn(batch, 4, 32, 32),
        torch.ones(batch, 1, 32, 32),
        torch.ones(batch, 2),
    )


def test_spatial_adapter_begins_without_effect_and_sees_only_what_is_known() -> None:
    torch.manual_seed(0)
    model = FaceDiffusion.debug()
    adapter, condition = SpatialConditionalAdapter(model.config, model), a_condition()
    noisy, time = torch.randn(1, 4, 32, 32), torch.tensor([0.5])
    with torch.no_grad():
        text_embeddings = model.encode_text(torch.from_numpy(tokenize("").ids)[None])
        mesh = model.encode_mesh(condition.drawing)
        plain = model(noisy, time, text_embeddings, mesh)
        control = adapter(*model.inputs(noisy, time, mesh), text_embeddings, condition)
        torch.testing.assert_close(model(noisy, time, text_embeddings, mesh, **control), plain)
        for parameter in adapter.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))

        def shown(condition: SpatialCondition) -> torch.Tensor:
            control = adapter(*model.inputs(noisy, time, mesh), text_embeddings, condition)
            return model(noisy, time, text_embeddings, mesh, **control)

        assert (shown(condition) != plain).any()
        hidden = replace(condition, known=torch.zeros(1, 2))
        other = replace(hidden, reference=torch.randn(1, 4, 32, 32), before=torch.randn(1, 4, 32, 32))
        torch.testing.assert_close(shown(hidden), shown(other))
        assert (shown(condition) != shown(replace(condition, reference=-condition.reference))).any()


def test_blending_adapter_keeps_the_background() -> None:
    torch.manual_seed(0)
    autoencoder = FaceAutoencoder.debug()
    adapter = MaskBlendingAdapter([8, 8, 8])
    face, background = torch.randn(2, 1, 4, 8, 8)
    mask = torch.zeros(1, 1, 64, 64)
    with torch.no_grad():
        mask[..., 24:40, 24:40] = 1
        found = decode_blended(autoencoder, adapter, face, background, mask)
        own, beside = autoencoder.decode(face), autoencoder.decode(background)
        torch.testing.assert_close(found[..., :6, :], beside[..., :6, :])
        assert (found[..., 30:34, 30:34] - own[..., 30:34, 30:34]).abs().mean() < (
            found[..., 30:34, 30:34] - beside[..., 30:34, 30:34]
        ).abs().mean()
        torch.testing.assert_close(
            decode_blended(autoencoder, adapter, face, background, torch.ones_like(mask)), own
        )


def test_moved_portrait_has_the_other_face(talking_frames: list[np.ndarray]) -> None:
    face, tracker = FaceModel.from_pretrained(), FaceTracker()
    one, other = (tracker.track_image(talking_frames[k])[0].points for k in (0, 40))
    neutral = face.fit(one[None]).neutral
    moved = move_portrait(talking_frames[0], one, other, neutral, face.mesh_warp())
    found = tracker.track_image(moved)[0].points
    apart = [np.linalg.norm((found - mesh)[:, :2], axis=1).mean() for mesh in (one, other)]
    assert apart[1] < 0.5 * apart[0]
    corner = np.s_[:20, :20]
    np.testing.assert_array_equal(moved[corner], talking_frames[0][corner])
    same = move_portrait(talking_frames[0], one, one, neutral, face.mesh_warp())
    assert np.abs(same.astype(int) - talking_frames[0]).mean() < 1
    cells = hidden_cells(other)
    assert cells.shape == (1, 32, 32)
    assert 0.05 < cells.mean() < 0.6
