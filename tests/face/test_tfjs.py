"""Networks in TensorFlow.js's format."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from talkface.face.tfjs import TfjsGraph


def test_graphs_of_tensorflow_js_run(tmp_path: Path) -> None:
    """A strided convolution with TensorFlow's padding, a bias, an activation and a mean."""
    generator = np.random.default_rng(0)
    kernel, bias = (
        generator.normal(size=(3, 3, 2, 5)).astype(np.float16),
        generator.normal(size=5).astype(np.float32),
    )

    def word(text: str) -> dict:
        return {"s": base64.b64encode(text.encode()).decode()}

    fused = {"list": {"s": [base64.b64encode(name).decode() for name in (b"BiasAdd", b"Relu")]}}
    nodes = [
        {"name": "x", "op": "Placeholder"},
        {"name": "kernel", "op": "Const"},
        {"name": "bias", "op": "Const"},
        {"name": "axes", "op": "Const"},
        {
            "name": "conv",
            "op": "_FusedConv2D",
            "input": ["x", "kernel", "bias"],
            "attr": {
                "strides": {"list": {"i": ["1", "2", "2", "1"]}},
                "padding": word("SAME"),
                "fused_ops": fused,
            },
        },
        {"name": "mean", "op": "Mean", "input": ["conv", "axes"]},
    ]
    manifest = [
        {"name": "kernel", "shape": [3, 3, 2, 5], "dtype": "float32", "quantization": {"dtype": "float16"}},
        {"name": "bias", "shape": [5], "dtype": "float32"},
        {"name": "axes", "shape": [2], "dtype": "int32"},
    ]
    model = {"modelTopology": {"node": nodes}, "weightsManifest": [{"weights": manifest}]}
    (tmp_path / "m.json").write_text(json.dumps(model))
    (tmp_path / "m.bin").write_bytes(kernel.tobytes() + bias.tobytes() + np.array([1, 2], np.int32).tobytes())
    graph = TfjsGraph(tmp_path / "m.json", tmp_path / "m.bin", ["conv", "mean"])
    x = torch.randn(1, 8, 7, 2)
    found, mean = graph(x)
    weight = torch.from_numpy(kernel.astype(np.float32)).permute(3, 2, 0, 1)
    # TensorFlow pads even sides at the end only.
    padded = F.pad(x.permute(0, 3, 1, 2), (1, 1, 0, 1))
    expected = F.conv2d(padded, weight, torch.from_numpy(bias), stride=2).relu().permute(0, 2, 3, 1)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(mean, expected.mean((1, 2)))
    nodes[5]["op"] = "Strange"
    (tmp_path / "m.json").write_text(json.dumps(model))
    with pytest.raises(ValueError, match="Strange"):
        TfjsGraph(tmp_path / "m.json", tmp_path / "m.bin", ["mean"])


def test_graphs_of_tensorflow_js_end_in_a_dense_layer(tmp_path: Path) -> None:
    """What MobileFace needs beside: edges, a difference, another shape, and a product."""
    generator = np.random.default_rng(0)
    constants = {
        "edges": np.array([[0, 0], [1, 2], [0, 1], [0, 0]], np.int32),
        "middle": generator.normal(size=3).astype(np.float32),
        "shape": np.array([-1, 24], np.int32),
        "dense": generator.normal(size=(24, 4)).astype(np.float32),
    }
    nodes = [{"name": "x", "op": "Placeholder"}, *({"name": name, "op": "Const"} for name in constants)]
    nodes += [
        {"name": "less", "op": "Sub", "input": ["x", "middle"]},
        {"name": "pad", "op": "Pad", "input": ["less", "edges"]},
        {"name": "flat", "op": "Reshape", "input": ["pad", "shape"]},
        {"name": "out", "op": "MatMul", "input": ["flat", "dense"]},
    ]
    manifest = [
        {"name": name, "shape": list(value.shape), "dtype": str(value.dtype)}
        for name, value in constants.items()
    ]
    model = {"modelTopology": {"node": nodes}, "weightsManifest": [{"weights": manifest}]}
    (tmp_path / "m.json").write_text(json.dumps(model))
    (tmp_path / "m.bin").write_bytes(b"".join(value.tobytes() for value in constants.values()))
    x = torch.randn(2, 1, 1, 3)
    padded = np.pad(x.numpy() - constants["middle"], constants["edges"])
    (found,) = TfjsGraph(tmp_path / "m.json", tmp_path / "m.bin", ["out"])(x)
    np.testing.assert_allclose(found, padded.reshape(2, 24) @ constants["dense"], rtol=1e-5)


def test_graphs_of_tensorflow_js_pool_and_grow(tmp_path: Path) -> None:
    """What selfie segmentation needs beside."""
    kernel = np.random.default_rng(0).normal(size=(2, 2, 1, 3)).astype(np.float32)
    constants = {"size": np.array([8, 6], np.int32), "kernel": kernel, "any": np.array([0], np.int32)}
    window = {"list": {"i": ["1", "2", "2", "1"]}}
    nodes = [{"name": "x", "op": "Placeholder"}, *({"name": name, "op": "Const"} for name in constants)]
    nodes += [
        {"name": "pool", "op": "AvgPool", "input": ["x"], "attr": {"ksize": window, "strides": window}},
        {"name": "large", "op": "ResizeBilinear", "input": ["pool", "size"]},
        {"name": "sum", "op": "AddN", "input": ["large", "large"]},
        {"name": "out", "op": "Conv2DBackpropInput", "input": ["any", "kernel", "sum"],
         "attr": {"strides": window}},
    ]  # fmt: skip
    manifest = [
        {"name": name, "shape": list(value.shape), "dtype": str(value.dtype)}
        for name, value in constants.items()
    ]
    model = {"modelTopology": {"node": nodes}, "weightsManifest": [{"weights": manifest}]}
    (tmp_path / "m.json").write_text(json.dumps(model))
    (tmp_path / "m.bin").write_bytes(b"".join(value.tobytes() for value in constants.values()))
    x = torch.randn(2, 8, 6, 3)
    total, found = TfjsGraph(tmp_path / "m.json", tmp_path / "m.bin", ["sum", "out"])(x)
    pooled = x.unflatten(1, (4, 2)).unflatten(3, (3, 2)).mean((2, 4))
    torch.testing.assert_close(total.mean((1, 2)), 2 * pooled.mean((1, 2)), atol=0.2, rtol=0)
    # Strides as wide as the kernel: each value of what is given becomes a square of its own.
    squares = torch.einsum("bhwc,uvoc->bhuwvo", total, torch.from_numpy(kernel))
    torch.testing.assert_close(found, squares.flatten(3, 4).flatten(1, 2))
