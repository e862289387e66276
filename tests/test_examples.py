"""The example images are those of data/coco_mini, small, and credited."""

from pathlib import Path

import pytest

from posedy.examples import CREDITS_FILE, LICENSE_PAGE, ExampleImage, example_credits, example_images

MINI = Path(__file__).parents[1] / "data/coco_mini"


@pytest.mark.parametrize("image", example_images(), ids=lambda image: image.path.stem)
def test_an_example_is_an_image_of_coco_mini_with_its_page(image: ExampleImage) -> None:
    name = f"val2017/{image.coco_id:012d}.jpg"
    assert Path(image) == image.path
    assert image.path.read_bytes() == (MINI / name).read_bytes()
    assert f"| `{name}` | {image.page} |" in (MINI / "CREDITS.md").read_text()
    assert f"| `{image.path.name}` | `{Path(name).name}` | {image.page} |" in CREDITS_FILE.read_text()
    assert f"[{image.path.stem}]({image.page})" in example_credits()


def test_the_examples_are_six_small_files() -> None:
    paths = sorted(CREDITS_FILE.parent.glob("*.jpg"))
    assert paths == sorted(image.path for image in example_images())
    assert len(paths) == 6
    assert sum(path.stat().st_size for path in paths) <= 600_000
    assert LICENSE_PAGE in CREDITS_FILE.read_text()
