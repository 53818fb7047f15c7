"""G4G: the generator and the sync expert, on tiny models."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from generator_samples import TINY_GENERATOR, random_inputs
from talkface.systems.g4g.config import PAPER
from talkface.systems.g4g.drawing import MOUTH_CROP_PIXELS
from talkface.systems.g4g.experts import SYNC_CROP_PIXELS, SyncExpert, SyncExpertConfig
from talkface.systems.g4g.losses import diagonal_alignment
from talkface.systems.g4g.model import Generator, GeneratorInputs, GeneratorOutput


def total(drawn: GeneratorOutput, given: GeneratorInputs) -> Tensor:
    """A loss of everything that is drawn."""
    parts = [drawn.picture(given.seeds, given.context), *drawn.scales, drawn.visual, drawn.audio]
    return sum((part.square().mean() for part in parts), torch.zeros(()))


# -- networks --------------------------------------------------------------------------------------


def test_what_is_drawn_has_its_shapes_and_ranges() -> None:
    torch.manual_seed(0)
    generator = Generator.debug()
    given = random_inputs(generator.config, 3)
    with torch.no_grad():
        drawn = generator(given)
    assert drawn.weights.shape == (3, 2, MOUTH_CROP_PIXELS, MOUTH_CROP_PIXELS)
    assert drawn.residual.shape == drawn.color.shape == (3, 3, MOUTH_CROP_PIXELS, MOUTH_CROP_PIXELS)
    assert drawn.mask.shape == drawn.alpha.shape == (3, 1, MOUTH_CROP_PIXELS, MOUTH_CROP_PIXELS)
    assert [tuple(scale.shape) for scale in drawn.scales] == [(3, 3, 16, 16), (3, 3, 32, 32)]
    torch.testing.assert_close(drawn.weights.sum(1), torch.ones(3, MOUTH_CROP_PIXELS, MOUTH_CROP_PIXELS))
    for part in (drawn.weights, drawn.mask, drawn.alpha, *drawn.scales):
        assert 0 <= part.min() <= part.max() <= 1
    assert (drawn.alpha[given.hidden == 0] == 0).all()
    assert (drawn.alpha[given.hidden == 1] > 0.5).all()
    for embedding in (drawn.visual, drawn.audio):
        torch.testing.assert_close(embedding.norm(dim=1), torch.ones(3))
    picture = drawn.picture(given.seeds, given.context)
    outside = (given.hidden == 0).expand_as(picture)
    assert torch.equal(picture[outside], given.context[outside])
    assert not torch.allclose(picture[~outside], given.context[~outside])


def test_remembered_references_give_the_same_as_fresh_ones() -> None:
    torch.manual_seed(0)
    generator = Generator.debug()
    given = random_inputs(generator.config, 2)
    bank = given.references.flatten(0, 1)
    order = torch.tensor([[3, 1], [0, 2]])
    with torch.no_grad():
        remembered = [features[order] for features in generator.remember(bank)]
        fresh = generator(replace(given, references=bank[order]))
        kept = generator(given, remembered)
    for name in ("weights", "residual", "color", "mask", "alpha", "visual"):
        torch.testing.assert_close(getattr(kept, name), getattr(fresh, name))


@pytest.mark.parametrize("switch", ["intra_modal", "fusion", "seeded"])
def test_ablations_build_run_and_differ(switch: str) -> None:
    torch.manual_seed(0)
    config = replace(TINY_GENERATOR, **{switch: False})
    generator = Generator(config).train()
    given = random_inputs(config, 1)
    drawn = generator(given)
    total(drawn, given).backward()
    if switch == "fusion":
        assert generator.fusion is None
        assert torch.equal(drawn.alpha, given.hidden)
    if switch == "intra_modal":  # the face is not seen in the mesh's terms
        other = replace(given, mesh=given.mesh + 1)
        with torch.no_grad():
            faces = [Generator.see(generator, i.context, i.hidden, i.maps, i.mesh) for i in (given, other)]
        assert torch.equal(faces[0][0][-1], faces[1][0][-1])
        assert not torch.equal(faces[0][1], faces[1][1]), "but the decoder is told"


def test_one_scale_builds_and_runs() -> None:
    config = replace(TINY_GENERATOR, scales=1)
    generator = Generator(config)
    assert len(generator.transforms) == 1
    assert torch.isfinite(generator(random_inputs(config, 1)).color).all()


def test_gradients_reach_every_part() -> None:
    torch.manual_seed(0)
    generator = Generator.debug().train()
    for parameter in generator.parameters():  # parts that begin as zeros let nothing through at first
        torch.nn.init.normal_(parameter, std=0.1)
    given = random_inputs(generator.config)
    drawn = generator(given)
    clip, frame = torch.zeros(2, dtype=torch.long), torch.tensor([0, 40])
    aligned = diagonal_alignment(drawn.visual, drawn.audio, generator.temperature, clip, frame)
    (total(drawn, given) + aligned).backward()
    without = [n for n, p in generator.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


@pytest.mark.parametrize("visual", ["stacked", "recurrent"])
def test_expert_embeds_windows_of_five_frames(visual: str) -> None:
    torch.manual_seed(0)
    config = SyncExpertConfig(visual=visual, content=16, widths=(8, 8, 8, 8), audio=16, embedding=16)
    expert = SyncExpert(config).eval()
    mouths = torch.rand(2, 9, 3, SYNC_CROP_PIXELS, SYNC_CROP_PIXELS)
    with torch.no_grad():
        video = expert.embed_video(mouths)
        audio = expert.embed_audio(torch.randn(2, 18, 16), -torch.rand(2, 18))
        looked, seen = expert.embed_with_features(mouths[:, 2:7])
        apart = expert.embed_video(mouths, 2)
    assert video.shape == audio.shape == (2, 5, 16)
    torch.testing.assert_close(looked, video[:, 2])
    torch.testing.assert_close(apart, video[:, ::2])
    assert len(seen) >= 4
    logits = expert.logits(video[0], audio[0])
    assert logits.shape == (5, 5)
    assert (logits <= 0).all()
    assert (expert.logits(video[0], video[0]).argmax(1) == torch.arange(5)).all()


def test_paper_preset_has_its_size() -> None:
    with torch.device("meta"):
        generator = Generator(PAPER)
    count = sum(parameter.numel() for parameter in generator.parameters())
    assert count == pytest.approx(60.3e6, rel=0.01)
    narrow = replace(PAPER, content=16, code=16, embedding=16, widths=(8, 12, 16, 16))
    torch.manual_seed(0)
    generator = Generator(narrow)
    given = random_inputs(narrow, 1)
    assert given.context.shape[-1] == 256
    drawn = generator(given)
    assert [scale.shape[-1] for scale in drawn.scales] == [16, 32, 64]
    before = total(drawn, given)
    before.backward()
    optimizer = torch.optim.Adam(generator.parameters(), 1e-3)
    optimizer.step()
    with torch.no_grad():
        assert total(generator(given), given) < 0.99 * before


# -- geometry --------------------------------------------------------------------------------------


# -- trainings -------------------------------------------------------------------------------------
