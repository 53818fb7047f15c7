"""Crops of prepared clips."""

from pathlib import Path

import numpy as np

from media_samples import write_video
from talkface.data.crops import FACE_REGION, crop_clip
from talkface.data.manifest import Item, Manifest
from talkface.face import topology as tp
from talkface.face.model import FaceModel
from talkface.face.tracker import FaceTracker
from talkface.media.video import VideoReader


def item(corpus: str, speaker: str, key: str = "a") -> Item:
    return Item(key=key, file=f"{key}.mp4", corpus=corpus, speaker=speaker, split="val")


def test_crops_of_a_rotated_clip_are_upright(talking_frames: list[np.ndarray], tmp_path: Path) -> None:
    """Phones store frames as the sensor sees them, with the turn beside them."""
    stored = [np.ascontiguousarray(np.rot90(image)) for image in talking_frames[:6]]  # counter-clockwise
    write_video(tmp_path / "turned.mp4", stored, rotation=-90.0, options={"crf": "10"})
    tracker = FaceTracker()
    with VideoReader(tmp_path / "turned.mp4") as video:
        track = tracker.track_video((frame.time, frame.image) for frame in video)[0]
    manifest = Manifest(tmp_path, tmp_path, [item("phone", "anna", key="turned")])
    (tmp_path / "tracks").mkdir()
    arrays = {name: getattr(track, name) for name in ("points", "times", "found", "frames")}
    np.savez(tmp_path / "tracks" / "turned.npz", **arrays)
    crops = crop_clip(manifest, manifest.items[0], FaceModel.from_pretrained())
    assert len(crops) == len(stored)
    for k in range(len(crops)):
        seen = tracker.track_image(crops.image(k))[0].points
        distance = np.linalg.norm((seen - crops.points[k])[: tp.FACE_VERTICES, :2], axis=1).mean()
        assert distance < 0.02 * FACE_REGION.pixels
