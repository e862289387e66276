"""Human pose estimation with dynamic convolution."""
