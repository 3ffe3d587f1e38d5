"""Transports against real processes and a real sshd."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from isthmus.domain.errors import Invalid, Refused, Unavailable
from isthmus.lab.accounts import Account
from isthmus.lab.sshd import SshServer
from isthmus.sites.transport import Carries, CommandFailed, LocalTransport, SshTransport, TimedOut, Transport
from isthmus.sites.transport.ssh import MAX_RETIRED


@pytest.fixture(params=["local", "ssh"])
async def transport(request: pytest.FixtureRequest) -> AsyncIterator[Transport]:
    """Each transport in turn."""
    made = LocalTransport() if request.param == "local" else over_ssh(request.getfixturevalue("ssh_server"))
    yield made
    await made.close()


def over_ssh(server: SshServer, **changes: str | int) -> SshTransport:
    """A transport to the lab's sshd."""
    options = {"key_file": str(server.client_key), "known_hosts": str(server.known_hosts), **changes}
    return SshTransport(host=server.host, port=server.port, user=server.username, **options)  # type: ignore[arg-type]


async def slow(content: bytes, pieces: int) -> AsyncIterator[bytes]:
    """A stream of many pieces."""
    for _ in range(pieces):
        await asyncio.sleep(0)
        yield content


async def test_input_output_and_exit_code(transport: Transport) -> None:
    """Bytes go in and out unchanged, and the exit code is told."""
    content = bytes(range(256)) * 5000
    result = await transport.run("cat; echo oops >&2; exit 3", stdin=content)
    assert (result.exit_code, result.stdout, result.complaint) == (3, content, "oops")


async def test_an_argument_list_keeps_every_argument(transport: Transport) -> None:
    """Arguments with quotes, spaces, line breaks and globs are not seen by any shell."""
    words = ["a b", "c'd", 'e"f', "$HOME", "*", "g\nh", "算", ""]
    result = await transport.run(["printf", "%s|", *words])
    assert result.text == "".join(f"{word}|" for word in words)


async def test_streams_in_and_out(transport: Transport) -> None:
    """Long data goes through in pieces, both ways."""
    result = await transport.run("wc -c", stdin=slow(b"x" * 100_000, 50))
    assert int(result.text) == 5_000_000
    length = 0
    async for chunk in transport.stream("head -c 3000000 /dev/zero"):
        length += len(chunk)
    assert length == 3_000_000


async def test_a_stream_tells_failure_at_its_end(transport: Transport) -> None:
    """The output before a failure is given, then the failure with its reason."""
    seen = b""
    with pytest.raises(CommandFailed, match="no more") as caught:
        async for chunk in transport.stream("printf begun; echo no more >&2; exit 4"):
            seen += chunk
    assert seen == b"begun"
    assert caught.value.result.exit_code == 4


async def test_a_command_that_wants_no_input_is_no_error(transport: Transport) -> None:
    """Input that the command leaves unread is dropped."""
    result = await transport.run("head -c 3", stdin=b"x" * 3_000_000)
    assert (result.exit_code, result.stdout) == (0, b"xxx")


async def test_a_program_that_is_missing_is_127(transport: Transport) -> None:
    """As a shell would say."""
    assert (await transport.run(["no-such-program-here"])).exit_code == 127


async def test_a_slow_command_times_out(transport: Transport) -> None:
    """The time-out is an Unavailable of its own kind, and says nothing of the command."""
    with pytest.raises(TimedOut) as caught:
        await transport.run("sleep 300; echo private", timeout_seconds=0.5)
    assert "private" not in str(caught.value)
    with pytest.raises(TimedOut):
        async for _ in transport.stream("sleep 300", timeout_seconds=0.5):
            pass
    assert (await transport.run("echo on")).text == "on\n"


async def test_a_broken_input_stream_is_passed_on(transport: Transport) -> None:
    """When the input fails the command is given up, and the failure is the caller's."""

    async def breaking() -> AsyncIterator[bytes]:
        yield b"some"
        raise Unavailable("The source broke.")

    with pytest.raises(Unavailable, match="The source broke"):
        await transport.run("cat >/dev/null; sleep 300", stdin=breaking())


async def test_commands_at_once_are_capped() -> None:
    """No more than max_commands run at a time; the rest wait."""
    transport = LocalTransport(max_commands=2)
    script = "n=$(ls -d {0}.* 2>/dev/null | wc -l); : >{0}.$$; sleep 0.1; rm {0}.$$; echo $n"
    mark = f"/tmp/isthmus-cap-{os.getpid()}"
    results = await asyncio.gather(*(transport.run(script.format(mark)) for _ in range(8)))
    assert max(int(result.text) for result in results) <= 1


async def test_commands_that_carry_content_leave_room(transport: Transport) -> None:
    """While more uploads and more downloads wait than there are turns, a short command has one, and the other direction goes on."""
    go = asyncio.Event()

    async def upload() -> AsyncIterator[bytes]:
        yield b"some"
        await go.wait()

    async def download() -> None:
        async with contextlib.aclosing(transport.stream("echo here; sleep 600", carries=Carries.OUT)) as chunks:
            async for _ in chunks:
                await go.wait()
                return

    uploads = [asyncio.create_task(transport.run("cat", stdin=upload(), carries=Carries.IN)) for _ in range(12)]
    async with asyncio.timeout(60):
        assert (await transport.run("echo one", carries=Carries.OUT)).text == "one\n"
        downloads = [asyncio.create_task(download()) for _ in range(12)]
        looks = await asyncio.gather(*(transport.run("echo look") for _ in range(4)))
        assert [look.text for look in looks] == ["look\n"] * 4
        assert not any(one.done() for one in (*uploads, *downloads))
        go.set()
        assert [result.stdout for result in await asyncio.gather(*uploads)] == [b"some"] * 12
        await asyncio.gather(*downloads)


async def test_content_passes_where_one_command_may_run() -> None:
    """With a single turn there is no room to leave: all go one after the other."""
    transport = LocalTransport(max_commands=1)
    asked = [transport.run(f"echo {carries}", carries=carries) for carries in Carries for _ in range(2)]
    async with asyncio.timeout(60):
        assert [result.text.strip() for result in await asyncio.gather(*asked)] == [
            c for c in Carries for _ in range(2)
        ]


async def test_a_slow_command_is_killed_with_all_its_processes() -> None:
    """What a local command started does not outlive its time-out."""
    mark = f"4{os.getpid()}77"
    with pytest.raises(TimedOut):
        await LocalTransport().run(f"sleep {mark} & sleep {mark}", timeout_seconds=0.5)
    until = time.monotonic() + 30
    while subprocess.run(["pgrep", "-f", f"^sleep {mark}$"], check=False, capture_output=True).stdout:
        assert time.monotonic() < until
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("switch", ["runuser", "sudo"])
async def test_another_account_acts_as_itself(lab_account: Account, switch: str) -> None:
    """A command for another account has that account's identity, home and name."""
    transport = LocalTransport(switch_account=switch)
    result = await transport.run('id -un; echo "$HOME $USER"', account=lab_account.name)
    assert result.text.split() == [lab_account.name, str(lab_account.home), lab_account.name]


async def test_another_account_is_refused_when_switching_is_off() -> None:
    """The refusal names the setting; the own account needs no switch."""
    transport = LocalTransport()
    with pytest.raises(Refused, match="switch_account"):
        await transport.run("true", account="daemon")
    assert (await transport.run("id -un", account=transport.own_account)).text.strip() == transport.own_account


async def test_an_account_name_never_reaches_a_shell() -> None:
    """Names that are none, or that look like options, are Invalid."""
    transport = LocalTransport(switch_account="runuser")
    for name in ("-u root", "a b", "$(id)", "a;b"):
        with pytest.raises((Invalid, Refused)):
            await transport.run("true", account=name)


async def test_the_wrong_host_key_is_refused(ssh_server: SshServer, tmp_path: Path) -> None:
    """A host that shows another key than the one on file is not talked to."""
    key = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    known = tmp_path / "known_hosts"
    known.write_text(f"[{ssh_server.host}]:{ssh_server.port} {key.with_suffix('.pub').read_text()}")
    transport = over_ssh(ssh_server, known_hosts=str(known))
    with pytest.raises(Unavailable) as caught:
        await transport.run("true")
    assert caught.value.code == "host_key"
    empty = tmp_path / "empty"
    empty.touch()
    with pytest.raises(Unavailable):
        await over_ssh(ssh_server, known_hosts=str(empty)).run("true")


async def test_the_wrong_key_is_refused(ssh_server: SshServer, tmp_path: Path) -> None:
    """A login that is not accepted is told as such."""
    key = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    with pytest.raises(Unavailable) as caught:
        await over_ssh(ssh_server, key_file=str(key)).run("true")
    assert caught.value.code == "login_refused"


async def test_a_connection_is_kept_and_made_again(ssh_server: SshServer) -> None:
    """One connection serves many commands; after the server went away and came back there is a new one."""
    transport = over_ssh(ssh_server)
    try:
        first = (await transport.run("echo $PPID")).text
        assert (await transport.run("echo $PPID")).text == first
        ssh_server.kill()
        try:
            with pytest.raises(Unavailable):
                await transport.run("echo $PPID")
        finally:
            ssh_server.start()
        assert (await transport.run("echo $PPID")).text != first
    finally:
        await transport.close()


async def test_a_connection_that_dies_mid_command_is_unavailable(ssh_server: SshServer) -> None:
    """The end of such a command is not known, and is not guessed."""
    transport = over_ssh(ssh_server)
    try:
        running = asyncio.create_task(transport.run("echo up; sleep 300"))
        while (
            not running.done()
            and subprocess.run(["pgrep", "-u", ssh_server.username, "sleep"], check=False, capture_output=True).stdout
            == b""
        ):
            await asyncio.sleep(0.05)
        ssh_server.kill()
        with pytest.raises(Unavailable):
            await asyncio.wait_for(running, 60)
    finally:
        with contextlib.suppress(Unavailable):
            await transport.close()
        ssh_server.start()


async def test_a_host_that_is_slow_again_and_again_gets_few_connections(ssh_server: SshServer) -> None:
    """Each command that does not start in time moves to a new connection; the ones before are closed but for a few."""
    transport = over_ssh(ssh_server)
    made = []
    try:
        for _ in range(MAX_RETIRED + 4):
            connection = await transport._connect()
            made.append(connection)
            transport._forget(connection)
        await transport.run("true")
        for connection in made[:-MAX_RETIRED]:
            await asyncio.wait_for(connection.wait_closed(), 10)
        assert not any(connection.is_closed() for connection in made[-MAX_RETIRED:])
    finally:
        await transport.close()
