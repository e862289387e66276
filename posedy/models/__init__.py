"""Networks: dynamic convolution, backbones, heads, and the registry of their names."""
