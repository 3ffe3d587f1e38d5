"""libnftables through ctypes: one ruleset text is one transaction of the kernel, without starting a program."""

from __future__ import annotations

import ctypes
import ctypes.util

from isthmus.domain.errors import Refused, Unavailable

_NAME = "libnftables.so.1"


class Nftables:
    """One context, in the network namespace of the thread that made it."""

    def __init__(self) -> None:
        """Open it; raises Unavailable where the library is not installed."""
        try:
            library = ctypes.CDLL(_NAME)
        except OSError:
            raise Unavailable(f"{_NAME} is not installed.", remedy="Install the package nftables.") from None
        library.nft_ctx_new.restype = ctypes.c_void_p
        library.nft_ctx_new.argtypes = [ctypes.c_uint32]
        for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error", "nft_ctx_free"):
            getattr(library, name).argtypes = [ctypes.c_void_p]
        for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
            getattr(library, name).argtypes = [ctypes.c_void_p]
            getattr(library, name).restype = ctypes.c_char_p
        library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        self._library = library
        self._context = library.nft_ctx_new(0)
        library.nft_ctx_buffer_output(self._context)
        library.nft_ctx_buffer_error(self._context)

    def run(self, commands: str) -> str:
        """Run commands as one transaction and return what they print; raises Refused with the library's words."""
        failed = self._library.nft_run_cmd_from_buffer(self._context, commands.encode())
        output: bytes = self._library.nft_ctx_get_output_buffer(self._context)
        error: bytes = self._library.nft_ctx_get_error_buffer(self._context)
        if failed:
            raise Refused(f"nftables: {error.decode(errors='replace').strip()[:500]}.")
        return output.decode(errors="replace")

    def table(self, family: str, name: str) -> str | None:
        """The text of a table, or None when there is none."""
        try:
            return self.run(f"list table {family} {name}")
        except Refused:
            return None

    def close(self) -> None:
        """Give the context back."""
        self._library.nft_ctx_free(self._context)
