"""The programs of a checkout: what users start, and in `tools.lab` what made and measured the networks."""
