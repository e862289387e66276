"""Web page of `posedy app`."""
