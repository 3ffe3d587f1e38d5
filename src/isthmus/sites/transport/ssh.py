"""Commands over ssh, on one connection that is kept and made again when it breaks; the host's key is always checked."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shlex
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

import asyncssh

from isthmus.domain.errors import Invalid, Unavailable
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
MAX_RETIRED = (
    3  # connections kept only for the commands that still run on them: a slow host gets no more than these and one
)
logging.getLogger("asyncssh").setLevel(logging.WARNING)  # it would log every command
_CHANNEL_NOT_OPENED = 2  # SSH_OPEN_CONNECT_FAILED, RFC 4254 section 5.1
_BROKEN = (OSError, asyncssh.Error, EOFError)


class SshTransport:
    """Runs commands at `user@host`. `known_hosts` names the file that holds the host's key (default: the user's own)."""

    def __init__(
        self,
        *,
        host: str,
        user: str,
        port: int = 22,
        key_file: str = "",
        known_hosts: str = "",
        max_commands: int = 8,
        connect_timeout_seconds: float = 15.0,
        switch_account: str = "none",
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._known_hosts = Path(known_hosts or "~/.ssh/known_hosts").expanduser()
        if not self._known_hosts.is_file():
            raise Invalid(
                "known_hosts",
                f"{self._known_hosts} is not a file.",
                remedy="Put the host's key there (ssh-keyscan, checked by eye); host keys are never taken on trust.",
            )
        self._key_file = Path(key_file).expanduser() if key_file else None
        if self._key_file is not None and not self._key_file.is_file():
            raise Invalid("key_file", f"{self._key_file} is not a file.", remedy="Give the path of a private key.")
        self._host, self._port, self._user = host, port, user
        self._connect_timeout = connect_timeout_seconds
        self._turns = Turns(max_commands)
        self._switch = switch_account
        self._env = check_environment(env or {})
        self._connection: asyncssh.SSHClientConnection | None = None
        self._retired: list[asyncssh.SSHClientConnection] = []
        self._connecting = asyncio.Lock()

    @property
    def place(self) -> str:
        """For messages."""
        return f"{self._user}@{self._host}:{self._port}"

    @property
    def own_account(self) -> str:
        """The account that logs in."""
        return self._user

    @property
    def is_local(self) -> bool:
        """Paths at the site are not paths here, even if the host happens to be this one."""
        return False

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
        line = self._line(command, account)
        async with self._turns.take(carries):
            process = await self._start(line, timeout_seconds)
            try:
                async with asyncio.timeout(timeout_seconds):
                    out, err = await together(
                        _feed(process, stdin),
                        _read(process.stdout, MAX_OUTPUT_BYTES, strict=True),
                        _read(process.stderr, STDERR_KEPT_BYTES),
                    )
                    await process.wait_closed()
            except TimeoutError:
                _kill(process)
                raise TimedOut(f"A command on {self.place} took more than {timeout_seconds:g} s.") from None
            except _BROKEN as broken:
                raise Unavailable(f"The connection to {self.place} broke: {_say(broken)}.") from None
            except BaseException:
                _kill(process)
                raise
            finally:
                process.close()
            return CommandResult(exit_code=self._exit_code(process), stdout=out, stderr=err)

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
        line = self._line(command, account)
        async with self._turns.take(carries):
            process = await self._start(line, timeout_seconds)
            feeding = asyncio.create_task(_feed(process, stdin))
            errors = asyncio.create_task(_read(process.stderr, STDERR_KEPT_BYTES))
            try:
                while chunk := await asyncio.wait_for(process.stdout.read(_CHUNK_BYTES), timeout_seconds):
                    yield chunk
                await asyncio.wait_for(feeding, timeout_seconds)
                await asyncio.wait_for(process.wait_closed(), timeout_seconds)
                result = CommandResult(exit_code=self._exit_code(process), stdout=b"", stderr=await errors)
            except TimeoutError:
                _kill(process)
                raise TimedOut(f"A command on {self.place} was silent for more than {timeout_seconds:g} s.") from None
            except _BROKEN as broken:
                raise Unavailable(f"The connection to {self.place} broke: {_say(broken)}.") from None
            finally:
                process.close()
                for task in (feeding, errors):
                    task.cancel()
                await asyncio.gather(feeding, errors, return_exceptions=True)
            if result.exit_code != 0:
                cause = result.complaint or f"exit code {result.exit_code}"
                raise CommandFailed(f"A command on {self.place} failed: {cause}.", result)

    async def close(self) -> None:
        """Close the connection."""
        connections = [*self._retired, *([self._connection] if self._connection is not None else [])]
        self._connection, self._retired = None, []
        for connection in connections:
            connection.close()
            with contextlib.suppress(*_BROKEN, TimeoutError):
                await asyncio.wait_for(connection.wait_closed(), 5)

    def _line(self, command: Command, account: str) -> str:
        argv = build_argv(command, account=account, own=self._user, switch=self._switch, env=self._env)
        line = "exec " + shlex.join(argv)
        if account and account != self._user and self._switch == "runuser":  # runuser keeps the caller's HOME
            line = f"HOME=~{account}; USER={account}; LOGNAME={account}; export HOME USER LOGNAME; cd /; {line}"
        return line

    async def _start(self, line: str, timeout_seconds: float) -> Any:
        for last_try in (False, True):
            connection = await self._connect()
            try:
                async with asyncio.timeout(timeout_seconds):
                    return await connection.create_process(line, encoding=None)
            except TimeoutError:
                self._forget(connection)
                raise TimedOut(f"{self.place} did not start a command in {timeout_seconds:g} s.") from None
            except _BROKEN as broken:
                if connection.is_closed():
                    self._forget(connection)
                # A kept connection may have died in silence. Only where no channel was opened is it certain that
                # nothing ran; a connection lost after that may have carried the command across.
                unsent = isinstance(broken, asyncssh.ChannelOpenError) and broken.code == _CHANNEL_NOT_OPENED
                if last_try or not unsent:
                    raise Unavailable(f"{self.place} did not start a command: {_say(broken)}.") from None
        raise AssertionError("unreachable")

    async def _connect(self) -> asyncssh.SSHClientConnection:
        async with self._connecting:
            if self._connection is not None and not self._connection.is_closed():
                return self._connection
            try:
                self._connection = await asyncio.wait_for(
                    asyncssh.connect(
                        self._host,
                        self._port,
                        username=self._user,
                        client_keys=[str(self._key_file)] if self._key_file else (),
                        known_hosts=str(self._known_hosts),
                        config=None,
                        connect_timeout=self._connect_timeout,
                        login_timeout=self._connect_timeout,
                        keepalive_interval=15,
                        keepalive_count_max=3,
                    ),
                    self._connect_timeout * 2,
                )
            except asyncssh.HostKeyNotVerifiable:
                raise Unavailable(
                    f"The key of {self.place} is not the one in {self._known_hosts}.",
                    remedy="Find out why; put the right key there only after checking it with the site.",
                    code="host_key",
                ) from None
            except asyncssh.PermissionDenied:
                raise Unavailable(
                    f"{self.place} does not accept the key.",
                    remedy="Put the public key into that account's authorized_keys.",
                    code="login_refused",
                ) from None
            except (TimeoutError, *_BROKEN, asyncssh.KeyImportError) as error:
                raise Unavailable(f"{self.place} cannot be reached: {_say(error)}.") from None
            return self._connection

    def _forget(self, connection: asyncssh.SSHClientConnection) -> None:
        """Make the next command use a new connection; other commands on this one may still come to their end."""
        if self._connection is connection:
            self._connection = None
        if not connection.is_closed():
            self._retired.append(connection)
        self._retired = [kept for kept in self._retired if not kept.is_closed()]
        while len(self._retired) > MAX_RETIRED:
            self._retired.pop(0).close()

    def _exit_code(self, process: Any) -> int:
        if process.exit_status is None:
            raise Unavailable(f"The connection to {self.place} broke before the command's end was told.")
        if process.exit_signal is not None:
            return -15
        return int(process.exit_status)


def _say(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, asyncssh.Error):
        return str(error.reason) or type(error).__name__
    return getattr(error, "strerror", None) or type(error).__name__


def _kill(process: Any) -> None:
    with contextlib.suppress(*_BROKEN):
        process.kill()


async def _feed(process: Any, stdin: Stdin) -> None:
    try:
        if isinstance(stdin, bytes):
            for start in range(0, len(stdin), _CHUNK_BYTES):
                process.stdin.write(stdin[start : start + _CHUNK_BYTES])
                await process.stdin.drain()
        elif stdin is not None:
            async for chunk in stdin:
                process.stdin.write(chunk)
                await process.stdin.drain()
        process.stdin.write_eof()
    except (BrokenPipeError, ConnectionResetError):
        pass  # the command did not want all of it; its exit code says what that means


async def _read(pipe: Any, limit: int, *, strict: bool = False) -> bytes:
    kept = bytearray()
    while chunk := await pipe.read(_CHUNK_BYTES):
        kept += chunk
        if len(kept) > limit:
            if strict:
                raise Unavailable(f"A command answered with more than {limit} bytes.")
            del kept[:-limit]
    return bytes(kept)
