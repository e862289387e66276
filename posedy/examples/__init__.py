"""Six images of persons in the package, for `posedy predict --examples` and the web page, with their credits."""

from dataclasses import dataclass
from pathlib import Path

LICENSE = "CC BY 2.0"
"""The license of the images."""
LICENSE_PAGE = "https://creativecommons.org/licenses/by/2.0/"
"""The page of the license."""
_FOLDER = Path(__file__).parent
CREDITS_FILE = _FOLDER / "CREDITS.md"
"""The file with the page of each image."""
_IDS = {  # name: image id in COCO's validation set, id on Flickr
    "baseball": (388056, 2443485512),
    "soccer": (474028, 7258228366),
    "tennis": (90284, 3591078425),
    "surfing": (410456, 8438575589),
    "pizza": (91406, 6843637155),
    "kite": (130586, 3392836274),
}


@dataclass(frozen=True)
class ExampleImage:
    """An image of the package; it is path-like, so that `PoseEstimator` and `open` take it.

    Attributes:
        path: the file.
        coco_id: the id of the image in COCO's validation set (2017).
        page: the page of the image on Flickr, which names its author.
    """

    path: Path
    coco_id: int
    page: str

    def __fspath__(self) -> str:
        """Returns the path of the file."""
        return str(self.path)


def example_images() -> list[ExampleImage]:
    """Returns the images of the package; all have the license `LICENSE`."""
    return [
        ExampleImage(_FOLDER / f"{name}.jpg", coco_id, f"https://www.flickr.com/photo.gne?id={flickr_id}")
        for name, (coco_id, flickr_id) in _IDS.items()
    ]


def example_credits() -> str:
    """Returns the credits of the images as a line of Markdown, with a link to the page of each."""
    pages = ", ".join(f"[{image.path.stem}]({image.page})" for image in example_images())
    return (
        "Images of COCO, recompressed, each by the Flickr user that its page names, under "
        f"[{LICENSE}]({LICENSE_PAGE}): {pages}."
    )
