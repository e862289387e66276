"""The web page of `posedy app`."""
