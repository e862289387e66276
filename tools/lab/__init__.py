"""The laboratory: conversions, measurements and recipes. It may import posedy; posedy never imports it."""
