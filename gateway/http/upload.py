"""An upload: one file of a form, written while it is received and never held in memory.

Source of the form: RFC 7578; parsed by python-multipart, which calls back for every piece.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import BinaryIO

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from ..batches.storage.store import Store
from ..openai.api_error import Problem

PIECE_BYTES = 1024 * 1024
FIELD_BYTES = 1024
"""Most bytes of all form fields that are not the file."""
HEADER_BYTES = 4096
BESIDE_BYTES = 16 * 1024
"""Most bytes of the form beside its file: names, headers, boundaries, and what follows its end."""


class Upload:
    """A form with fields and one file. ``fields``, ``filename``, ``size`` and ``lines`` are filled as it is received.

    Args:
        content_type: the header of the request, with the boundary.
        most_bytes: the largest file.
    """

    def __init__(self, content_type: str, most_bytes: int) -> None:
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not (boundary := options.get(b"boundary")):
            raise Problem(400, "the body is no form: send multipart/form-data with the fields purpose and file")
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.size = 0
        self.lines = 0
        self.ended = False
        self._most_bytes = most_bytes
        self._header: list[bytearray] = [bytearray(), bytearray()]
        self._headers: dict[bytes, bytes] = {}
        self._name = ""
        self._is_file = False
        self._field = bytearray()
        self._piece = bytearray()
        self._held = 0
        self._came = 0
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._part_begin,
                    "on_header_field": lambda data, start, end: self._head(0, data[start:end]),
                    "on_header_value": lambda data, start, end: self._head(1, data[start:end]),
                    "on_header_end": self._header_end,
                    "on_headers_finished": self._headers_finished,
                    "on_part_data": lambda data, start, end: self._data(data[start:end]),
                    "on_part_end": self._part_end,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise Problem(400, f"the form cannot be read: {error}") from None

    async def save(self, chunks: AsyncIterator[bytes], store: Store, name: str) -> None:
        """Write the file under that name, atomically.

        Raises:
            Problem: the form or the file is invalid; nothing is kept.
        """
        with ExitStack() as stack:
            # On threads, because a store may be slow; entered, written to and left one after the other.
            file: BinaryIO = await asyncio.to_thread(stack.enter_context, store.writing(name))
            async for chunk in chunks:
                self._read(chunk)
                if len(self._piece) >= PIECE_BYTES:
                    await asyncio.to_thread(self._write, file)
            await asyncio.to_thread(self._write, file)
            self._complete()
            await asyncio.to_thread(stack.pop_all().__exit__, None, None, None)

    def _read(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise Problem(400, f"the form cannot be read: {error}") from None
        self._came += len(chunk)
        if self._came - self.size > BESIDE_BYTES + len(chunk):
            raise Problem(413, f"the form has more than {BESIDE_BYTES} bytes beside its file", code="form_too_large")

    def _write(self, file: BinaryIO) -> None:
        self.lines += self._piece.count(b"\n")
        file.write(self._piece)
        self._piece = bytearray()

    def _complete(self) -> None:
        if not self.ended:
            raise Problem(400, "the form ends before its end: send all of it", code="incomplete_upload")
        if self.filename is None:
            raise Problem(400, "file is missing", param="file", code="missing_required_parameter")

    def _part_begin(self) -> None:
        self._headers, self._header, self._field = {}, [bytearray(), bytearray()], bytearray()

    def _head(self, which: int, data: bytes) -> None:
        self._header[which] += data
        if sum(map(len, self._header)) > HEADER_BYTES:
            raise Problem(400, "a header of the form is too long")

    def _header_end(self) -> None:
        field, value = self._header
        self._headers[bytes(field).lower()] = bytes(value)
        self._header = [bytearray(), bytearray()]

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._name = options.get(b"name", b"").decode(errors="replace")
        self._is_file = self._name == "file"
        if self._is_file:
            if self.filename is not None:
                raise Problem(400, "the form has two files: send one", param="file", code="invalid_value")
            self.filename = options.get(b"filename", b"upload.jsonl").decode(errors="replace")[:255]

    def _data(self, data: bytes) -> None:
        if self._is_file:
            self.size += len(data)
            if self.size > self._most_bytes:
                message = (
                    f"the file is larger than the {self._most_bytes} bytes allowed (max_file_bytes, max_files_bytes)"
                )
                raise Problem(413, message, param="file", code="file_too_large")
            self._piece += data
            return
        self._field += data
        self._held += len(data)
        if self._held > FIELD_BYTES:
            raise Problem(400, f"the fields of the form are longer than {FIELD_BYTES} bytes", param=self._name)

    def _part_end(self) -> None:
        if not self._is_file:
            self.fields[self._name] = self._field.decode(errors="replace")

    def _end(self) -> None:
        self.ended = True
