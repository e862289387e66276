"""Inputs of bulk prediction: what is listed, in which order, and what is said of damaged ones."""

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from posedy.images import read_image
from posedy.inference.bulk.reading import SourceReader, image_bytes
from posedy.inference.bulk.sources import ImageSource, list_sources

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


def add_member(tar: tarfile.TarFile, name: str, data: bytes = b"", **fields: object) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for key, value in fields.items():
        setattr(member, key, value)
    tar.addfile(member, io.BytesIO(data))


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_links_and_sparse_files_in_a_tar_are_errors(write_images: Write, tmp_path: Path, format: int) -> None:
    (image,) = write_images(tmp_path / "in", 1)
    with tarfile.open(tmp_path / "a.tar", "w", format=format) as tar:
        add_member(tar, "\u00e4" * 200 + ".png", image.read_bytes())
        add_member(tar, "folder.png", type=tarfile.DIRTYPE)
        add_member(tar, "hard.png", type=tarfile.LNKTYPE, linkname="x.png")
        add_member(tar, "soft.png", type=tarfile.SYMTYPE, linkname="x.png")
        add_member(tar, "sparse.png", type=tarfile.GNUTYPE_SPARSE)
    whole, *others = list_all(tmp_path / "a.tar")
    assert (SourceReader().read(whole) == read_image(image)).all()
    assert [Path(source.name).name for source in others] == ["hard.png", "soft.png", "sparse.png"]
    for source in others:
        with pytest.raises(OSError, match="is a link, a sparse file or no file: pack it again"):
            SourceReader().read(source)


def test_name_of_two_members_of_a_tar_is_an_error_of_the_second(write_images: Write, tmp_path: Path) -> None:
    images = write_images(tmp_path / "in", 2)
    first, second = list_all(write_tar(tmp_path / "a.tar", images, ["a.png", "a.png"]))
    assert (SourceReader().read(first) == read_image(images[0])).all()
    with pytest.raises(OSError, match=r"a\.png is twice in the tar file"):
        SourceReader().read(second)


@pytest.mark.parametrize("damage", ["header", "cut between members", "cut in a header", "joined"])
def test_images_after_a_damage_of_a_tar_are_no_silent_loss(write_images: Write, tmp_path: Path, damage: str) -> None:
    images = write_images(tmp_path / "in", 4)
    tar = tmp_path / "a.tar"
    with tarfile.open(tar, "w") as written:
        for image in images:
            written.add(image, image.name)
    header = list_all(tar)[2].place[0] - 512
    content = tar.read_bytes()
    tar.write_bytes(
        {
            "header": content[:header] + b"damage" + content[header + 6 :],
            "cut between members": content[:header],
            "cut in a header": content[: header + 100],
            "joined": content + content,
        }[damage]
    )
    found = list_all(tar)
    assert [source.error for source in found[:-1]] == [None] * (4 if damage == "joined" else 2)
    assert "is damaged" in found[-1].error


def test_containers_that_change_after_the_listing_give_no_other_image(write_images: Write, tmp_path: Path) -> None:
    images = write_images(tmp_path / "in", 5)
    tar = write_tar(tmp_path / "a.tar", images[:1])
    (in_tar,) = list_all(tar)
    write_tar(tar, images[2:])
    pq = write_parquet(tmp_path / "a.parquet", {"image": [image.read_bytes() for image in images]}, 5)
    in_parquet = list_all(pq)[-1]
    write_parquet(pq, {"image": [images[0].read_bytes()]})
    for source in (in_tar, in_parquet):
        with pytest.raises(OSError, match="has changed since its images were listed"):
            SourceReader().read(source)


def test_list_files_of_other_systems(write_images: Write, tmp_path: Path) -> None:
    images = write_images(tmp_path, 3)
    odd = images[0].with_name("line\u2028separator.png")
    images[0].rename(odd)
    expected = sorted(map(str, [odd, *images[1:]]))
    text = "\r\n".join(expected)
    (tmp_path / "list.txt").write_bytes(text.encode("utf-8-sig"))
    assert [source.name for source in list_all(tmp_path / "list.txt")] == expected
    (tmp_path / "list.txt").write_bytes(text.encode("utf-16"))
    with pytest.raises(ValueError, match=r"list\.txt is no text file in UTF-8.*save it in UTF-8"):
        list_all(tmp_path / "list.txt")


def test_files_of_several_arguments_count_once(
    write_images: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [image.relative_to(tmp_path) for image in write_images(tmp_path / "in", 4)]
    monkeypatch.chdir(tmp_path)
    assert len(list_all("in", "./in", "in/")) == 4
    Path("list.txt").write_text(f"{images[0]}\n./{images[0]}\n{images[2]}\n")
    assert len(list_all("list.txt", "in/sub0/*.png", images[0])) == 3
    for argument in ("list.txt", f"*/sub0/{images[0].name}"):
        with pytest.raises(ValueError, match=r"is in the folder .*in, which is also given"):
            list_all(argument, "in")


def test_results_are_no_inputs(write_images: Write, tmp_path: Path) -> None:
    images = write_images(tmp_path / "in", 4)
    out = tmp_path / "in/out"
    (out / "drawings").mkdir(parents=True)
    (out / "drawings/0.png").write_bytes(images[0].read_bytes())
    assert len(list_all(f"{tmp_path}/in/**/*.png", out=out)) == 4
    assert len(list_all(f"{tmp_path}/in/sub0/*.png", out=tmp_path / "in")) == 2
    for argument in (tmp_path / "in", f"{tmp_path}/in/*/*.png"):
        with pytest.raises(ValueError, match=r"the folder of the inputs .* is also --out: choose another"):
            list_all(argument, out=tmp_path / "in")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes")
def test_circular_links_and_pipes_are_errors(tmp_path: Path) -> None:
    for name in ("a.png", "a.tar"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "b.png").symlink_to(tmp_path / "b.png")
    found = list_all(tmp_path)
    assert len(found) == 3
    for source, message in zip(found, ("is a pipe", "is a pipe", "cannot be read"), strict=True):
        with pytest.raises(OSError, match=message):
            SourceReader().read(source)


def test_tiny_files_and_values_of_other_types_are_errors(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(OSError, match=r"a\.png \(1 bytes\) cannot be decoded"):
        SourceReader().read(ImageSource(str(tmp_path / "a.png")))
    with pytest.raises(OSError, match="row is of the type list: expected the bytes of an image file"):
        image_bytes([[1, 2]], "row")


def test_containers_that_cannot_be_read_in_place_are_errors(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(b"")
    (source,) = list_all(tmp_path)
    assert "unpack it" in source.error
    (source,) = list_all("https://example.com/a.tar")
    assert "is a URL, of which only image files are read: download it" in source.error


def test_damaged_row_group_is_read_once(write_images: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq = write_parquet(tmp_path / "a.parquet", {"image": [image.read_bytes() for image in write_images(tmp_path, 3)]})
    found = list_all(pq)
    content = bytearray(pq.read_bytes())
    content[4:-1000] = bytes(len(content) - 1004)
    pq.write_bytes(content)
    read = SourceReader._read_group
    calls: list[int] = []
    monkeypatch.setattr(SourceReader, "_read_group", lambda *args: (calls.append(args[2]), read(*args))[1])
    reader = SourceReader()
    for source in found:
        with pytest.raises(OSError, match=r"a\.parquet cannot be read"):
            reader.read(source)
    assert calls == [0]
