"""The laboratory: conversions, measurements and recipes. It may import posedy; posedy never imports it."""

import posedy  # noqa: F401  (before torch, whose threads it sets up)
