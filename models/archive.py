"""From the service's own archive to a bundle: its decisions and their outcomes train, without any table (R14)."""

from pathlib import Path

from features import archive
from features.place import HERE, Place
from features.schema import Schema
from models.bundle import DEEP
from models.recipe import TrainConfig
from models.tables import Say, silent
from models.train import train


def train_archive(
    schema: Schema,
    folder: Path,
    out: Path,
    config: TrainConfig,
    *,
    command: str = "",
    warn: Say = silent,
    progress: Say = silent,
    place: Place = HERE,
) -> Path:
    """A bundle in the folder `out`, trained on the archived decisions of a schema.

    Codes of open categories have no text in an archive: they are told apart by how often they go bad alone. `warn` is
    told of decisions that cannot be read. The log is walked at `place`. Raises ArchiveError, TrainingError.
    """
    progress(f"replay of the archive {folder.name}")
    rows = archive.rows(folder, schema, warn=warn, place=place, deep=config.network == DEEP)
    return train(rows, out, config, command=command, progress=progress)
