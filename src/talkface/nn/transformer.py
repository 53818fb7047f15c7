"""The transformer encoder that several networks have."""

from torch import nn


def transformer(width: int, heads: int, layers: int, dropout: float = 0.0) -> nn.TransformerEncoder:
    """Self-attention over tokens (B, T, width), normalised before each layer, with GELU.

    Its feed-forward layers are twice as wide as the tokens.
    """
    layer = nn.TransformerEncoderLayer(
        width, heads, 2 * width, dropout, "gelu", batch_first=True, norm_first=True
    )
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
