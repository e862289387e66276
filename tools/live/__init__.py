"""A static web page that detects persons and estimates their poses in the browser, on images and the camera.

`make live` builds it into build/live/ and serves it; see docs/how_to/web_page.md.
"""
