"""Makes `job.sh`, the POSIX shell script that claims an attempt, runs its steps and writes its result.

The claim comes before anything else and is made with O_EXCL: of any number of copies of the script, exactly one runs the
user's command, the others exit 0 at once. The script needs a POSIX shell (dash will do), coreutils, awk and setsid.
"""

from __future__ import annotations

import re
import shlex
from typing import Final

from isthmus.domain.errors import Invalid, Refused
from isthmus.domain.task import Executor
from isthmus.sites.containers import Containers, uses_absolute_paths
from isthmus.sites.port import Job

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_HEAD: Final = """#!/bin/sh
# Runs one attempt of an Isthmus task. Whoever makes the file `claim` runs it; any other copy exits 0.
U=$(umask); umask 077
D=@DIRECTORY@; FENCE=@FENCE@; WALLTIME=@WALLTIME@; MEMORY=@MEMORY@; GRACE=@GRACE@; CPUS=@CPUS@; SIGNAL=@SIGNAL@; SAVE=@SAVE@; HOLD=@HOLD@
PATH=${PATH:-/usr/local/bin:/usr/bin:/bin}; export PATH

now() { t=$(date +%s.%N); case $t in *[!0-9.]*) t=$(date +%s) ;; esac; echo "$t"; }
ticks() { read -r s <"/proc/$1/stat" || return 0; s=${s##*) }; set -- $s; echo "${20}"; }

# Ends the wrapper $2 when its time is over; without a memory cgroup also watches what its steps hold.
if [ "${1:-}" = watch ]; then
  waited=0; most=0; pause=$WALLTIME
  [ -z "$3" ] && pause=1
  while [ "$waited" -lt "$WALLTIME" ]; do
    left=$((WALLTIME - waited)); [ "$pause" -gt "$left" ] && pause=$left
    sleep "$pause"; waited=$((waited + pause))
    [ -n "$3" ] && continue
    pause=3; read -r child start <"$D/child" 2>/dev/null || continue
    held=$(ps -o rss= -s "$child" 2>/dev/null | LC_ALL=C awk '{ n += $1 } END { print n * 1024 }')
    [ "${held:-0}" -gt "$most" ] && { most=$held; echo "$most" >"$D/rss"; }
    [ "${held:-0}" -gt "$MEMORY" ] && { : >"$D/overmemory"; kill -KILL "-$child"; exit 0; }
  done
  : >"$D/overtime"; kill -TERM "$2"; exit 0
fi

# Tells the wrapper $2 of a preemptible job that it is to make room: the mark is seen under any scheduler.
if [ "${1:-}" = heed ]; then
  while kill -0 "$2" 2>/dev/null; do
    [ -f "$D/preempted" ] && { kill -TERM "$2"; exit 0; }
    sleep 1
  done
  exit 0
fi

GROUPS_DIRS=${ISTHMUS_CGROUPS:-}; unset ISTHMUS_CGROUPS
MEMORY_GROUP=; CPU_GROUP=; STOP=; INTERRUPTED=; CHILD=; KILLER=; WATCH=; HEED=; STEPS=; STARTED=$(now)
SETSID=$(command -v setsid)
# Where it can be, a step's command is bound to this script's life: killed alone, the script would leave a command that
# goes on and perhaps ends well, unseen by anybody, while the attempt is given up and made again.
SETPRIV=$(command -v setpriv) && "$SETPRIV" --pdeathsig KILL true 2>/dev/null || SETPRIV=

stop_child() {
  [ -n "$CHILD" ] || return 0
  signal=TERM; grace=$GRACE
  if [ -n "$SAVE" ] && [ -f "$D/preempted" ] && [ ! -f "$D/cancelled" ]; then
    [ -n "$KILLER" ] && return 0  # it saves its state: a second signal might end that
    signal=$SIGNAL; grace=$SAVE
  fi
  kill -s "$signal" -- "-$CHILD" 2>/dev/null || kill -s "$signal" "$CHILD" 2>/dev/null
  [ -n "$KILLER" ] && return 0
  "$SETSID" /bin/sh -c 'sleep "$1"; kill -KILL "-$2" 2>/dev/null || kill -KILL "$2"' killer "$grace" "$CHILD" \\
    </dev/null >/dev/null 2>&1 & KILLER=$!
}
interrupt() { INTERRUPTED=1; STOP=1; stop_child; }

finish() { # reason exit_code step
  [ -n "$WATCH" ] && kill -KILL "-$WATCH" 2>/dev/null
  [ -n "$KILLER" ] && kill -KILL "-$KILLER" 2>/dev/null
  [ -n "$HEED" ] && kill -KILL "-$HEED" 2>/dev/null
  for g in $GROUPS_DIRS; do
    while read -r p; do [ "$p" = $$ ] || kill -KILL "$p" 2>/dev/null; done <"$g/cgroup.procs"
    break
  done 2>/dev/null
  rss=0; cpu=
  if [ -n "$MEMORY_GROUP" ]; then
    for f in memory.max_usage_in_bytes memory.peak; do
      [ -f "$MEMORY_GROUP/$f" ] && read -r rss <"$MEMORY_GROUP/$f"
    done
  elif [ -f "$D/rss" ]; then read -r rss <"$D/rss"; fi
  if [ -n "$CPU_GROUP" ]; then
    read -r cpu <"$CPU_GROUP/cpuacct.usage"; cpu=$(LC_ALL=C awk -v n="$cpu" 'BEGIN { printf "%.3f", n / 1e9 }')
  else
    times >"$D/times"
    cpu=$(LC_ALL=C awk '{ gsub(/[ms]/, " "); for (i = 1; i < NF; i += 2) n += 60 * $i + $(i + 1) } END { printf "%.3f", n }' "$D/times")
  fi
  ended=$(now); tries=0
  # A file system that is away for a moment must not cost the result of a job that ran to its end.
  until printf 'fence=%s reason=%s code=%s started=%s ended=%s cpu=%s rss=%s step=%s steps=%s\\n' "$FENCE" "$1" "$2" \\
    "$STARTED" "$ended" "$cpu" "$rss" "$3" "$STEPS" >"$D/result.$$" && mv -f "$D/result.$$" "$D/result"; do
    tries=$((tries + 1)); [ "$tries" -gt 60 ] && break
    sleep 2
  done
  rm -f "$D/child" "$D/rss" "$D/times" "$D/exit"
  exit "${4:-0}"
}
trap interrupt TERM INT HUP

read -r B </proc/sys/kernel/random/boot_id
if ! (set -C; printf 'fence=%s host=%s pid=%s start=%s boot=%s at=%s cpus=%s gpus=%s\\n' "$FENCE" "$(uname -n)" "$$" \\
    "$(ticks $$)" "$B" "$(now)" "$CPUS" "${CUDA_VISIBLE_DEVICES:-}" >"$D/claim") 2>/dev/null; then
  exit 0
fi
for g in $GROUPS_DIRS; do
  echo $$ >"$g/cgroup.procs" || continue
  [ -f "$g/memory.max_usage_in_bytes" ] && MEMORY_GROUP=$g
  [ -f "$g/memory.events" ] && MEMORY_GROUP=$g
  [ -f "$g/cpuacct.usage" ] && CPU_GROUP=$g
done 2>/dev/null
exec </dev/null >>"$D/stdout" 2>>"$D/stderr"

# Without its whole environment the command is not run: the site's file system has failed.
ENVIRONMENT=$(cat "$D/env" && printf x) || finish node_failed "" 0 1
SECRETS=x
if [ -n "@SECRETS@" ]; then
  SECRETS=$(cat "$D/secrets" && printf x) || finish node_failed "" 0 1
  rm -f "$D/secrets"
fi
if [ -f "$D/cancelled" ]; then finish cancelled_by_user "" 0; fi
if [ -f "$D/preempted" ]; then finish preempted "" 0; fi

# Held until all parts of its group are there. Whoever makes `go` first decides whether the command is started.
if [ "$HOLD" -gt 0 ]; then
  uptime() { read -r up _ </proc/uptime; up=${up%.*}; }
  pause=0.2; sleep "$pause" 2>/dev/null || pause=1
  uptime; until=$((up + HOLD))
  while [ ! -e "$D/go" ] && [ -z "$STOP" ] && [ "$up" -lt "$until" ]; do sleep "$pause"; uptime; done
  if [ ! -e "$D/go" ] && [ -z "$STOP" ]; then
    (set -C; : >"$D/go") 2>/dev/null && finish peers_late "" 0
    [ -e "$D/go" ] || finish node_failed "" 0 1
  fi
fi

_isthmus_begin() { trap - TERM INT HUP; umask "$U"; }
# The last thing before a step's command: from here on the task's variables may have replaced any of this script's.
_isthmus_load() { _isthmus_setsid=$SETSID; _isthmus_setpriv=$SETPRIV; eval "${ENVIRONMENT%x}
${SECRETS%x}"; }
"""

_TAIL: Final = """
# Where the streams end now: steps share them, and each is told apart by where it began and ended.
ends() { echo "$(($(wc -c <"$D/stdout"))):$(($(wc -c <"$D/stderr")))"; }

oom_kills() {
  [ -n "$MEMORY_GROUP" ] || return 1
  for f in memory.oom_control memory.events; do
    [ -f "$MEMORY_GROUP/$f" ] && awk '$1 == "oom_kill" && $2 > 0 { found = 1 } END { exit !found }' "$MEMORY_GROUP/$f" \\
      && return 0
  done
  return 1
}

if [ -n "@ENFORCE@" ]; then
  # Without control groups no process may use more processor time than the task's processors have in its walltime.
  [ -z "$GROUPS_DIRS" ] && ulimit -S -t "$((WALLTIME * CPUS + GRACE))"
  "$SETSID" /bin/sh "$D/job.sh" watch $$ "$MEMORY_GROUP" </dev/null >/dev/null 2>&1 & WATCH=$!
fi
if [ -n "$SAVE" ]; then "$SETSID" /bin/sh "$D/job.sh" heed $$ </dev/null >/dev/null 2>&1 & HEED=$!; fi
step=1; code=0
while [ "$step" -le @STEPS@ ] && [ -z "$STOP" ]; do
  began=$(now):$(ends)
  "step_$step" & CHILD=$!
  printf '%s %s\\n%s\\n' "$CHILD" "$(ticks "$CHILD")" "$GROUPS_DIRS" >"$D/child"
  [ -n "$STOP" ] && stop_child
  before=
  while :; do
    INTERRUPTED=
    wait "$CHILD"; code=$?
    [ "$code" = 127 ] && [ -n "$before" ] && code=$before
    [ -n "$INTERRUPTED" ] || break
    before=$code
  done
  # At once and without starting anything: should this script be killed before it has written the result, the attempt
  # is known to have ended well, and is not made again.
  [ "$code" = 0 ] && [ "$step" = @STEPS@ ] && [ -z "$STOP" ] \\
    && printf 'fence=%s reason=exit_zero code=0 started=%s step=%s\\n' "$FENCE" "$STARTED" "$step" >"$D/exit"
  kill -KILL "-$CHILD" 2>/dev/null
  CHILD=
  STEPS="$STEPS${STEPS:+,}$code:$began:$(now):$(ends)"
  after "$step"
  [ -n "$STOP" ] && break
  if [ "$code" -ne 0 ]; then
    case " @IGNORED@ " in *" $step "*) code=0 ;; *) break ;; esac
  fi
  step=$((step + 1))
done
[ "$step" -gt @STEPS@ ] && step=@STEPS@
if [ -f "$D/overtime" ]; then finish walltime "$code" "$step" 1
elif [ -f "$D/overmemory" ]; then finish out_of_memory "$code" "$step" 1
elif [ "$code" -ne 0 ] && oom_kills; then finish out_of_memory "$code" "$step" 1
elif [ -f "$D/exit" ]; then finish exit_zero 0 "$step"  # it was done before it was told to stop
elif [ -n "$STOP" ] && [ -f "$D/cancelled" ]; then finish cancelled_by_user "$code" "$step" 1
elif [ -n "$STOP" ] && [ -f "$D/preempted" ]; then finish preempted "$code" "$step" 1
elif [ -n "$STOP" ]; then finish signalled "$code" "$step" 1
elif [ "$code" -eq 0 ]; then finish exit_zero 0 "$step"
elif [ "$code" -gt 128 ] && [ "$code" -lt 160 ]; then finish signalled "$code" "$step" "$code"
else finish exit_nonzero "$code" "$step" "$code"
fi
"""


# The wrapper may be gone before the command is bound to it: then nothing is started.
_START: Final = (
    """exec ${_isthmus_setpriv:+"$_isthmus_setpriv" --pdeathsig KILL -- """
    """/bin/sh -c '[ "$PPID" = "$0" ] || exit 125; exec "$@"' "$$"} "$_isthmus_setsid" -- "$@\""""
)


def make_script(
    job: Job, *, directory: str, containers: Containers, grace_seconds: int = 10, enforce_walltime: bool = False
) -> bytes:
    """The text of job.sh for an attempt in `directory` (absolute, at the site). Refused when the site cannot run it."""
    if uses_absolute_paths(job) and not all(step.image for step in job.steps):
        raise Refused(
            "The task names absolute paths, which only mean something in a container.",
            remedy="Give every step an image, or use relative paths.",
            code="absolute_path",
        )
    head = _HEAD
    for name, value in {
        "DIRECTORY": shlex.quote(directory),
        "FENCE": str(job.fence),
        "WALLTIME": str(job.demand.walltime_seconds),
        "MEMORY": str(job.demand.memory_bytes),
        "GRACE": str(grace_seconds),
        "SECRETS": "1" if job.secrets else "",
        "CPUS": str(job.demand.cpus_per_node),
        "SIGNAL": shlex.quote(job.signal),
        "HOLD": str(job.hold_seconds),
        "SAVE": str(job.grace_seconds) if job.signal else "",
    }.items():
        head = head.replace(f"@{name}@", value)
    parts = [head]
    removals: list[str] = []
    for index, step in enumerate(job.steps, 1):
        parts.append(_step(job, index, step, directory, containers))
        if step.image and (removal := containers.removal(job, index, step)):
            removals.append(f"  {index}) {removal} ;;\n")
    parts.append("after() { case $1 in\n" + "".join(removals) + "  *) ;;\nesac; }\n")
    ignored = " ".join(str(index) for index, step in enumerate(job.steps, 1) if step.ignore_error)
    tail = _TAIL.replace("@STEPS@", str(len(job.steps))).replace("@IGNORED@", ignored)
    parts.append(tail.replace("@ENFORCE@", "1" if enforce_walltime else ""))
    return _encode("".join(parts))


def make_environment(job: Job, site: str) -> bytes:
    """The text of `env`: the task's place in Isthmus, then the task's own variables."""
    place = {
        "ISTHMUS_TASK_ID": job.task_id,
        "ISTHMUS_ATTEMPT": job.key,
        "ISTHMUS_FENCE": str(job.fence),
        "ISTHMUS_SITE": site,
        "ISTHMUS_POOL": job.pool,
    }
    return _exports({**place, **job.env})


def make_secrets(job: Job) -> bytes:
    """The text of `secrets`; empty when the job has none."""
    return _exports(job.secrets)


def place_of(path: str, directory: str) -> str:
    """Where a path of the task lies on the site's file system: under `root/` when absolute, else under `work/`."""
    return f"{directory}/root{path}" if path.startswith("/") else f"{directory}/work/{path}".rstrip("/")


def _step(job: Job, index: int, step: Executor, directory: str, containers: Containers) -> str:
    inside = step.workdir if step.workdir.startswith("/") else f"{directory}/work/{step.workdir}".rstrip("/")
    outside = place_of(step.workdir, directory) if step.workdir else f"{directory}/work"
    made = {outside}
    for path in (step.stdout, step.stderr):
        if path:
            made.add(place_of(path, directory).rpartition("/")[0])
    lines = [
        f"step_{index}() {{",
        "_isthmus_begin",
        f"mkdir -p {shlex.join(sorted(made))} && cd {shlex.quote(outside)} || exit 125",
        f"set -- {shlex.join(step.command)}",
    ]
    if step.image:
        lines.append(containers.step(job, index, step, directory, inside))
    for mark, path in (("<", step.stdin), (">", step.stdout), ("2>", step.stderr)):
        if path:
            lines.append(f"exec {mark}{shlex.quote(place_of(path, directory))}")
    lines.append("_isthmus_load")
    if step.env:
        lines.append(_exports(step.env).decode("utf-8", "surrogateescape").rstrip("\n"))
    lines.append(_START)
    return "\n".join(lines) + "\n}\n"


def _exports(variables: dict[str, str]) -> bytes:
    for name in variables:
        if _VARIABLE.fullmatch(name) is None:
            raise Invalid(f"env.{name}", "is not a variable name.", remedy="Use letters, digits and _.")
    return _encode("".join(f"{name}={shlex.quote(value)}; export {name}\n" for name, value in variables.items()))


def _encode(text: str) -> bytes:
    if "\0" in text:
        raise Invalid("command", "holds a NUL character.", remedy="Remove it.")
    return text.encode("utf-8", "surrogateescape")
