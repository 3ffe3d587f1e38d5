"""Commands on this host, in process groups of their own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import signal
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path

from isthmus.domain.errors import Refused, Unavailable
from isthmus.sites.transport.port import (
    DEFAULT_TIMEOUT_SECONDS,
    MAX_OUTPUT_BYTES,
    STDERR_KEPT_BYTES,
    Command,
    CommandFailed,
    CommandResult,
    Stdin,
    TimedOut,
    build_argv,
    check_environment,
)
from isthmus.sites.transport.together import together
from isthmus.sites.transport.turns import Carries, Turns

_CHUNK_BYTES = 256 * 1024
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class LocalTransport:
    """Runs commands here; a command that is too slow is killed with its whole process group."""

    def __init__(
        self, *, max_commands: int = 8, switch_account: str = "none", env: Mapping[str, str] | None = None
    ) -> None:
        self._turns = Turns(max_commands)
        self._switch = switch_account
        self._env = check_environment(env or {})
        self._own = pwd.getpwuid(os.geteuid()).pw_name

    @property
    def place(self) -> str:
        """For messages."""
        return "this host"

    @property
    def own_account(self) -> str:
        """The account of this process."""
        return self._own

    @property
    def is_local(self) -> bool:
        """Paths at the site are paths here."""
        return True

    async def run(
        self,
        command: Command,
        *,
        stdin: Stdin = None,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        account: str = "",
        carries: Carries = Carries.NOTHING,
    ) -> CommandResult:
        """Run to its end; see Transport."""
        async with self._turns.take(carries):
            try:
                process = await self._start(command, account, with_stdin=stdin is not None)
            except FileNotFoundError as error:
                return CommandResult(exit_code=127, stdout=b"", stderr=f"{error.filename}: not found".encode())
            try:
                async with asyncio.timeout(timeout_seconds):
                    out, err = await together(
                        _feed(process, stdin),
                        _read(process.stdout, MAX_OUTPUT_BYTES, strict=True),
                        _read(process.stderr, STDERR_KEPT_BYTES),
                    )
                    code = await process.wait()
            except TimeoutError:
                raise TimedOut(f"A command on {self.place} took more than {timeout_seconds:g} s.") from None
            finally:
                await _end(process)
            return CommandResult(exit_code=code, stdout=out, stderr=err)

    async def stream(
        self,
        command: Command,
        *,
        stdin: Stdin = None,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        account: str = "",
        carries: Carries = Carries.NOTHING,
    ) -> AsyncGenerator[bytes, None]:
        """Standard output as it comes; see Transport."""
        async with self._turns.take(carries):
            try:
                process = await self._start(command, account, with_stdin=stdin is not None)
            except FileNotFoundError as error:
                missing = CommandResult(exit_code=127, stdout=b"", stderr=b"not found")
                raise CommandFailed(f"{error.filename} is not installed on {self.place}.", missing) from None
            feeding = asyncio.create_task(_feed(process, stdin))
            errors = asyncio.create_task(_read(process.stderr, STDERR_KEPT_BYTES))
            try:
                assert process.stdout is not None
                while chunk := await asyncio.wait_for(process.stdout.read(_CHUNK_BYTES), timeout_seconds):
                    yield chunk
                await asyncio.wait_for(feeding, timeout_seconds)
                code = await asyncio.wait_for(process.wait(), timeout_seconds)
                result = CommandResult(exit_code=code, stdout=b"", stderr=await errors)
            except TimeoutError:
                raise TimedOut(f"A command on {self.place} was silent for more than {timeout_seconds:g} s.") from None
            finally:
                await _end(process)
                for task in (feeding, errors):
                    task.cancel()
                await asyncio.gather(feeding, errors, return_exceptions=True)
            if code != 0:
                raise CommandFailed(
                    f"A command on {self.place} failed: {result.complaint or f'exit code {code}'}.", result
                )

    async def close(self) -> None:
        """Nothing is kept between commands."""

    async def _start(self, command: Command, account: str, *, with_stdin: bool) -> asyncio.subprocess.Process:
        argv = build_argv(command, account=account, own=self._own, switch=self._switch, env=self._env)
        env = self._base_environment(account or self._own)
        try:
            return await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.PIPE if with_stdin else asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=env,
                cwd="/",
                start_new_session=True,
            )
        except FileNotFoundError:
            raise
        except OSError as error:
            raise Unavailable(f"No command can be started on {self.place}: {error.strerror}.") from None

    def _base_environment(self, account: str) -> dict[str, str]:
        try:
            entry = pwd.getpwnam(account)
        except KeyError:
            raise Refused(
                f"There is no account {account} on {self.place}.", remedy="Create it or map the user to another."
            ) from None
        path = os.environ.get("PATH", _PATH) if account == self._own else _PATH
        home = entry.pw_dir if Path(entry.pw_dir).is_dir() else "/"
        names = {"PATH": path, "HOME": home, "USER": account, "LOGNAME": account, "SHELL": "/bin/sh"}
        return names | {"LANG": os.environ.get("LANG", "C.UTF-8")}


async def _feed(process: asyncio.subprocess.Process, stdin: Stdin) -> None:
    pipe = process.stdin
    if pipe is None or stdin is None:
        return
    try:
        if isinstance(stdin, bytes):
            pipe.write(stdin)
            await pipe.drain()
        else:
            async for chunk in stdin:
                pipe.write(chunk)
                await pipe.drain()
    except (BrokenPipeError, ConnectionResetError):
        pass  # the command did not want all of it; its exit code says what that means
    finally:
        pipe.close()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            await pipe.wait_closed()


async def _read(pipe: asyncio.StreamReader | None, limit: int, *, strict: bool = False) -> bytes:
    assert pipe is not None
    kept = bytearray()
    while chunk := await pipe.read(_CHUNK_BYTES):
        kept += chunk
        if len(kept) > limit:
            if strict:
                raise Unavailable(f"A command answered with more than {limit} bytes.")
            del kept[:-limit]
    return bytes(kept)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill what is left of the command's process group and reap it."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), 10)
    transport = getattr(process, "_transport", None)
    if transport is not None:
        transport.close()
