"""Runs small TensorFlow.js graph models in torch: a description (.json) and its weights (.bin)."""

import base64
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

Node = dict[str, Any]
"""An operation of a graph: its name, kind ("op"), inputs and attributes ("attr")."""

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "Relu": torch.relu,
    "Relu6": lambda x: x.clamp(0, 6),
    "Sigmoid": torch.sigmoid,
    "Softmax": lambda x: x.softmax(-1),
    "Identity": lambda x: x,
}
_ARITHMETIC: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Add": torch.add,
    "AddV2": torch.add,
    "Mul": torch.mul,
    "Sub": torch.sub,
    "MatMul": torch.matmul,
    "Minimum": torch.minimum,
    "Maximum": torch.maximum,
}


class TfjsGraph(nn.Module):
    """A graph of convolutions; tensors are (B, H, W, C) as TensorFlow has them, gradients flow through.

    Args:
        description: the .json file.
        weights: the .bin file.
        outputs: names of the nodes that are wanted.

    Raises:
        ValueError: the graph has an operation that is not known here.
    """

    def __init__(self, description: Path, weights: Path, outputs: Sequence[str]) -> None:
        super().__init__()
        model = json.loads(Path(description).read_text())
        nodes: list[Node] = model["modelTopology"]["node"]
        self.nodes = {node["name"]: node for node in nodes}
        self.outputs = tuple(outputs)
        strange = {node["op"] for node in self.nodes.values()} - {"Const", "Placeholder", *_OPERATIONS}
        if strange:
            raise ValueError(f"{description}: operations {', '.join(sorted(strange))} are not known here")
        self.constants = _read_weights(model["weightsManifest"], Path(weights).read_bytes())

    def forward(self, image: Tensor) -> list[Tensor]:
        """The outputs for a batch (B, H, W, C)."""
        values: dict[str, Tensor] = {}
        wanted = [name for output in self.outputs for name in self._needed(output)]
        for name in dict.fromkeys(wanted):
            values[name] = self._compute(self.nodes[name], values, image)
        return [values[name] for name in self.outputs]

    def _needed(self, name: str) -> list[str]:
        """The node and all before it, in an order in which they can be computed."""
        order: dict[str, None] = {}

        def visit(name: str) -> None:
            if name not in order:
                for given in _inputs(self.nodes[name]):
                    visit(given)
                order[name] = None

        visit(name)
        return list(order)

    def _compute(self, node: Node, values: dict[str, Tensor], image: Tensor) -> Tensor:
        if node["op"] == "Placeholder":
            return image
        if node["op"] == "Const":
            return self.constants[node["name"]].to(image.device)
        return _OPERATIONS[node["op"]](node, [values[name] for name in _inputs(node)])


def _convolution(node: Node, given: list[Tensor]) -> Tensor:
    """Conv2D, DepthwiseConv2dNative or one fused with its bias."""
    x, kernel = _channels_first(given[0]), given[1]
    stride = _side(node, "strides")
    groups = 1
    if node["op"] == "DepthwiseConv2dNative":
        groups = kernel.shape[2]
        weight = kernel.permute(2, 3, 0, 1).reshape(-1, 1, *kernel.shape[:2])
    else:
        weight = kernel.permute(3, 2, 0, 1)
    if _text(node["attr"]["padding"]) == "SAME":
        edges = []
        for length, size in ((x.shape[3], weight.shape[3]), (x.shape[2], weight.shape[2])):
            total = max((-(-length // stride) - 1) * stride + size - length, 0)
            edges += [total // 2, total - total // 2]
        x = F.pad(x, edges)
    out = _channels_last(F.conv2d(x, weight, stride=stride, groups=groups))
    return out + given[2] if len(given) > 2 else out


def _transposed_convolution(node: Node, given: list[Tensor]) -> Tensor:
    weight, stride = given[1].permute(3, 2, 0, 1), _side(node, "strides")
    return _channels_last(F.conv_transpose2d(_channels_first(given[2]), weight, stride=stride))


def _pool(node: Node, given: list[Tensor]) -> Tensor:
    pool = F.max_pool2d if node["op"] == "MaxPool" else F.avg_pool2d
    return _channels_last(pool(_channels_first(given[0]), _side(node, "ksize"), _side(node, "strides")))


def _resize(node: Node, given: list[Tensor]) -> Tensor:
    size = given[1].long().tolist()
    return _channels_last(F.interpolate(_channels_first(given[0]), size, mode="bilinear"))


def _mean(node: Node, given: list[Tensor]) -> Tensor:
    return given[0].mean(dim=given[1].long().tolist())


def _pad(node: Node, given: list[Tensor]) -> Tensor:
    return F.pad(given[0], given[1].long().flip(0).flatten().tolist())


def _reshape(node: Node, given: list[Tensor]) -> Tensor:
    return given[0].reshape(len(given[0]), *given[1].long().tolist()[1:])


def _add_all(node: Node, given: list[Tensor]) -> Tensor:
    return torch.stack(given).sum(0)


def _fused_product(node: Node, given: list[Tensor]) -> Tensor:
    return _activated(node, given[0] @ given[1] + given[2])


def _fused_convolution(node: Node, given: list[Tensor]) -> Tensor:
    return _activated(node, _convolution(node, given))


def _activation(node: Node, given: list[Tensor]) -> Tensor:
    return _ACTIVATIONS[node["op"]](given[0])


def _arithmetic(node: Node, given: list[Tensor]) -> Tensor:
    return _ARITHMETIC[node["op"]](given[0], given[1])


_OPERATIONS: dict[str, Callable[[Node, list[Tensor]], Tensor]] = {
    **dict.fromkeys(_ACTIVATIONS, _activation),
    **dict.fromkeys(_ARITHMETIC, _arithmetic),
    **dict.fromkeys(("Conv2D", "_FusedConv2D", "DepthwiseConv2dNative"), _fused_convolution),
    "Conv2DBackpropInput": _transposed_convolution,
    "_FusedMatMul": _fused_product,
    "MaxPool": _pool,
    "AvgPool": _pool,
    "ResizeBilinear": _resize,
    "Mean": _mean,
    "Pad": _pad,
    "Reshape": _reshape,
    "AddN": _add_all,
}


def _activated(node: Node, x: Tensor) -> Tensor:
    """What the operations fused with a node do to its result."""
    for name in node["attr"].get("fused_ops", {}).get("list", {}).get("s", []):
        operation = base64.b64decode(name).decode()
        if operation != "BiasAdd":
            x = _ACTIVATIONS[operation](x)
    return x


def _inputs(node: Node) -> list[str]:
    return [name.split(":")[0] for name in node.get("input", []) if not name.startswith("^")]


def _side(node: Node, attribute: str) -> int:
    """Rows (and columns) of a node's strides or of its window."""
    return int(node["attr"][attribute]["list"]["i"][1])


def _text(attribute: dict[str, str]) -> str:
    return base64.b64decode(attribute["s"]).decode()


def _channels_first(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)


def _channels_last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)


def _read_weights(manifest: list[dict[str, Any]], data: bytes) -> dict[str, Tensor]:
    constants, offset = {}, 0
    for entry in (entry for group in manifest for entry in group["weights"]):
        kind = entry.get("quantization", {}).get("dtype", entry["dtype"])
        count = int(np.prod(entry["shape"]))
        values = np.frombuffer(data, np.dtype(kind), count, offset)
        offset += values.nbytes
        constants[entry["name"]] = torch.from_numpy(values.astype(np.float32).reshape(entry["shape"]))
    return constants
