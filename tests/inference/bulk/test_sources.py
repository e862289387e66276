"""Inputs of bulk prediction: what is listed, in which order, and what is said of damaged ones."""

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from posedy.images import read_image
from posedy.inference.bulk.sources import ImageSource, SourceReader, list_sources

Write = Callable[[Path, int], list[Path]]


def list_all(*arguments: Path | str, column: str | None = None, out: Path = Path("none")) -> list[ImageSource]:
    return list(list_sources(map(str, arguments), column, out))


def write_tar(path: Path, images: list[Path], names: list[str] | None = None) -> Path:
    with tarfile.open(path, "w") as tar:
        for image, name in zip(images, names or [image.name for image in images], strict=True):
            tar.add(image, name)
            text = tarfile.TarInfo(name + ".json")
            text.size = 2
            tar.addfile(text, io.BytesIO(b"{}"))
    return path


def write_parquet(path: Path, columns: dict[str, list], row_group_size: int = 3) -> Path:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pa.table(columns), path, row_group_size=row_group_size)
    return path


def test_folders_are_listed_by_name_without_hidden_files(write_images: Write, tmp_path: Path) -> None:
    images = write_images(tmp_path / "in", 5)
    for hidden in (tmp_path / "in/.cache/a.png", tmp_path / "in/sub0/._00000.png", tmp_path / "in/out/part.png"):
        hidden.parent.mkdir(exist_ok=True)
        hidden.write_bytes(images[0].read_bytes())
    (tmp_path / "in/notes.txt").write_text("no list: it is in a folder\n")
    (tmp_path / "in/linked").symlink_to(tmp_path / "in")
    found = list_all(tmp_path / "in", out=tmp_path / "in/out")
    assert [source.name for source in found] == list(map(str, images))
    assert all(source.container is None for source in found)


def test_folder_named_as_an_image_is_a_folder(write_images: Write, tmp_path: Path) -> None:
    write_images(tmp_path / "in/not.jpg", 2)
    assert len(list_all(tmp_path / "in")) == 2


def test_order_does_not_depend_on_the_order_of_arguments_and_doubles_count_once(
    write_images: Write, tmp_path: Path
) -> None:
    images = write_images(tmp_path, 4)
    folders = [tmp_path / "sub0", tmp_path / "sub1"]
    assert list_all(*folders) == list_all(*folders[::-1], folders[0])
    assert [source.name for source in list_all(tmp_path / "**/*.png")] == list(map(str, images))


def test_list_files_have_a_path_or_a_url_in_each_line(write_images: Write, tmp_path: Path) -> None:
    images = write_images(tmp_path, 3)
    lines = [*map(str, images[::-1]), "", str(images[0]), "https://example.com/a.jpg", f"{tmp_path}/missing.png"]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    names = [source.name for source in list_all(tmp_path / "list.txt")]
    assert names == sorted({*map(str, images), "https://example.com/a.jpg", f"{tmp_path}/missing.png"})


def test_tar_members_are_read_in_place(write_images: Write, tmp_path: Path) -> None:
    images = write_images(tmp_path / "in", 4)
    tar = write_tar(tmp_path / "a.tar", images)
    found = list_all(tar)
    assert [source.name for source in found] == [f"{tar}/{image.name}" for image in images]
    for source, image in zip(found, images, strict=True):
        assert ImageSource.from_line(source.to_line()) == source
        assert (SourceReader().read(source) == read_image(image)).all()


def test_truncated_tar_gives_the_members_before_the_damage(write_images: Write, tmp_path: Path) -> None:
    images = write_images(tmp_path / "in", 3)
    tar = write_tar(tmp_path / "a.tar", images)
    last = list_all(tar)[-1]
    with tar.open("r+b") as file:
        file.truncate(last.place[0] + last.place[1] // 2)
    found = list_all(tar)
    reader = SourceReader()
    assert [source.name for source in found[:3]] == [f"{tar}/{image.name}" for image in images]
    for source in found[:2]:
        reader.read(source)
    for source in found[2:]:
        with pytest.raises(OSError, match=r"a\.tar is (truncated: expected|no tar file, or is damaged)"):
            reader.read(source)


def test_files_that_are_no_tar_and_compressed_ones_are_errors_of_their_own(write_images: Write, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"no tar" * 200)
    (tmp_path / "b.tar.gz").write_bytes(b"")
    (tmp_path / "c.parquet").write_bytes(b"no parquet")
    for name, message in (("a.tar", "no tar file"), ("b.tar.gz", "unpack it"), ("c.parquet", "no Parquet file")):
        (source,) = list_all(tmp_path / name)
        with pytest.raises(OSError, match=message):
            SourceReader().read(source)


@pytest.mark.parametrize("as_struct", [False, True])
def test_parquet_rows_are_read(write_images: Write, tmp_path: Path, as_struct: bool) -> None:
    images = write_images(tmp_path / "in", 7)
    values: list = [image.read_bytes() for image in images]
    if as_struct:
        values = [{"bytes": value, "path": "x.png"} for value in values]
    path = write_parquet(tmp_path / "a.parquet", {"label": list(range(8)), "content": [*values, None]})
    found = list_all(path)
    assert [source.name for source in found] == [f"{path}/{row}" for row in range(8)]
    reader = SourceReader()
    for index in (6, 0, 3, 1, 5, 2, 4):  # also across row groups
        assert (reader.read(found[index]) == read_image(images[index])).all()
    with pytest.raises(OSError, match="7 is null: expected the bytes"):
        reader.read(found[7])


def test_parquet_columns_are_found_or_named(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"image": [b"1"], "thumbnail": [b"2"], "name": ["x"]})
    assert len(list_all(path)) == len(list_all(path, column="thumbnail")) == 1
    with pytest.raises(ValueError, match=r"no column 'thumbnale'.* nearest name is 'thumbnail'"):
        list_all(path, column="thumbnale")
    two = write_parquet(tmp_path / "b.parquet", {"first": [b"1"], "second": [b"2"]})
    with pytest.raises(ValueError, match=r"got \['first', 'second'\] of the columns .*--image-column"):
        list_all(two)
    none = write_parquet(tmp_path / "c.parquet", {"path": ["a.jpg"]})
    with pytest.raises(ValueError, match=r"got \[\] of the columns \['path'\]"):
        list_all(none)


def test_arguments_without_images_are_errors(write_images: Write, tmp_path: Path) -> None:
    write_images(tmp_path / "in", 2)
    with pytest.raises(ValueError, match=r"no image or folder at .*missing"):
        list_all(tmp_path / "missing")
    with pytest.raises(ValueError, match=r"no file matches .*jpg"):
        list_all(tmp_path / "*.jpg")
    with pytest.raises(ValueError, match=r"sub0 is in .*in, which is also given: leave it out"):
        list_all(tmp_path / "in", tmp_path / "in/sub0")
    with pytest.raises(ValueError, match=r"s3://.*posedy\.ray\.predict"):
        list_all("s3://bucket/images")
    with pytest.raises(ValueError, match="empty argument"):
        list_all("")


def test_names_that_are_not_text_survive_the_list(tmp_path: Path, write_images: Write) -> None:
    (image,) = write_images(tmp_path / "in", 1)
    target = os.fsencode(image.parent) + b"/\xff\xfe.png"
    try:
        image.rename(os.fsdecode(target))
    except OSError:
        pytest.skip("the file system takes only text")
    (source,) = list_all(tmp_path / "in")
    read = SourceReader().read(ImageSource.from_line(source.to_line()))
    assert isinstance(read, np.ndarray)
