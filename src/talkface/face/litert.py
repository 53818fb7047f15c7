"""Small networks in LiteRT."""

from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np


class LiteRtNetwork:
    """A LiteRT model with one image input; outputs by size, largest first. Threads wait for each other.

    Args:
        path: the .tflite file.
        threads: of the CPU.
    """

    def __init__(self, path: Path, threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._network: Any = Interpreter(str(path), num_threads=threads)
        self._network.allocate_tensors()
        self._input = self._network.get_input_details()[0]["index"]
        details = self._network.get_output_details()
        self._outputs = [d["index"] for d in sorted(details, key=lambda d: -int(np.prod(d["shape"])))]
        self._busy = Lock()

    def __call__(self, image: np.ndarray) -> list[np.ndarray]:
        """Outputs for a picture (H, W, 3) float."""
        with self._busy:
            self._network.set_tensor(self._input, np.ascontiguousarray(image[None], np.float32))
            self._network.invoke()
            return [self._network.get_tensor(index).copy() for index in self._outputs]


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Probabilities of a network's logits."""
    probability: np.ndarray = 1.0 / (1.0 + np.exp(-np.clip(logits, -60, 60)))
    return probability
