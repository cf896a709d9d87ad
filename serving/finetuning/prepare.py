"""Lays a job's inputs out in its folder: data out of the blobs, one configuration file."""

from __future__ import annotations

from pathlib import Path

from finetune.run_folder import dump, write_whole
from serving.errors import CorralError
from serving.finetuning.run_config import run_config
from serving.finetuning.settings import Workplace
from serving.finetuning.shop import Shop
from serving.store.errors import NotFound
from serving.store.jobs import Job

PARTS = ("training", "validation")


class MissingFile(CorralError):
    """A file of the job is gone. `part` is `training` or `validation`."""

    def __init__(self, part: str, id: str) -> None:
        super().__init__(f"the file {id} is gone; upload it again and make a new job")
        self.part = part


def prepare(shop: Shop, job: Job) -> Workplace:
    """Write what is not there yet: attempts of one job all work from the same inputs.

    Raises MissingFile, CannotTrain, StoreUnavailable.
    """
    place = shop.settings.work(job.id)
    if not place.config.exists():
        place.run.parent.mkdir(parents=True, exist_ok=True)
        _write(shop, job, place, place.config, _live(shop, job))
    return place


def prepare_check(shop: Shop, job: Job) -> Path:
    """What looking through the data needs: it lies in the job's folder. Raises as `prepare`."""
    place = shop.settings.work(job.id)
    target = place.folder / "check.yaml"
    _write(shop, job, place, target, None)
    return target


def _write(shop: Shop, job: Job, place: Workplace, target: Path, live: Path | None) -> None:
    place.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    sources: list[Path | None] = []
    for part, id in zip(PARTS, (job.training_file, job.validation_file), strict=True):
        if id is not None and not place.data(part).exists():
            _copy(shop, job, part, id, place.data(part))
        # By its name alone: messages say it, and the trainer works in this folder.
        sources.append(None if id is None else Path(place.data(part).name))
    training, validation = sources
    assert training is not None
    write_whole(target, dump(run_config(shop.settings, job, training, validation, live)))


def clear(place: Workplace) -> None:
    """Remove the copies of the data once the job is over. The log and the run stay."""
    for part in PARTS:
        place.data(part).unlink(missing_ok=True)


def _copy(shop: Shop, job: Job, part: str, id: str, target: Path) -> None:
    partial = target.with_name(f".{target.name}.part")
    try:
        with partial.open("wb") as file:
            for chunk in shop.blobs.open(job.tenant_id, id):
                file.write(chunk)
    except (NotFound, FileNotFoundError) as exc:
        partial.unlink(missing_ok=True)
        raise MissingFile(part, id) from exc
    partial.replace(target)


def _live(shop: Shop, job: Job) -> Path | None:
    """The adapter that the job's will stand against."""
    if job.adapter is None:
        return None
    adapters = shop.settings.adapters()
    live = adapters.state(job.adapter).live
    return None if live is None else shop.settings.home.adapters / job.adapter / live
