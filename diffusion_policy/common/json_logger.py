"""The log as users of the original diffusion_policy call it; the code is in util.json_logger."""

from __future__ import annotations

import copy
import numbers
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from diffusion_policy.util import json_logger
from diffusion_policy.util.errors import UserError

if TYPE_CHECKING:
    import pandas


class JsonLogger:
    """Appends records to a file that may hold some; use as a context manager, or start and stop.

    Args:
        path: the file.
        filter_fn: says of a name and a value whether to log them; by default numbers are.
    """

    def __init__(
        self, path: str | Path, filter_fn: Callable[[str, Any], bool] | None = None
    ) -> None:
        self.path = Path(path)
        self.filter_fn = filter_fn or (lambda _, value: isinstance(value, numbers.Number))
        self.last_log: dict[str, Any] | None = None
        self._logger: json_logger.JsonLogger | None = None

    def start(self) -> None:
        """Open the file; a line torn by a crash is dropped."""
        records = json_logger.read_log(self.path)
        self.last_log = records[-1] if records else None
        self._logger = json_logger.JsonLogger(self.path, keep=sys.maxsize)

    def stop(self) -> None:
        """Close the file."""
        if self._logger is not None:
            self._logger.__exit__()
            self._logger = None

    def log(self, data: Mapping[str, Any]) -> None:
        """Append one record."""
        if self._logger is None:
            raise UserError(f"the log {self.path} is closed; call start() or use `with`")
        self.last_log = {name: value for name, value in data.items() if self.filter_fn(name, value)}
        self._logger.log(self.last_log)

    def get_last_log(self) -> dict[str, Any] | None:
        """A copy of the newest record, also of one that an earlier process wrote."""
        return copy.deepcopy(self.last_log)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()


def read_json_log(
    path: str | Path, required_keys: Sequence[str] = (), **options: Any
) -> pandas.DataFrame:
    """The records that have one of ``required_keys`` (none given: all) as a data frame.

    Args:
        options: further arguments of ``pandas.DataFrame.from_records``.

    Raises:
        UserError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError:
        raise UserError(
            "read_json_log needs pandas, which is not installed; pip install pandas, or use "
            "diffusion_policy.util.json_logger.read_log, which gives a list of dicts"
        ) from None
    wanted = set(required_keys)
    records = json_logger.read_log(Path(path))
    chosen = [record for record in records if not wanted or wanted & record.keys()]
    return pandas.DataFrame.from_records(chosen, **options)
