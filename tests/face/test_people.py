"""Who is in a video: finding people, following them in a stream, and hearing who speaks."""

import itertools
from collections.abc import Callable, Iterable, Iterator

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import talkface
from talkface.errors import NoFaceFound
from talkface.face import topology as tp
from talkface.face.crop import face_unit
from talkface.face.model import FaceModel, Pose
from talkface.face.motion import FaceMotion
from talkface.face.people import Follower, Sighting, VideoPeople, scan, speaking
from talkface.face.people.appearance import Appearance, AppearanceModel
from talkface.face.people.search import face_height
from talkface.face.people.shots import number_shots
from talkface.face.people.smoothing import PosedFace, smooth
from talkface.face.tracker import FaceTracker
from talkface.face.warp import move_ring, with_ring
from talkface.media.decode import Frame
from talkface.media.image import load_image

Followed = list[tuple[Frame, dict[int, Sighting]]]
GREY = 90


@pytest.fixture(scope="module")
def tracker() -> FaceTracker:
    return FaceTracker()


@pytest.fixture(scope="module")
def anna() -> list[np.ndarray]:
    """Head and shoulders of the portrait, speaking for two seconds: 50 frames (260, 260, 3)."""
    video = talkface.animate(talkface.example_portrait(), talkface.example_speech(), size=384, seed=1)[0]
    return [np.ascontiguousarray(frame[:200, 70:270]) for frame in itertools.islice(video, 50)]


@pytest.fixture(scope="module")
def berta(anna: list[np.ndarray]) -> list[np.ndarray]:
    """Somebody else, who says the same backwards."""
    return [somebody_else(image) for image in reversed(anna)]


def somebody_else(image: np.ndarray) -> np.ndarray:
    """Mirrored, longer, darker, bearded, with dark hair and in other clothes."""
    height, width = image.shape[:2]
    dark = 255 * (image[:, ::-1] / 255.0) ** 1.7 * [1.0, 0.8, 0.65]
    y, x = np.mgrid[:height, :width]
    mouth = np.hypot((x / width - 0.48) / 0.17, (y / height - 0.54) / 0.14)
    dark[(mouth > 0.6) & (mouth < 1) & (y > 0.47 * height)] *= 0.4
    dark[y < 0.3 * height] *= 0.3
    dark[y > 0.7 * height] = dark[y > 0.7 * height][:, [2, 1, 0]] * 0.5
    return cv2.resize(dark.astype(np.uint8), (round(0.86 * width), height))


def stage(*parts: tuple[np.ndarray, int, int], size: tuple[int, int] = (640, 360)) -> np.ndarray:
    """A grey picture with others put into it, each with its left upper corner x, y, perhaps outside."""
    canvas = np.full((size[1], size[0], 3), GREY, np.uint8)
    for image, x, y in parts:
        height, width = image.shape[:2]
        left, top = max(0, x), max(0, y)
        right, bottom = min(size[0], x + width), min(size[1], y + height)
        if right > left and bottom > top:
            canvas[top:bottom, left:right] = image[top - y : bottom - y, left - x : right - x]
    return canvas


def video(pictures: Iterable[np.ndarray], fps: float = 25.0) -> list[Frame]:
    return [Frame(picture, number / fps) for number, picture in enumerate(pictures)]


def follow(
    frames: list[Frame],
    tracker: FaceTracker,
    face: FaceModel,
    persons: VideoPeople | None = None,
    **options: float,
) -> Followed:
    persons = persons or scan(frames[::5], tracker, face)
    followed = list(Follower(tracker, persons, **options).follow(iter(frames)))
    assert [frame.time for frame, _ in followed] == [frame.time for frame in frames]
    assert all(given is frame for (given, _), frame in zip(followed, frames, strict=True))
    return followed


def centre(sighting: Sighting) -> np.ndarray:
    return sighting.points[tp.RIGID, :2].mean(0)


def seen(followed: Followed, number: int = 0) -> list[bool]:
    return [number in sightings for _, sightings in followed]


# -- scan ----------------------------------------------------------------------------------------


def test_people_are_told_apart_over_cuts(
    tracker: FaceTracker, face: FaceModel, anna: list[np.ndarray], berta: list[np.ndarray]
) -> None:
    shots = [stage((anna[0], 40, 80)), stage((berta[5], 300, 60)), stage((anna[20], 380, 100))]
    looked_at = video(shot for shot in shots for _ in range(3))
    persons = scan(looked_at, tracker, face)
    assert [len(person.times) for person in persons.people] == [6, 3]
    main, other = persons.people
    assert (main.number, other.number) == (0, 1)
    assert main.share == pytest.approx(6 / 9)
    np.testing.assert_allclose(other.times, [3 / 25, 4 / 25, 5 / 25])
    assert (np.diff(main.times) > 0).all()
    assert main.points.shape == (6, 478, 3)
    assert main.size[0] <= face_height(main.points[0]) <= main.size[1]
    assert other.box[0] > 300
    assert max(map(abs, (*main.yaw, *main.pitch, *main.roll))) < 30
    np.testing.assert_allclose(main.openings, tp.aperture(main.points))
    lips = main.neutral[list(tp.INNER_LIPS), 1]
    assert abs(lips[1] - lips[0]) < 0.03, "a mouth at rest is closed"


def test_the_larger_face_comes_first_of_people_in_one_frame(
    tracker: FaceTracker, face: FaceModel, anna: list[np.ndarray], berta: list[np.ndarray]
) -> None:
    large = cv2.resize(berta[0], None, fx=1.6, fy=1.6)
    persons = scan(video([stage((anna[0], 0, 80), (large, 320, 20))] * 3), tracker, face)
    assert [len(person.times) for person in persons.people] == [3, 3]
    assert persons[0].box[0] > persons[1].box[2]
    assert persons[0].size[0] > 1.15 * persons[1].size[1]


def test_nobody_is_refused_in_one_line(tracker: FaceTracker, face: FaceModel) -> None:
    with pytest.raises(NoFaceFound) as error:
        scan(video([stage()] * 3), tracker, face)
    assert "\n" not in str(error.value)
    with pytest.raises(NoFaceFound):
        scan([], tracker, face)


@pytest.mark.parametrize(
    ("height", "size"), [(40, (1920, 1080)), (45, (3840, 2160)), (800, (1920, 1080)), (1500, (3840, 2160))]
)
def test_small_and_huge_faces_are_found_and_followed(
    tracker: FaceTracker, face: FaceModel, anna: list[np.ndarray], height: int, size: tuple[int, int]
) -> None:
    own = face_height(tracker.track_image(anna[0])[0].points)
    scaled = cv2.resize(anna[0], None, fx=height / own, fy=height / own, interpolation=cv2.INTER_AREA)
    x, y = [(whole - part) // 2 for whole, part in zip(size, scaled.shape[1::-1], strict=True)]
    frames = video([stage((scaled, x, y), size=size)] * 2)
    persons = scan(frames[:1], tracker, face)
    assert persons[0].size[0] == pytest.approx(height, rel=0.1)
    assert all(seen(follow(frames, tracker, face, persons)))


# -- follow --------------------------------------------------------------------------------------


def test_people_keep_their_numbers_over_cuts_and_nothing_is_smoothed_across(
    tracker: FaceTracker, face: FaceModel, anna: list[np.ndarray], berta: list[np.ndarray]
) -> None:
    first = [stage((image, 40, 100)) for image in anna[:15]]
    second = [stage((image, 330, 60)) for image in berta[:15]]
    third = [stage((cv2.resize(image, None, fx=1.3, fy=1.3), 200, 40)) for image in anna[15:30]]
    frames = video(first + second + third)
    persons = scan(frames[::3], tracker, face)
    assert len(persons) == 2
    followed = follow(frames, tracker, face, persons)
    for index, (_, sightings) in enumerate(followed):
        assert list(sightings) == [1 if 15 <= index < 30 else 0]
        assert all(s.shot == index // 15 and s.found and s.usable for s in sightings.values())
    alone = follow(video(third), tracker, face, persons)
    for (_, whole), (_, part) in zip(followed[30:], alone, strict=True):
        np.testing.assert_allclose(whole[0].points, part[0].points, atol=0.02)


def test_two_people_cross(
    tracker: FaceTracker, face: FaceModel, anna: list[np.ndarray], berta: list[np.ndarray]
) -> None:
    frames = video(stage((berta[k], 400 - 9 * k, 110), (anna[k], 20 + 9 * k, 60)) for k in range(45))
    persons = scan(frames[::5], tracker, face)
    left = 0 if persons[0].points[0, :, 0].mean() < persons[1].points[0, :, 0].mean() else 1
    followed = follow(frames, tracker, face, persons)
    for index, (_, sightings) in enumerate(followed):
        if index < 12 or index >= 36:
            assert set(sightings) == {0, 1}
            right_of = centre(sightings[left])[0] > centre(sightings[1 - left])[0]
            assert right_of == (index >= 36)
        if left in sightings and 1 - left in sightings:
            apart = np.linalg.norm(centre(sightings[0]) - centre(sightings[1]))
            assert apart > 20, "both numbers are on one face"


@pytest.mark.parametrize(("frames_lost", "filled"), [(1, True), (5, True), (8, False)])
def test_short_gaps_are_filled_and_long_ones_are_not(
    tracker: FaceTracker, face: FaceModel, anna: list[np.ndarray], frames_lost: int, filled: bool
) -> None:
    pictures = [stage((image, 40 + 2 * k, 80)) for k, image in enumerate(anna[:40])]
    truth = follow(video(pictures), tracker, face)
    persons = scan(video(pictures)[:5], tracker, face)
    lost = range(16, 16 + frames_lost)
    for k in lost:
        pictures[k] = cv2.GaussianBlur(pictures[k], (0, 0), 12)
    followed = follow(video(pictures), tracker, face, persons)
    assert seen(followed) == [filled or k not in lost for k in range(40)]
    for k in lost if filled else ():
        sighting = followed[k][1][0]
        assert not sighting.found
        assert np.linalg.norm(centre(sighting) - centre(truth[k][1][0])) < 3


def test_a_flash_is_no_cut_and_nobody_is_drawn_into_it(
    tracker: FaceTracker, face: FaceModel, anna: list[np.ndarray]
) -> None:
    pictures = [stage((image, 200, 80)) for image in anna[:30]]
    pictures[12] = np.full_like(pictures[12], 255)
    followed = follow(video(pictures), tracker, face)
    assert seen(followed) == [k != 12 for k in range(30)]
    assert {s.shot for _, sightings in followed for s in sightings.values()} == {0}


def test_somebody_comes_and_goes(tracker: FaceTracker, face: FaceModel, anna: list[np.ndarray]) -> None:
    frames = video(stage((anna[k], -220 + 24 * k, 80)) for k in range(45))
    inside = [0 <= -220 + 24 * k <= 440 for k in range(45)]
    outside = [not -130 <= -220 + 24 * k <= 570 for k in range(45)]
    found = seen(follow(frames, tracker, face))
    assert all(here for here, whole in zip(found, inside, strict=True) if whole)
    assert not any(here for here, gone in zip(found, outside, strict=True) if gone)


@pytest.mark.parametrize("first", [9, 12, 15])
def test_somebody_who_appears_is_seen_from_the_first_frame(
    tracker: FaceTracker, face: FaceModel, anna: list[np.ndarray], first: int
) -> None:
    small = [cv2.resize(image, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA) for image in anna[:25]]
    frames = video(stage((small[k], 250 if k >= first else 640, 120)) for k in range(25))
    followed = follow(frames, tracker, face, scan(frames[-2:], tracker, face))
    assert seen(followed) == [k >= first for k in range(25)]
    assert followed[-1][1][0].shot == 0, "no cut: the frames before are looked at again"


def test_strangers_and_others_are_left_alone(
    tracker: FaceTracker, face: FaceModel, anna: list[np.ndarray], berta: list[np.ndarray]
) -> None:
    both = video(stage((anna[k], 20, 80), (berta[k], 380, 80)) for k in range(20))
    only_anna = scan(video([stage((anna[0], 20, 80))]), tracker, face)
    followed = follow(both, tracker, face, only_anna)
    assert all(list(sightings) == [0] for _, sightings in followed)
    assert all(centre(sightings[0])[0] < 320 for _, sightings in followed)
    persons = scan(both[:2], tracker, face)
    chosen = list(Follower(tracker, persons, [1]).follow(both))
    assert all(list(sightings) == [1] for _, sightings in chosen)


@pytest.mark.parametrize("fps", [25, 60])
def test_few_frames_are_held(tracker: FaceTracker, face: FaceModel, anna: list[np.ndarray], fps: int) -> None:
    taken = 0

    def frames() -> Iterator[Frame]:
        nonlocal taken
        for frame in video((stage((anna[k % 50], 200, 80)) for k in range(2 * fps)), fps):
            taken += 1
            yield frame

    persons = scan(video([stage((anna[0], 200, 80))]), tracker, face)
    held = [taken - given for given, _ in enumerate(Follower(tracker, persons).follow(frames()))]
    assert max(held) <= 0.6 * fps
    assert taken == 2 * fps


def test_odd_videos(tracker: FaceTracker, face: FaceModel, anna: list[np.ndarray]) -> None:
    pictures = [stage((image, 200, 80)) for image in anna[:12]]
    persons = scan(video(pictures[:1]), tracker, face)
    assert list(Follower(tracker, persons).follow([])) == []
    assert seen(follow(video(pictures[:1]), tracker, face, persons)) == [True]
    forward = follow(video(pictures), tracker, face, persons)
    backward = follow(video(pictures)[::-1], tracker, face, persons)
    for (_, one), (_, two) in zip(forward, reversed(backward), strict=True):
        assert np.abs(one[0].points - two[0].points)[tp.RIGID].max() < 1.5
    uneven = [
        Frame(picture, time)
        for picture, time in zip(pictures, np.cumsum(np.tile([0.02, 0.3], 6)), strict=True)
    ]
    assert all(seen(follow(uneven, tracker, face, persons)))
    shortest = list(Follower(tracker, persons, look_ahead=0.0).follow(video(pictures)))
    assert all(seen(shortest))


def test_a_face_that_turns_away_is_flagged_without_flicker(tracker: FaceTracker, face: FaceModel) -> None:
    portrait = load_image(talkface.example_portrait())
    turn = turner(portrait, tracker, face)
    waver = 56 + 4 * np.sin(np.arange(36) / 12 * 2 * np.pi)
    angles = [*range(0, 60, 4), *waver, *range(58, -1, -4)]
    frames = video(turn(angle) for angle in angles)
    persons = scan(frames[:3], tracker, face)
    followed = follow(frames, tracker, face, persons, turned=np.radians(55))
    sightings = [sightings[0] for _, sightings in followed]
    usable = [sighting.usable for sighting in sightings]
    assert usable[0]
    assert usable[-1]
    assert not usable[45]
    assert sum(a != b for a, b in itertools.pairwise(usable)) == 2
    yaw = np.array([sighting.yaw for sighting in sightings])
    assert np.degrees(yaw[10]) == pytest.approx(40, abs=12)


def turner(portrait: np.ndarray, tracker: FaceTracker, face: FaceModel) -> Callable[[float], np.ndarray]:
    """Turns the head in a portrait by so many degrees to the picture's left."""
    points = tracker.track_image(portrait)[0].points
    pose, warp, resting = face.fit(points[None]).pose, face.mesh_warp(), with_ring(points)

    def turn(angle: float) -> np.ndarray:
        rotation = cv2.Rodrigues(np.array([0, np.radians(angle), 0]))[0].astype(np.float32)
        turned = Pose(rotation[None] @ pose.rotation, pose.scale, pose.translation)
        moved = turned.apply(pose.invert(resting[None]))[0]
        target = move_ring(resting, moved, moved[: tp.VERTICES])
        x, y = warp.field(resting, target, portrait.shape[1::-1]).dense(*portrait.shape[1::-1])
        return cv2.remap(portrait, x, y, cv2.INTER_LINEAR)

    return turn


# -- smoothing -----------------------------------------------------------------------------------


def test_a_still_head_stops_trembling_and_lips_keep_their_time_and_reach(
    tracker: FaceTracker, face: FaceModel, anna: list[np.ndarray]
) -> None:
    rng = np.random.default_rng(0)
    pictures = [
        np.clip(stage((image, 200, 80)) + rng.normal(0, 12, (360, 640, 1)), 0, 255).astype(np.uint8)
        for image in anna[:40]
    ]
    followed = follow(video(pictures), tracker, face)
    smoothed = np.stack([sightings[0].points for _, sightings in followed])
    raw = tracker.track_video((frame.time, frame.image) for frame, _ in followed)[0].points
    assert third_difference(smoothed) < 0.2 * third_difference(raw)
    before, after = tp.aperture(raw), tp.aperture(smoothed)
    assert after.std() > 0.93 * before.std()
    lags = [np.corrcoef(before[3:-3], np.roll(after, lag)[3:-3])[0, 1] for lag in range(-3, 4)]
    assert int(np.argmax(lags)) == 3


def third_difference(points: np.ndarray) -> float:
    """Mean third difference of the rigid points over face sizes: how much a track trembles."""
    moved = np.abs(np.diff(points[:, tp.RIGID, :2], 3, axis=0)).mean()
    return float(moved / face_unit(points[0]))


def tracked(face: FaceModel, times: np.ndarray, speed: float, turning: float) -> list[PosedFace]:
    """A face that moves and turns evenly."""
    faces = []
    for time in times:
        rotation = cv2.Rodrigues(np.array([0.0, turning * time, 0.0]))[0].astype(np.float32)
        translation = np.array([[300 + 80 * speed * time, 200, 0]], np.float32)
        pose = Pose(rotation[None], np.array([80], np.float32), translation)
        faces.append(PosedFace.of(float(time), pose.apply(face.mean)[0], face.mean))
    return faces


@settings(max_examples=25, deadline=None)
@given(
    st.floats(-5, 5),
    st.floats(-1, 1),
    st.lists(st.floats(0.01, 0.06), min_size=4, max_size=12),
    st.integers(0, 3),
)
def test_even_motion_is_left_as_it_is(speed: float, turning: float, steps: list[float], index: int) -> None:
    face = FaceModel.from_pretrained()
    times = np.cumsum(steps)
    faces = tracked(face, times, speed, turning)
    points, _ = smooth(faces, float(times[index]))
    true = faces[index].pose.apply(faces[index].canonical)[0]
    assert np.abs(points - true)[:, :2].max() < 0.4
    between = float(times[1] + times[2]) / 2
    points, _ = smooth([faces[i] for i in range(len(faces)) if i not in (index + 4,)], between)
    true = tracked(face, np.array([between]), speed, turning)[0]
    assert np.abs(points - true.pose.apply(true.canonical)[0])[:, :2].max() < 0.4


# -- shots ---------------------------------------------------------------------------------------


def test_cuts_are_counted_and_motion_is_none(anna: list[np.ndarray]) -> None:
    wall = cv2.resize(np.random.default_rng(0).integers(0, 255, (3, 12, 3)).astype(np.uint8), (1800, 360))
    pan = [wall[:, 20 * k : 20 * k + 640] for k in range(20)]
    fade = [np.full((360, 640, 3), 12 * k, np.uint8) for k in range(20)]
    still = [stage((image, 200, 80)) for image in anna[:10]]
    numbered = list(number_shots(video([*pan, *still, *fade])))
    assert [shot for _, shot in numbered] == [0] * 20 + [1] * 10 + [2] * 20
    assert [frame.time for frame, _ in numbered] == [k / 25 for k in range(50)]


# -- appearance ----------------------------------------------------------------------------------


def test_likeness_is_symmetric_and_knows_people_again(
    tracker: FaceTracker, anna: list[np.ndarray], berta: list[np.ndarray]
) -> None:
    describe = AppearanceModel.from_pretrained()
    one, again, other = [
        describe(image, tracker.track_image(image)[0].points) for image in (anna[0], anna[40], berta[0])
    ]
    assert one.likeness(again) > 2
    assert one.likeness(other) < -1
    assert one.likeness(other) == pytest.approx(other.likeness(one))
    assert Appearance.mean([one, one]).likeness(again) == pytest.approx(one.likeness(again))
    small = cv2.resize(anna[0], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    assert one.likeness(describe(small, tracker.track_image(small)[0].points)) > 2


# -- speaking ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dialogue(
    tracker: FaceTracker, face: FaceModel, anna: list[np.ndarray], berta: list[np.ndarray]
) -> Followed:
    frames = video(stage((a, 20, 80), (b, 380, 80)) for a, b in zip(anna, berta, strict=True))
    return follow(frames, tracker, face)


@pytest.mark.parametrize("speaker", [0, 1])
def test_the_one_whose_lips_follow_the_sound_speaks(
    dialogue: Followed, face: FaceModel, speaker: int
) -> None:
    motion = performed(face, speaker)
    found = speaking(dialogue, face, motion)
    left = min(dialogue[0][1], key=lambda number: centre(dialogue[0][1][number])[0])
    assert found.number == (left if speaker == 0 else 1 - left)
    assert found.scores[found.number] > 0.6
    assert found.scores[1 - found.number] < 0.5


def performed(face: FaceModel, speaker: int) -> FaceMotion:
    """What the speech predicts for the one who says it, or for the one who says it backwards."""
    speech = talkface.animate(talkface.example_portrait(), talkface.example_speech(), size=64, seed=1)[0]
    next(iter(speech))
    motion = speech.motion
    assert motion is not None
    return motion[:50] if speaker == 0 else motion[49::-1]


@pytest.mark.parametrize("speech", ["none", "unrelated"])
def test_without_a_speaker_the_main_person_is_taken_with_a_warning(
    dialogue: Followed, face: FaceModel, caplog: pytest.LogCaptureFixture, speech: str
) -> None:
    motion = None
    if speech == "unrelated":
        motion = performed(face, 0)
        motion = FaceMotion(**{**vars(motion), "beta_mouth": np.zeros_like(motion.beta_mouth)})
    found = speaking(dialogue, face, motion)
    assert found.number == 0
    assert "main person" in caplog.text
