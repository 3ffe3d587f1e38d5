"""The system packages that the lab's daemons come from: what is missing, and how to install it.

`python -m isthmus.lab.packages` installs what is missing on a Debian-like system when run as root; anywhere
else it says what is left out and ends well, so that a plain machine can still run everything but the lab.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")
POLICY = Path("/usr/sbin/policy-rc.d")
ATTEMPTS = 3

PACKAGES: dict[str, tuple[str, ...]] = {
    "slurm": (
        "slurmctld",
        "slurmd",
        "slurmdbd",
        "slurmrestd",
        "slurm-client",
        "slurm-wlm-basic-plugins",
        "slurm-wlm-mysql-plugin",
        "slurm-wlm-jwt-plugin",
        "munge",
        "mariadb-server",
        "libpmix2",
    ),
    "gridengine": ("gridengine-master", "gridengine-exec", "gridengine-client"),
    "sshd": ("openssh-server", "openssh-client"),
    "postgresql": ("postgresql",),
    "containers": ("podman", "runc", "bubblewrap", "busybox-static", "charliecloud-runtime", "uidmap"),
    "network": ("nftables", "iptables", "util-linux", "iputils-ping"),
    "browser": ("chromium", "fonts-wqy-microhei"),
    "tools": ("sudo", "strace", "iproute2"),
}
"""Feature -> the Debian packages it needs."""

BINARIES: dict[str, tuple[str, ...]] = {
    "slurm": (
        "slurmctld",
        "slurmd",
        "slurmdbd",
        "slurmrestd",
        "sbatch",
        "sacctmgr",
        "munged",
        "mariadbd",
        "mariadb-install-db",
    ),
    "gridengine": ("sge_qmaster", "sge_execd", "qsub", "qconf"),
    "sshd": ("sshd", "ssh", "ssh-keygen"),
    "postgresql": ("initdb", "postgres"),
    "containers": ("podman", "runc", "bwrap", "ch-run"),
    "network": ("nft", "iptables-legacy-restore", "ip6tables-legacy-restore", "nsenter", "unshare", "setpriv", "ping"),
    "browser": ("chromium",),
}
"""Feature -> the programs whose presence shows that it can run."""

NEEDS_ROOT = frozenset({"slurm", "gridengine", "network"})


def find_program(name: str) -> str | None:
    """Return the path of a program, also from the system directories that are not on an ordinary PATH."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *SBIN))
    found = shutil.which(name, path=path)
    if found is None and name in BINARIES["postgresql"]:
        versions = sorted(
            Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda program: program.parts[-3].zfill(4)
        )
        found = str(versions[-1]) if versions else None
    return found


def missing() -> dict[str, str | None]:
    """Return for each feature the reason why it cannot run here, or None when it can."""
    return {feature: _reason(feature) for feature in BINARIES}


def can_install() -> bool:
    """Tell whether this is root on a Debian-like system, where a missing daemon is a defect and not a choice."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None and shutil.which("dpkg-query") is not None


def install() -> int:
    """Install the missing packages where that is possible, print what was done; return the exit status."""
    if not can_install():
        left_out = [feature for feature, reason in missing().items() if reason]
        why = "not root" if os.geteuid() else "not a Debian-like system"
        print(f"lab packages: nothing installed ({why}); left out: {', '.join(left_out) or 'nothing'}")
        return 0
    wanted = _not_installed([package for packages in PACKAGES.values() for package in packages])
    if not wanted:
        print("lab packages: all there")
        return 0
    print(f"lab packages: installing {' '.join(wanted)}", flush=True)
    with _no_services_started():
        apt = ["apt-get", "-q", "-y", "-o", "Dpkg::Use-Pty=0", "-o", "DPkg::Lock::Timeout=120"]
        result = _retried([*apt, "update"])
        if result == 0:
            result = _retried([*apt, "install", "--no-install-recommends", *wanted])
    if result:
        print(f"lab packages: apt-get failed {ATTEMPTS} times (status {result})", file=sys.stderr)
    return result


def _reason(feature: str) -> str | None:
    absent = [name for name in BINARIES[feature] if find_program(name) is None]
    if absent:
        return f"{feature}: not installed: {', '.join(absent)} (run: python -m isthmus.lab.packages)"
    if feature in NEEDS_ROOT and os.geteuid():
        return f"{feature}: its daemons need root"
    return None


def _not_installed(packages: Sequence[str]) -> list[str]:
    query = ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *packages]
    listed = subprocess.run(query, capture_output=True, text=True, check=False).stdout.splitlines()
    installed = {line.split()[0] for line in listed if line.endswith(" installed")}
    return [package for package in packages if package not in installed]


def _retried(argv: Sequence[str]) -> int:
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    status = 1
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(3 * attempt)
        done = subprocess.run(
            argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        status = done.returncode
        if status == 0:
            return 0
        print("\n".join(done.stdout.splitlines()[-15:]), file=sys.stderr)
    return status


@contextmanager
def _no_services_started() -> Iterator[None]:
    """Keep the post-install scripts from starting services, by a policy of our own where there is none."""
    try:
        with POLICY.open("x", encoding="ascii") as policy:
            policy.write("#!/bin/sh\nexit 101\n")
    except FileExistsError:
        yield
        return
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(install())
