"""File names of a LeRobot dataset, made from the templates in ``meta/info.json``."""

from __future__ import annotations

import re
from pathlib import PurePosixPath, PureWindowsPath
from string import Formatter

from diffusion_policy.util.errors import UserError

_PADDED_NUMBER = re.compile(r"(0?\d?d)?")


class FileTemplate:
    """A path below the dataset's folder with numbers and names to fill in.

    Args:
        text: such as ``data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet``.
        key: of info.json, for messages.
        fields: that the text may name.
        needed: one of them that it has to name, or several episodes would have one file.

    Raises:
        UserError: without the file; the text leads out of the folder, or asks for more than to
            fill in these fields.
    """

    def __init__(
        self, text: str, key: str, fields: tuple[str, ...], needed: str | None = None
    ) -> None:
        try:
            if not text.isprintable():  # no file of a data set is called so
                raise ValueError
            parsed = list(Formatter().parse(text))
        except ValueError:
            raise UserError(f"{key} is {text[:120]!r}, which is no template of a file") from None
        for _, field, spec, conversion in parsed:
            known = field in fields and not conversion
            allowed = not spec or (field != "video_key" and _PADDED_NUMBER.fullmatch(spec))
            if field is not None and not (known and allowed):
                raise UserError(
                    f"{key} is {text[:120]!r}; its fields may be {', '.join(fields)}, as whole "
                    "numbers of fixed width"
                )
        parts = PurePosixPath(text).parts
        leads_out = text.startswith("/") or ".." in parts or "\\" in text or "\0" in text
        if leads_out or PureWindowsPath(text).drive:
            raise UserError(f"{key} is {text[:120]!r}, which leads out of the data set")
        if needed is not None and needed not in (field for _, field, _, _ in parsed):
            raise UserError(f"{key} is {text[:120]!r}, which gives all episodes one file")
        self._text = text

    def fill(self, **values: int | str) -> str:
        """The path with these values; names come from features, which were checked."""
        return self._text.format(**values)
