"""SyncNet as released (Chung and Zisserman 2016), for those who have its weights.

Layers carry the names of the released state dict, so that it loads as it is. Faces are cropped around the
mesh, in the proportions of SyncNet's own pipeline, which crops around the boxes of a face detector (S3FD):
figures come close to those of that pipeline and are not equal to them.
"""

from pathlib import Path

import numpy as np
import torch
from scipy.fft import dct
from scipy.signal import medfilt
from torch import Tensor, nn

from talkface.errors import ModelUnavailable
from talkface.evaluation.judges.sync import EMBEDDED_FRAMES, fingerprint
from talkface.face import topology as tp
from talkface.speech.mel import SAMPLE_RATE

_MARGIN = 0.4  # of the face's box, to either side and below
_SMOOTHED = 13  # frames over which boxes are smoothed
_CROPS_AT_ONCE, _SOUNDS_AT_ONCE = 16, 64  # embeddings of one batch


def _with_norm(convolution: nn.Conv2d | nn.Conv3d) -> list[nn.Module]:
    norm = nn.BatchNorm2d if isinstance(convolution, nn.Conv2d) else nn.BatchNorm3d
    return [convolution, norm(convolution.out_channels), nn.ReLU()]


def _head() -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 1024))


class SyncNet(nn.Module):
    """Embeds 0.2 s of a face and of sound."""

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *_with_norm(nn.Conv2d(1, 64, 3, padding=1)),
            nn.MaxPool2d(1, stride=1),
            *_with_norm(nn.Conv2d(64, 192, 3, padding=1)),
            nn.MaxPool2d(3, stride=(1, 2)),
            *_with_norm(nn.Conv2d(192, 384, 3, padding=1)),
            *_with_norm(nn.Conv2d(384, 256, 3, padding=1)),
            *_with_norm(nn.Conv2d(256, 256, 3, padding=1)),
            nn.MaxPool2d(3, stride=2),
            *_with_norm(nn.Conv2d(256, 512, (5, 4))),
        )
        self.netcnnlip = nn.Sequential(
            *_with_norm(nn.Conv3d(3, 96, (5, 7, 7), stride=(1, 2, 2))),
            nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2)),
            *_with_norm(nn.Conv3d(96, 256, (1, 5, 5), stride=(1, 2, 2), padding=(0, 1, 1))),
            nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)),
            *_with_norm(nn.Conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1))),
            *_with_norm(nn.Conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1))),
            *_with_norm(nn.Conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1))),
            nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2)),
            *_with_norm(nn.Conv3d(256, 512, (1, 6, 6))),
        )
        self.netfcaud, self.netfclip = _head(), _head()

    def embed_audio(self, cepstra: Tensor) -> Tensor:
        """Embed cepstra (B, 1, 13, 20) of 0.2 s: (B, 1024)."""
        embedded: Tensor = self.netfcaud(self.netcnnaud(cepstra).flatten(1))
        return embedded

    def embed_faces(self, faces: Tensor) -> Tensor:
        """Embed every five of the faces (3, T, 224, 224), BGR in [0, 255] at 25 fps: (T - 4, 1024)."""
        # Only the first layer convolves over time: one pass embeds all windows.
        embedded: Tensor = self.netfclip(self.netcnnlip(faces[None])[0, :, :, 0, 0].T)
        return embedded


class OriginalSyncNet:
    """SyncNet with weights from a file: safetensors, or the state dict as released.

    Raises:
        ModelUnavailable: There is no such file, or it holds something else.
    """

    name, crop_pixels, padded = "syncnet_lse", 224, True

    def __init__(self, path: str | Path) -> None:
        self._network = SyncNet().eval()
        advice = "give its syncnet_v2.model, or the same as safetensors"
        try:
            self._network.load_state_dict(_state(Path(path)))
        except OSError as error:
            raise ModelUnavailable(f"{path} cannot be read: {error.strerror or error}") from error
        except Exception as error:  # of the pickle and safetensors readers, or other layers
            raise ModelUnavailable(f"{path} does not hold SyncNet's weights; {advice}") from error
        self.identity = f"SyncNet {fingerprint(self._network)}"

    def matrices(self, points: np.ndarray) -> np.ndarray:
        """Squares that reach ``_MARGIN`` beyond the face to both sides and below, smoothed over time."""
        oval = points[:, tp.FACE_OVAL, :2]
        low, high = oval.min(1), oval.max(1)
        half = (high - low).max(1) / 2
        x, y, half = (_median(values) for values in ((low + high)[:, 0] / 2, (low + high)[:, 1] / 2, half))
        scale = self.crop_pixels / (2 * half * (1 + _MARGIN))
        matrices = np.zeros((len(points), 2, 3))
        matrices[:, 0, 0] = matrices[:, 1, 1] = scale
        matrices[:, 0, 2] = -scale * (x - half * (1 + _MARGIN))
        matrices[:, 1, 2] = -scale * (y - half)
        return matrices

    @torch.inference_mode()
    def embed_crops(self, crops: np.ndarray) -> np.ndarray:
        """See :class:`talkface.evaluation.judges.sync.SyncJudge`."""
        embedded, more = [], EMBEDDED_FRAMES - 1
        for start in range(0, len(crops) - more, _CROPS_AT_ONCE):
            part = np.ascontiguousarray(crops[start : start + _CROPS_AT_ONCE + more, :, :, ::-1])
            embedded.append(self._network.embed_faces(torch.from_numpy(part).movedim(-1, 0).float()))
        return torch.cat(embedded).numpy()

    @torch.inference_mode()
    def embed_sound(self, samples: np.ndarray) -> np.ndarray:
        """See :class:`talkface.evaluation.judges.sync.SyncJudge`."""
        cepstra = mfcc(np.round(samples * 32768))  # 16-bit values, as from a WAV file
        windows = np.lib.stride_tricks.sliding_window_view(cepstra, 20, axis=0)[::4]  # (N, 13, 20)
        embedded = []
        for start in range(0, len(windows), _SOUNDS_AT_ONCE):
            part = np.ascontiguousarray(windows[start : start + _SOUNDS_AT_ONCE], np.float32)
            embedded.append(self._network.embed_audio(torch.from_numpy(part)[:, None]))
        return torch.cat(embedded).numpy()


def _state(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def _median(values: np.ndarray) -> np.ndarray:
    """Median over 13 frames of values (T,); beyond the ends, the first and last value are repeated."""
    side = _SMOOTHED // 2
    smooth: np.ndarray = medfilt(np.pad(values, side, mode="edge"), _SMOOTHED)
    return smooth[side:-side]


def mfcc(samples: np.ndarray) -> np.ndarray:
    """Mel-frequency cepstral coefficients as SyncNet was trained on, those of ``python_speech_features``.

    25 ms windows without taper every 10 ms, pre-emphasis .97, 512-point spectrum, 26 triangular filters from
    0 to 8 kHz, orthonormal DCT, lifter 22.

    Args:
        samples: (N,) at 16 kHz, as 16-bit numbers.

    Returns:
        (T, 13) at 100 per second; the first coefficient is the log energy.
    """
    emphasised = np.append(samples[:1], samples[1:] - 0.97 * samples[:-1])
    count = 1 + max(0, -(-(len(samples) - 400) // 160))
    padded = np.pad(emphasised, (0, max(0, (count - 1) * 160 + 400 - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, 400)[::160][:count]
    power = np.abs(np.fft.rfft(frames, 512)) ** 2 / 512
    bands = _positive(power @ _mel_filters().T)
    cepstra: np.ndarray = dct(np.log(bands), type=2, axis=1, norm="ortho")[:, :13]
    cepstra *= 1 + 11 * np.sin(np.pi * np.arange(13) / 22)
    cepstra[:, 0] = np.log(_positive(power.sum(1)))
    return cepstra


def _mel_filters(count: int = 26, size: int = 512) -> np.ndarray:
    """Triangular filters (26, 257) whose corners lie on the spectrum's bins."""
    top = 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700)
    hertz = 700 * (10 ** (np.linspace(0, top, count + 2) / 2595) - 1)
    corners = np.floor((size + 1) * hertz / SAMPLE_RATE)
    bins = np.arange(size // 2 + 1)
    rising = (bins - corners[:-2, None]) / (corners[1:-1] - corners[:-2])[:, None]
    falling = (corners[2:, None] - bins) / (corners[2:] - corners[1:-1])[:, None]
    filters: np.ndarray = np.maximum(0, np.minimum(rising, falling))
    return filters


def _positive(values: np.ndarray) -> np.ndarray:
    """Zeros replaced by the smallest step of floats, so that there is a logarithm."""
    return np.where(values == 0, np.finfo(float).eps, values)
