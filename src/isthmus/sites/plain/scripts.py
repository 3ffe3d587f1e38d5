"""The shell scripts of the fork scheduler; constant, with keys on standard input."""

from __future__ import annotations

from typing import Final

# $1 root. Stdin: KEY GPUS CGROUPS with - for none, tab-separated. Starts each wrapper detached, unless it is claimed.
LAUNCH: Final = """cd "$1/attempts" || exit 1
umask 077
ticks() { { read -r s <"/proc/$1/stat"; } 2>/dev/null || return 0; s=${s##*) }; set -- $s; echo "${20}"; }
read -r boot </proc/sys/kernel/random/boot_id
me=$(uname -n)
tab=$(printf '\\t')
while IFS=$tab read -r k gpus groups; do
  if [ ! -e "$k/staged" ]; then echo "unstaged $k"; continue; fi
  if [ -e "$k/claim" ]; then
    read -r l <"$k/launched" 2>/dev/null || l="pid=0 start=0"
    p=${l#*pid=}; s=${l#*start=}; echo "running $k ${p%% *}.${s%% *}"; continue
  fi
  ( [ "$gpus" = - ] || { CUDA_VISIBLE_DEVICES=$gpus; export CUDA_VISIBLE_DEVICES; }
    [ "$groups" = - ] || { ISTHMUS_CGROUPS=$groups; export ISTHMUS_CGROUPS; }
    exec setsid /bin/sh "$1/attempts/$k/job.sh" </dev/null >/dev/null 2>"$k/wrapper.err" ) & p=$!
  s=$(ticks "$p")
  printf 'host=%s pid=%s start=%s boot=%s\\n' "$me" "$p" "${s:-0}" "$boot" >"$k/launched.$$" &&
    mv -f "$k/launched.$$" "$k/launched"
  echo "started $k $p.${s:-0}"
done
"""

# Stdin: KEY SECONDS lines already marked cancelled. TERM to the wrapper, later KILL to whatever is left of it.
# $1 root, $2 seconds between the two.
CANCEL: Final = """cd "$1/attempts" || exit 1
alive() {
  { read -r s <"/proc/$1/stat"; } 2>/dev/null || return 1
  s=${s##*) }; set -- "$2" $s; [ "$1" = "${21}" ]
}
read -r boot </proc/sys/kernel/random/boot_id
me=$(uname -n)
while read -r k; do
  [ -e "$k/claim" ] && [ ! -e "$k/result" ] || continue
  read -r c <"$k/claim"
  p=${c#*pid=}; p=${p%% *}; s=${c#*start=}; s=${s%% *}; b=${c#*boot=}; b=${b%% *}; h=${c#*host=}; h=${h%% *}
  case $p$s in ''|*[!0-9]*) continue ;; esac
  [ "$b" = "$boot" ] && [ "$h" = "$me" ] && alive "$p" "$s" || continue
  kill -TERM "$p"
  setsid /bin/sh -c '
    sleep "$2"; [ -e "$4/result" ] && exit 0
    { read -r s <"/proc/$1/stat"; } 2>/dev/null || exit 0
    s=${s##*) }; set -- "$1" "$2" "$3" "$4" $s; [ "$3" = "${24}" ] || exit 0
    read -r child start <"$4/child" 2>/dev/null && kill -KILL "-$child"
    kill -KILL "$1" "-$1"' killer "$p" "$2" "$s" "$PWD/$k" </dev/null >/dev/null 2>&1 &
done
exit 0
"""

# $1 root. Stdin: keys of attempts whose wrapper is gone while processes that it started live on. Nothing of theirs can
# be delivered any more, so they are ended.
END_ORPHANS: Final = """cd "$1/attempts" || exit 1
while read -r k; do
  [ -e "$k/child" ] && [ ! -e "$k/result" ] || continue
  { read -r p start; read -r groups; } <"$k/child"
  kill -KILL "-$p"
  for q in $(ps -o pid= -s "$p"); do kill -KILL "$q"; done
  for g in $groups; do while read -r q; do kill -KILL "$q"; done <"$g/cgroup.procs"; break; done
done 2>/dev/null
exit 0
"""

# As the transport's own account. Stdin: KEY MEMORY_BYTES CPUS ACCOUNT, tab-separated. Prints `KEY DIRS` for each that got
# its groups. Version 1: memory, cpu, cpuacct below isthmus/; version 2: one group with memory and cpu.
CGROUPS: Final = """c=/sys/fs/cgroup
tab=$(printf '\\t')
if [ -w "$c/memory" ] && [ -f "$c/memory/memory.limit_in_bytes" ]; then v=1
elif [ -f "$c/cgroup.controllers" ] && mkdir -p "$c/isthmus" 2>/dev/null &&
  echo '+memory +cpu' >"$c/cgroup.subtree_control" 2>/dev/null &&
  echo '+memory +cpu' >"$c/isthmus/cgroup.subtree_control" 2>/dev/null; then v=2
else exit 0; fi
while IFS=$tab read -r k m n a; do
  d=
  if [ $v = 1 ]; then
    g=$c/memory/isthmus/$k
    mkdir -p "$g" && echo "$m" >"$g/memory.limit_in_bytes" && d=$g || continue
    echo "$m" >"$g/memory.memsw.limit_in_bytes"
    for w in cpu cpuacct; do
      g=$c/$w/isthmus/$k
      [ -w "$c/$w" ] && mkdir -p "$g" || continue
      [ $w = cpu ] && { echo 100000 >"$g/cpu.cfs_period_us"; echo "$((n * 100000))" >"$g/cpu.cfs_quota_us"; }
      d="$d $g"
    done
  else
    g=$c/isthmus/$k
    mkdir -p "$g" && echo "$m" >"$g/memory.max" && echo "$((n * 100000)) 100000" >"$g/cpu.max" && d=$g || continue
    echo 0 >"$g/memory.swap.max"
  fi
  for g in $d; do chown "$a" "$g/cgroup.procs"; done
  echo "$k $d"
done 2>/dev/null
exit 0
"""

# As the transport's own account. Stdin: keys. Ends what still runs in the groups, and removes them.
REMOVE_CGROUPS: Final = """c=/sys/fs/cgroup
while read -r k; do
  for g in "$c/memory/isthmus/$k" "$c/isthmus/$k" "$c/cpu/isthmus/$k" "$c/cpuacct/isthmus/$k"; do
    [ -d "$g" ] || continue
    while read -r p; do kill -KILL "$p"; done <"$g/cgroup.procs"
    rmdir "$g"
  done
done 2>/dev/null
exit 0
"""

DESCRIBE: Final = """echo "system $(uname -sr)"
echo "cpus $(getconf _NPROCESSORS_ONLN)"
LC_ALL=C awk '/^MemTotal:/ { print "memory", $2 }' /proc/meminfo
command -v setsid >/dev/null && echo "setsid yes"
[ -w /sys/fs/cgroup/memory ] && echo "cgroup v1"
[ -f /sys/fs/cgroup/cgroup.controllers ] && [ -w /sys/fs/cgroup ] && echo "cgroup v2"
command -v nvidia-smi >/dev/null 2>&1 &&
  nvidia-smi --query-gpu=name,memory.total --format=csv,noheader,nounits 2>/dev/null | sed 's/^/gpu /'
exit 0
"""
