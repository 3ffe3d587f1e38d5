"""How a step with a container image is run at a site: which rule of the operator satisfies the image, and the shell for it.

The rules are the operator's setting `images`, a map from a glob pattern over image names to

- `host`: the host's own system, read-only, in a bubblewrap sandbox,
- an absolute path at the site: a root file system (a directory), or an image archive (`.tar`, `.tar.gz`, `.tgz`),
- `pull`: the container runtime fetches the image by its name.

Absolute paths of inputs, outputs, volumes and work directories lie under the attempt's `root/` and appear at their own
place in the container; the attempt's `work/` appears at the place that it has on the host.
"""

from __future__ import annotations

import fnmatch
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from isthmus.domain.errors import Invalid, Refused
from isthmus.domain.task import Executor
from isthmus.sites.port import Job

RUNTIMES: Final = ("podman", "docker", "bwrap", "ch-run")
NETWORKS: Final = ("none", "host")
_SYSTEM: Final = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "etc", "opt")
_ARCHIVES: Final = (".tar", ".tar.gz", ".tgz")


@dataclass(frozen=True, slots=True, kw_only=True)
class Containers:
    """What the operator allows and the site has: `runtimes` maps the name of an installed one to its path; `binds` are
    paths at the site that every container sees, read-only, at the same place."""

    images: Mapping[str, str]
    runtimes: Mapping[str, str]
    network: str = "none"
    runtime_flags: tuple[str, ...] = ()
    binds: tuple[str, ...] = ()

    def rule(self, image: str) -> str:
        """What satisfies the image; Refused when nothing does, or when the runtime would take its name for an option."""
        if image.startswith("-"):
            raise Refused(f"{image!r} is not an image's name.", code="no_image")
        for pattern, value in self.images.items():
            if fnmatch.fnmatchcase(image, pattern):
                return value
        raise Refused(
            f"No rule of this site's `images` covers the image {image}.",
            remedy='The operator can add one, such as {"*": "host"} or {"PATTERN": "pull"}.',
            code="no_image",
        )

    def step(self, job: Job, index: int, step: Executor, directory: str, workdir: str) -> str:
        """Shell that puts the way into the container before the step's command, which it finds in `"$@"`."""
        rule = self.rule(step.image)
        places = absolute_places(job)
        if rule == "host" or (rule.startswith("/") and not rule.endswith(_ARCHIVES)):
            if not step.command:
                raise Refused("The image has no command of its own at this site.", remedy="Give the task a command.")
            if "bwrap" in self.runtimes:
                return self._bubblewrap(rule, places, directory, workdir)
            if "ch-run" in self.runtimes and rule != "host":
                return self._charliecloud(rule, places, directory, workdir)
            raise Refused(
                "This site can run no image from a directory: it has neither bubblewrap nor charliecloud.",
                remedy="Install bwrap at the site, or run the task without an image.",
                code="no_container_runtime",
            )
        for name in ("podman", "docker"):
            if name in self.runtimes:
                return self._docker_like(name, rule, job, index, step, places, directory, workdir)
        raise Refused(
            "This site has no container runtime that can load or pull images (podman, docker).",
            remedy="Install podman at the site, or run the task without an image.",
            code="no_container_runtime",
        )

    def _bubblewrap(self, rule: str, places: list[str], directory: str, workdir: str) -> str:
        image = "/" if rule == "host" else rule.rstrip("/")
        tops = {PurePosixPath(place).parts[1] for place in places}
        clash = sorted(tops & {*_SYSTEM, "proc", "dev"}) if rule == "host" else sorted(tops & {"proc", "dev"})
        if clash:
            raise Refused(
                f"/{clash[0]} is the system's own in this site's containers and cannot hold the task's files.",
                remedy="Use another place, such as /data.",
            )
        names = f"for n in {' '.join(_SYSTEM)}; do" if rule == "host" else 'for e in "$I"/* "$I"/.[!.]*; do n=${e##*/};'
        share = "--share-net" if self.network == "host" else ""
        hide = '--tmpfs "${D%/attempts/*}"' if directory.split("/")[1] in _SYSTEM and rule == "host" else ""
        binds = "".join(f'set -- --ro-bind {shlex.quote(path)} {shlex.quote(path)} "$@"\n' for path in self.binds)
        kept = " | ".join(shlex.quote(top) for top in sorted(tops | {"proc", "dev", "tmp", "sys"}))
        return f"""I={shlex.quote(image.rstrip("/"))}
R="$D/root"; mkdir -p "$R/tmp"
set -- -- "$@"
{binds}{names}
  case $n in {kept}) continue ;; esac
  if [ -L "$I/$n" ]; then [ -e "$R/$n" ] || [ -L "$R/$n" ] || ln -s "$(readlink "$I/$n")" "$R/$n"
  elif [ -e "$I/$n" ]; then set -- --ro-bind "$I/$n" "/$n" "$@"; fi
done
if [ -n "${{CUDA_VISIBLE_DEVICES:-}}" ]; then
  for n in /dev/nvidia*; do [ -e "$n" ] && set -- --dev-bind "$n" "$n" "$@"; done
fi
HOME="$D/work"; export HOME
set -- --proc /proc --dev /dev {hide} --bind "$D/work" "$D/work" "$@"
set -- {shlex.quote(self.runtimes["bwrap"])} --bind "$R" / --unshare-all {share} --die-with-parent \\
  --chdir {shlex.quote(workdir)} "$@"
"""

    def _charliecloud(self, rule: str, places: list[str], directory: str, workdir: str) -> str:
        """Only directories that a read-only image has can be mounted over: the work directory takes the place of one that
        images commonly have, and the task's other places must be in the image."""
        image = rule.rstrip("/")
        mounts = [*(f"{directory}/root{place}:{place}" for place in places), *self.binds]
        binds = " ".join(f"-b {shlex.quote(mount)}" for mount in mounts)
        inside = workdir.removeprefix(f"{directory}/work")
        start = f'"$M"{shlex.quote(inside) if inside else ""}' if inside != workdir else shlex.quote(workdir)
        return f"""USER=${{USER:-$(id -un)}}; export USER
for M in /mnt /srv /media /opt; do [ -d {shlex.quote(image)}"$M" ] && break; done
set -- {shlex.quote(self.runtimes["ch-run"])} --private-tmp -b "$D/work:$M" {binds} -c {start} {shlex.quote(image)} -- "$@"
"""

    def _docker_like(
        self,
        name: str,
        rule: str,
        job: Job,
        index: int,
        step: Executor,
        places: list[str],
        directory: str,
        workdir: str,
    ) -> str:
        program = shlex.join([self.runtimes[name], *self.runtime_flags])
        variables = sorted({*job.env, *job.secrets, *step.env})
        flags = [
            "--rm",
            "-i",
            f"--name=isthmus-{job.key}-{index}",
            f"--network={self.network}",
            "--ulimit=nofile=1024:1024",
            "--ulimit=nproc=4096:4096",
            f"--memory={job.demand.memory_bytes}b",
            f"--cpus={job.demand.cpus_per_node}",
            f"--volume={directory}/work:{directory}/work",
            *(f"--volume={directory}/root{place}:{place}" for place in places),
            *(f"--volume={path}:{path}:ro" for path in self.binds),
            *(f"--env={variable}" for variable in variables),
            *(f"--env=ISTHMUS_{variable}" for variable in ("TASK_ID", "ATTEMPT", "FENCE", "SITE", "POOL")),
            f"--workdir={workdir}",
        ]
        user = '"--user=$(id -u):$(id -g)"' if name == "docker" else ""
        keep = '$([ "$(id -u)" = 0 ] || echo --userns=keep-id)' if name == "podman" else ""
        if rule.startswith("/"):
            find = f"I=$({program} load -q -i {shlex.quote(rule)} | sed -n 's/^Loaded image[^:]*: //p' | tail -n 1)\n"
        elif rule == "pull":
            find = f"I={shlex.quote(step.image)}\n"
        else:
            raise Invalid("images", f"{rule!r} is not a way to satisfy an image.", remedy="Use host, pull or a path.")
        return f'{find}set -- {program} run {shlex.join(flags)} {user} {keep} "$I" "$@"\n'

    def removal(self, job: Job, index: int, step: Executor) -> str:
        """Shell that removes a container which a killed step left behind; empty when its runtime leaves none."""
        rule = self.rule(step.image)
        if rule == "host" or (rule.startswith("/") and not rule.endswith(_ARCHIVES)):
            return ""
        name = next(name for name in ("podman", "docker") if name in self.runtimes)
        program = shlex.join([self.runtimes[name], *self.runtime_flags])
        return f"{program} rm -f isthmus-{job.key}-{index} >/dev/null 2>&1"


def check_images(images: Mapping[str, str]) -> dict[str, str]:
    """The operator's setting `images`; Invalid for a value that means nothing."""
    for pattern, value in images.items():
        if value not in ("host", "pull") and not value.startswith("/"):
            raise Invalid(f"images.{pattern}", f"{value!r} satisfies no image.", remedy="Use host, pull or a path.")
    return dict(images)


def absolute_places(job: Job) -> list[str]:
    """The directories outside the task's own that its container must have writable, none inside another; Refused when a
    file is to lie directly in `/`."""
    found = absolute_folders(job)
    if "/" in found:
        raise Refused("A file or directory of the task lies directly in /.", remedy="Put it into a directory: /data/x.")
    return _outermost(found)


def absolute_folders(job: Job) -> set[str]:
    """Every directory outside the task's own that one of its absolute paths lies in, or is."""
    files = [item.path for item in job.files] + [item.path for item in job.outputs if not item.directory]
    for step in job.steps:
        files += [step.stdin, step.stdout, step.stderr]
    folders = [item.path for item in job.outputs if item.directory] + list(job.volumes)
    folders += [step.workdir for step in job.steps]
    found = {_literal_parent(path) for path in files if path.startswith("/")}
    found |= {_literal(path) for path in folders if path.startswith("/")}
    return found


def uses_absolute_paths(job: Job) -> bool:
    """Whether any path of the job only means something in a container."""
    paths = [item.path for item in job.files] + [item.path for item in job.outputs] + list(job.volumes)
    for step in job.steps:
        paths += [step.stdin, step.stdout, step.stderr, step.workdir]
    return any(path.startswith("/") for path in paths)


def _literal(path: str) -> str:
    kept: list[str] = []
    for part in PurePosixPath(path).parts[1:]:
        if any(mark in part for mark in "*?["):
            break
        kept.append(part)
    return "/" + "/".join(kept)


def _literal_parent(path: str) -> str:
    whole = _literal(path)
    return whole if whole != str(PurePosixPath(path)) else str(PurePosixPath(whole).parent)


def _outermost(paths: Iterable[str]) -> list[str]:
    kept: list[str] = []
    for path in sorted(paths, key=lambda item: item.count("/")):
        if not any(path == other or path.startswith(other + "/") for other in kept):
            kept.append(path)
    return sorted(kept)
