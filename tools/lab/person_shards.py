"""Writes the persons of a COCO tree as WebDataset shards for training.

python -m tools.lab.person_shards ANNOTATIONS IMAGES --out FOLDER

A shard is a tar file with KEY.jpg, the part of the image around a person as in `tools/lab/packing.py`, and KEY.json,
its annotation in pixels of that image, for each person. Persons are in a random order, the same for the same file. The
folder's index.json is written last; `posedy train ... data.shards=FOLDER` reads it (`posedy/data/shards.py`). Shards
are for training only: neighbors are on separate images.
"""

import argparse
import hashlib
import importlib.util
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from posedy.data.coco import CocoPersons, read_coco
from posedy.data.shards import BLOCK, INDEX_FILE, Shard, ShardIndex
from posedy.files import atomic_write, named_write_errors, write_bytes_atomically
from tools.lab.entry import run_and_exit
from tools.lab.packing import crop_persons

SHARD_MB = 32.0
"""Default size of a shard: the shuffle buffer, 16 shards, is 512 MB, which file systems keep in memory."""

_SEED = 0


def write_shards(
    persons: CocoPersons,
    out: Path | str,
    *,
    shard_mb: float = SHARD_MB,
    per_shard: int | None = None,
    input_size: tuple[int, int] = (192, 256),
    padding: float = 1.25,
    quality: int = 85,
    progress: bool = False,
) -> Path:
    """Writes shards of equally many persons and their index.

    The same persons and options give the same bytes. Shards of an earlier call in the folder are replaced.

    Args:
        persons: the dataset, read with its image folder.
        out: output folder for persons-000000.tar, ... and index.json.
        shard_mb: approximate maximum size of a shard in megabytes.
        per_shard: maximum number of persons of a shard; None applies `shard_mb` instead.
        input_size: (W, H) of the training crops.
        padding: factor on the size of the boxes.
        quality: JPEG quality of the images.
        progress: whether to show a progress bar.

    Returns:
        The path of index.json.

    Raises:
        OSError: if an image cannot be read or a file cannot be written.
        ValueError: if an option is out of range, or webdataset is not installed.
    """
    if importlib.util.find_spec("webdataset") is None:
        raise ValueError("writing shards needs webdataset: pip install 'posedy[wds]'")
    if shard_mb <= 0:
        raise ValueError(f"shard_mb must be above 0, got {shard_mb:g}")
    if per_shard is not None and per_shard < 1:
        raise ValueError(f"per_shard must be at least 1, got {per_shard}")
    cropped = crop_persons(persons, input_size=input_size, padding=padding, quality=quality, progress=progress)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / INDEX_FILE).unlink(missing_ok=True)
    for path in out.glob("persons-[0-9]*.tar"):
        path.unlink()
    with tempfile.TemporaryFile(dir=out) as spool:
        samples: list[_Sample] = []
        for person in cropped:
            record = json.dumps(person.annotation, separators=(",", ":")).encode()
            key = f"{person.annotation['id']:012d}"
            samples.append(_Sample(key, spool.tell(), len(person.jpeg), len(record)))
            with named_write_errors(out):
                spool.write(person.jpeg + record)
        if per_shard is None:
            num_bytes = BLOCK * sum(sample.blocks for sample in samples)
            per_shard = -(-len(samples) // max(1, round(num_bytes / (1e6 * shard_mb))))
        order = np.random.default_rng(_SEED).permutation(len(samples))
        parts = np.array_split(order, -(-len(samples) // per_shard))
        with named_write_errors(out):
            shards = [
                _write_shard(out / f"persons-{number:06d}.tar", [samples[index] for index in part], spool)
                for number, part in enumerate(parts)
            ]
    index = ShardIndex(
        description=f"persons of {persons.annotations.name}",
        category=persons.skeleton.to_coco_category() | {"id": persons.category_id},
        input_size=input_size,
        padding=padding,
        shards=shards,
    )
    write_bytes_atomically(out / INDEX_FILE, index.model_dump_json().encode())
    return out / INDEX_FILE


class _Sample(NamedTuple):
    """A sample in the temporary file: the JPEG file, then the record."""

    key: str
    position: int
    jpeg_bytes: int
    record_bytes: int

    @property
    def blocks(self) -> int:
        """The number of tar blocks of both members with their headers."""
        return 2 + -(-self.jpeg_bytes // BLOCK) + -(-self.record_bytes // BLOCK)


def _write_shard(path: Path, samples: Sequence[_Sample], spool: BinaryIO) -> Shard:
    from webdataset.writer import TarWriter

    with atomic_write(path) as temporary:
        with temporary.open("wb") as file, TarWriter(file, user="", group="", mtime=0, encoder=False) as writer:
            for sample in samples:
                spool.seek(sample.position)
                jpeg, record = spool.read(sample.jpeg_bytes), spool.read(sample.record_bytes)
                writer.write({"__key__": sample.key, "jpg": jpeg, "json": record})
        with temporary.open("rb") as written:
            digest = hashlib.file_digest(written, "sha256").hexdigest()
    return Shard(
        name=path.name,
        num_samples=len(samples),
        num_bytes=path.stat().st_size,
        blocks=[sample.blocks for sample in samples],
        sha256=digest,
    )


def main(argv: list[str] | None = None) -> None:
    """Writes the shards of a COCO file."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.lab.person_shards",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("annotations", type=Path, help="COCO keypoint file")
    parser.add_argument("images", type=Path, help="folder of its images")
    parser.add_argument("--out", type=Path, required=True, help="output folder")
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--size", type=float, default=SHARD_MB, metavar="MB", help="approximate size of a shard (default: %(default)g)"
    )
    size.add_argument("--per-shard", type=int, metavar="N", help="maximum number of persons of a shard")
    parser.add_argument(
        "--input-size",
        type=int,
        nargs=2,
        default=(192, 256),
        metavar=("W", "H"),
        help="size of the training crops (default: 192 256)",
    )
    parser.add_argument(
        "--padding", type=float, default=1.25, help="factor on the size of the boxes (default: %(default)g)"
    )
    parser.add_argument("--quality", type=int, default=85, help="JPEG quality (default: %(default)s)")
    arguments = parser.parse_args(argv)
    persons = read_coco(arguments.annotations, arguments.images)
    print(persons.summary())
    path = write_shards(
        persons,
        arguments.out,
        shard_mb=arguments.size,
        per_shard=arguments.per_shard,
        input_size=tuple(arguments.input_size),
        padding=arguments.padding,
        quality=arguments.quality,
        progress=True,
    )
    shards = ShardIndex.read(path).shards
    megabytes = sum(shard.num_bytes for shard in shards) / 1e6
    print(f"wrote {len(persons)} persons in {len(shards)} shards ({megabytes:.1f} MB): data.shards={arguments.out}")


if __name__ == "__main__":
    run_and_exit(main, "person_shards")
