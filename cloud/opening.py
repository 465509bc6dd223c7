"""Opens the store that a configuration names."""

from cloud.backup import STORE_FILE
from cloud.config import CloudConfig
from cloud.errors import ConfigError, Fault, StoreError
from cloud.store.sqlite import SqliteStore


def open_store(config: CloudConfig) -> SqliteStore:
    """Open the store of a configuration; raise ConfigError when its folder cannot be used."""
    folder = config.cloud.data_dir
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not config.history.enabled:
            return SqliteStore(folder / STORE_FILE)
        from cloud.store.parquet import History
        from cloud.store.tiers import TieredStore

        return TieredStore(folder / STORE_FILE, History(config.history_folder))
    except (OSError, StoreError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            [Fault("cloud.toml", "cloud.data_dir", f"{folder} cannot be written: {reason}")]
        ) from error
