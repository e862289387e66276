"""Prediction of images on a Ray cluster, or on all cores of one machine: Ray Data reads, places, retries and writes.

import posedy.ray

posedy.ray.predict("s3://bucket/images/", "s3://bucket/poses/", num_cpus=4)
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from posedy.files import file_digest
from posedy.images import decode_image
from posedy.inference.bulk.formats import columns_of
from posedy.inference.bulk.inputs import check_new_folder
from posedy.inference.bulk.pipeline import Job, UnitResult, predict_units
from posedy.inference.bulk.reading import image_bytes
from posedy.inference.detectors import DEFAULT_DETECTOR
from posedy.inference.estimator import PoseEstimator
from posedy.models.pretrained import DEFAULT, find_weights

try:
    import pyarrow as pa
    import ray
    from ray.data import Dataset
except ImportError as error:
    raise ImportError("posedy.ray needs Ray Data: pip install 'posedy[ray]'") from error

_READERS = 2  # threads of an actor that decode images


def predict(
    data: "Dataset | str | list[str]",
    out: str | None = None,
    *,
    model: str | os.PathLike[str] = DEFAULT,
    detector: str = DEFAULT_DETECTOR,
    flip: bool = True,
    box_threshold: float | None = None,
    image_column: str = "bytes",
    name_column: str = "path",
    actors: int | None = None,
    num_cpus: float = 1,
    num_gpus: float = 0,
    batch_size: int = 64,
) -> "Dataset":
    """Predicts the poses of the images of a Ray dataset in a pool of actors, each with a detector and a network.

    An actor that dies is replaced, and its batch predicted again.

    Args:
        data: a dataset with the content of image files, such as `ray.data.read_parquet(...)`; or a path or paths that
            Ray reads: folders and files, local or in S3, Google Cloud Storage and so on.
        out: the folder or cloud path of Parquet files, without files; None writes none.
        model: a preset, the name of a pretrained network or a file that all machines have, see `PoseEstimator`.
        detector: a name of `list_detectors()`.
        flip: run the flip test.
        box_threshold: minimum score of boxes, see `PoseEstimator`.
        image_column: the column with the bytes of image files.
        name_column: the column with the names of images.
        actors: the number of actors; None is as many as the cluster has CPUs for, or GPUs.
        num_cpus: the number of threads that an actor computes with; 1 is the best use of many cores.
        num_gpus: GPUs of an actor; 0.25 lets four actors share one.
        batch_size: number of images that an actor gets at a time.

    Returns:
        A dataset with a row for each image: the columns of `posedy predict --format parquet`, and `error`, the reason
        why an image has no poses, or null. It is computed when it is read; with `out`, it reads the written files.

    Raises:
        ValueError: if the model has no weights, a column is absent, or `out` has files.
    """
    weights = find_weights(model)
    check_new_folder(out)
    if not ray.is_initialized():
        ray.init()
    if actors is None:
        total = ray.cluster_resources()
        actors = max(1, int(total.get("GPU", 0) / num_gpus if num_gpus else total.get("CPU", 1) / num_cpus))
    dataset = data if isinstance(data, Dataset) else ray.data.read_binary_files(data, include_paths=True)
    for column in (image_column, name_column):
        if column not in (columns := dataset.columns() or []):
            raise ValueError(f"the dataset has no column {column!r}: its columns are {columns}")
    predicted = dataset.select_columns([image_column, name_column]).map_batches(
        _Predictor,
        fn_constructor_kwargs={
            "model": weights,
            "detector": detector,
            "device": "cuda" if num_gpus else "cpu",
            "flip": flip,
            "box_threshold": box_threshold,
        },
        fn_kwargs={"image_column": image_column, "name_column": name_column},
        batch_size=batch_size,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=_cpus_to_ask_for(actors, num_cpus),
        num_gpus=num_gpus or None,
        runtime_env={"env_vars": {"OMP_NUM_THREADS": str(max(1, round(num_cpus)))}},
    )
    if out is None:
        return predicted
    predicted.write_parquet(out)
    return ray.data.read_parquet(out)


def _cpus_to_ask_for(actors: int, num_cpus: float) -> float:
    """Returns the CPUs to ask Ray for: it counts them, but does not limit their use.

    One CPU stays free: if actors had all of them, they would wait for ever for images that no task can read.
    """
    total = ray.cluster_resources().get("CPU", 1)
    needed = actors * num_cpus
    return num_cpus if needed > total else num_cpus * min(1.0, (total - 1) / needed)


class _Predictor:
    """An actor: predicts batches of images.

    Args:
        model: the file of the network.
        options: of `PoseEstimator`.
    """

    def __init__(self, model: Path, **options: Any) -> None:
        self._estimator = PoseEstimator(model, **options)
        self._name = f"{self._estimator.name}@{file_digest(model)[:8]}"
        self._readers = ThreadPoolExecutor(_READERS)

    def __call__(self, batch: "pa.Table", image_column: str, name_column: str) -> "pa.Table":
        """Returns the results of a batch: a row for each image, those with errors last."""
        names = [str(name) for name in batch[name_column].to_pylist()]
        jobs = [
            Job(0, number, name, self._readers.submit(_decode, image, name))
            for number, (name, image) in enumerate(zip(names, batch[image_column], strict=True))
        ]
        unit = next(iter([*predict_units(jobs, self._estimator)]), UnitResult(0))  # no unit of an empty batch
        columns = columns_of(unit.results, self._estimator.skeleton, self._name)
        failed, errors = (pa.array([error[part] for error in unit.errors], pa.string()) for part in (0, 1))
        predicted = pa.table(columns | {"error": pa.nulls(len(unit.results), pa.string())})
        # other columns of failed images are null
        return pa.concat_tables([predicted, pa.table({"image": failed, "error": errors})], promote_options="default")


def _decode(image: Any, name: str) -> Any:
    """Decodes an image of the dataset as RGB."""
    return decode_image(image_bytes(image.as_py(), name), name, apply_exif=True)
