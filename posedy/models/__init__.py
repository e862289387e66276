"""Networks: dynamic convolution, backbones, heads, and the zoo that names them."""
