"""The shell scripts that a workspace runs at a site. They are constant: keys and paths come on standard input or as
arguments, never by putting them into the text."""

from __future__ import annotations

from typing import Final

# $1 root as set, $2 account or empty. Prints the root, the mark, and the programs found.
OPEN: Final = """umask 077
case $1 in '~') r=$HOME ;; '~/'*) r=$HOME/${1#'~/'} ;; *) r=$1 ;; esac
mkdir -p "$r/attempts" && mkdir -p "$r/blobs" "$r/incoming" || exit 1
cd "$r" && r=$(pwd -P) || exit 1
if [ ! -s mark ]; then
  { read -r u </proc/sys/kernel/random/uuid; (set -C; echo "$u" >mark); } 2>/dev/null
fi
read -r m <mark || exit 1
echo "root $r"; echo "mark $m"
for p in curl wget podman docker bwrap ch-run setsid sha256sum tar; do
  f=$(command -v "$p") && echo "tool $p $f"
done
exit 0
"""

# $1 root as set. Prints the root and mark, or `none`.
LOOK: Final = """case $1 in '~') r=$HOME ;; '~/'*) r=$HOME/${1#'~/'} ;; *) r=$1 ;; esac
[ -s "$r/mark" ] || { echo none; exit 0; }
cd "$r" && r=$(pwd -P) && read -r m <mark || exit 1
echo "root $r"; echo "mark $m"
"""

# As the transport's own account (root): $1 root, $2 account. Makes a root that the account owns.
GIVE: Final = """umask 022
mkdir -p "${1%/*}" && { [ -d "$1" ] || { mkdir -m 700 "$1" && chown "$2" "$1"; }; }
"""

# $1 root. Stdin: `key KEY` and `blob SHA` lines. Prints what is staged, and the missing blobs with the bytes they have.
SURVEY: Final = """cd "$1" || exit 1
while read -r kind name; do
  case $kind in
    key) [ -e "attempts/$name/staged" ] && echo "staged $name" ;;
    blob) b=blobs/${name%"${name#??}"}/$name
      if [ ! -e "$b" ]; then
        n=0; [ -e "$b.part" ] && n=$(wc -c <"$b.part")
        echo "missing $name $((n))"
      fi ;;
  esac
done
exit 0
"""

# $1 root, $2 hash, $3 offset, $4 whole size. Stdin: the content from the offset on. Only a part of the whole size is
# judged by its hash: a stream that breaks off looks like its end from here. Exit 9 prints where the part stands.
APPEND: Final = """umask 077
cd "$1" || exit 1
b=blobs/${2%"${2#??}"}/$2
[ -e "$b" ] && exit 0
mkdir -p "${b%/*}" && exec 9>>"$b.part" || exit 1
if command -v flock >/dev/null; then flock -w 30 9 || exit 7; fi
[ -e "$b" ] && exit 0
[ -e "$b.part" ] || exit 7
n=$(wc -c <"$b.part"); n=$((n))
[ "$n" = "$3" ] || { echo "$n"; exit 9; }
cat >&9 || exit 1
n=$(wc -c <"$b.part")
[ "$((n))" -ge "$4" ] || exit 7
[ "$(sha256sum <"$b.part")" = "$2  -" ] || { rm -f "$b.part"; exit 8; }
chmod 400 "$b.part" && mv -f "$b.part" "$b"
"""

# $1 root. Stdin: a tar of files named by their hash. Prints the hashes that were kept.
UNPACK_BLOBS: Final = """umask 077
cd "$1" || exit 1
r=$1
t=$(mktemp -d incoming/XXXXXXXXXX) || exit 1
trap 'rm -rf "$r/$t"' EXIT
tar -xf - -C "$t" || exit 1
keep() { # directory hash...: one process for all that go there
  d=../../blobs/$1; shift
  [ -d "$d" ] || mkdir -p "$d"
  mv -f -- "$@" "$d/" && printf '%s\\n' "$@"
}
cd "$t" && chmod 400 -- * && { sha256sum -- *; echo; } | {
  p=; set --
  while read -r h n; do
    c=${n%"${n#??}"}
    if [ "$c" != "$p" ]; then
      [ $# = 0 ] || keep "$p" "$@"
      p=$c; set --
    fi
    [ "$h" = "$n" ] && [ -n "$n" ] && set -- "$@" "$n"
  done
  exit 0
}
"""

# $1 root. Stdin: a tar of attempt directories. Each holds `files.sh`, calls of blob/site that stop at the first failure.
UNPACK: Final = r"""umask 077
cd "$1" || exit 1
r=$1
t=$(mktemp -d incoming/XXXXXXXXXX) || exit 1
trap 'rm -rf "$r/$t"' EXIT
tar -xf - -C "$t" || exit 1
blob() { # hash mode path
  b=$r/blobs/${1%"${1#??}"}/$1
  [ -d "${3%/*}" ] || mkdir -p "${3%/*}" || exit 1
  if cp --reflink=auto --no-preserve=mode "$b" "$3" 2>/dev/null; then [ "$2" = 644 ] || chmod "$2" "$3" || exit 1
  else cp "$b" "$3" && chmod "$2" "$3" || exit 1; fi
}
site() { # source mode path link
  [ -r "$1" ] || { echo "absent $1"; exit 3; }
  [ -d "${3%/*}" ] || mkdir -p "${3%/*}" || exit 1
  if [ -n "$4" ]; then ln -s "$1" "$3"; else cp -rL --reflink=auto "$1" "$3" || cp -rL "$1" "$3"; fi || exit 1
}
set --
for k in "$t"/*; do
  k=${k##*/}
  # A request that comes after the attempt was cleaned away must not bring it back without its claim.
  if [ -e "gone/$k" ]; then echo "failed $k was cleaned away before"; continue; fi
  if [ -e "attempts/$k/staged" ] || [ -e "attempts/$k/claim" ]; then echo "staged $k"; continue; fi
  [ -e "attempts/$k" ] && rm -rf "attempts/$k"
  A=$r/$t/$k
  said=$(umask 022; . "$A/files.sh" 2>&1); code=$?
  case $code in
    0) [ -e "$t/$k/fetch" ] || : >"$t/$k/staged"
      set -- "$@" "$t/$k" ;;
    3) printf 'absent %s %s\n' "$k" "$(printf '%s' "${said#absent }" | tr '\n' ' ')" ;;
    *) printf 'failed %s %s\n' "$k" "$(printf '%s' "$said" | tail -c 300 | tr '\n' ' ')" ;;
  esac
done
[ $# = 0 ] || mv "$@" attempts/
for k; do [ -e "attempts/${k##*/}/files.sh" ] && echo "done ${k##*/}"; done
exit 0
"""

# $1 destination, $2 mode. Stdin: curl's configuration (address and headers, which may be secret).
FETCH_CURL: Final = """umask 077
mkdir -p "${1%/*}" || exit 1
curl -q -sS -f -L --proto '=http,https' --proto-redir '=http,https' --connect-timeout 30 --retry 2 \\
  --speed-limit 1 --speed-time 120 -w '%{http_code}' -o "$1.part" -K - || exit $?
chmod "$2" "$1.part" && mv -f "$1.part" "$1"
"""

# $1 destination, $2 mode. Stdin: first line the address, then lines of wget's configuration.
FETCH_WGET: Final = """umask 077
mkdir -p "${1%/*}" || exit 1
c=$1.conf; trap 'rm -f "$c"' EXIT
read -r u; cat >"$c"
printf '%s\\n' "$u" | wget -q --config="$c" -t 3 -T 60 -O "$1.part" -i - || exit $?
chmod "$2" "$1.part" && mv -f "$1.part" "$1"
"""

# $1 root. Stdin: keys. Marks them staged.
MARK_STAGED: Final = """cd "$1/attempts" || exit 1
while read -r k; do rm -f "$k/fetch"; : >"$k/staged" && echo "$k"; done
"""

# $1 root, $2 mark. Stdin: keys. One line for each key: KEY|flags|launched|claim|result
TRACES: Final = """cd "$1" 2>/dev/null && read -r m <mark || { echo '!no root'; exit 0; }
[ "$m" = "$2" ] || { echo '!other root'; exit 0; }
cd attempts || exit 1
read -r boot </proc/sys/kernel/random/boot_id
me=$(uname -n)
echo "!boot $boot $me"
alive() { # pid start
  [ -n "$1" ] && [ "$1" != 0 ] || return 1
  { read -r s <"/proc/$1/stat"; } 2>/dev/null || return 1
  s=${s##*) }
  case $s in Z*|X*) return 1 ;; esac
  set -f; set -- "$2" $s; set +f
  [ "$1" = "${21}" ]
}
who() { # a claim's line: sets p, s, b
  set -f
  for v in $1; do
    case $v in pid=*) p=${v#*=} ;; start=*) s=${v#*=} ;; boot=*) b=${v#*=} ;; esac
  done
  set +f
}
orphaned() { # an attempt whose wrapper is gone: does anything that it started live?
  [ -e "$1/child" ] || return 1
  { read -r cp cs; read -r gs; } <"$1/child"
  alive "$cp" "$cs" && return 0
  for g in $gs; do read -r one <"$g/cgroup.procs" && return 0; break; done 2>/dev/null
  [ ! -e "/proc/$cp" ] && [ -n "$(ps -o pid= -s "$cp" 2>/dev/null)" ]
}
while read -r k; do
  f=; l=; c=; x=
  if [ -d "$k" ]; then
    f=d
    [ -e "$k/staged" ] && f=${f}s
    [ -e "$k/cancelled" ] && f=${f}x
    [ -e "$k/launched" ] && { read -r l <"$k/launched"; }
    # The process is looked at before the claim and the result: a process seen dead has written all that it ever will.
    a=
    p=; s=; b=
    [ -e "$k/claim" ] && read -r c <"$k/claim"
    who "$c"
    [ -n "$p" ] && [ -n "$b" ] || who "$l"
    if [ -n "$p" ]; then
      if [ "$b" = "$boot" ] && alive "$p" "$s"; then a=a
      elif [ "$b" = "$boot" ] && [ ! -e "$k/result" ] && orphaned "$k"; then a=no
      else a=n; fi
    fi
    w=$c; c=; x=
    [ -e "$k/claim" ] && { f=${f}c; read -r c <"$k/claim"; }
    [ -e "$k/result" ] && { read -r x <"$k/result"; }
    # A claim that appeared in between is another process than the one that was looked at.
    [ "$w" = "$c" ] || a=
    # A wrapper that was killed after its command had ended well left word of that; one on another host that cannot be
    # looked at had a minute to write its result.
    if [ -z "$x" ] && [ -e "$k/exit" ]; then
      case $a in
        n) read -r x <"$k/exit" ;;
        '') [ -n "$(find "$k/exit" -mmin +1)" ] && read -r x <"$k/exit" ;;
      esac
    fi
    f=$f$a
  fi
  printf '%s|%s|%s|%s|%s\\n' "$k" "$f" "$l" "$c" "$x"
done
echo '!end'
"""

# $1 root. Stdin: keys.
MARK_CANCELLED: Final = """cd "$1/attempts" || exit 1
umask 077
while read -r k; do [ -d "$k" ] && : >"$k/cancelled"; done
exit 0
"""

# $1 root. Stdin: keys.
MARK_PREEMPTED: Final = """cd "$1/attempts" || exit 1
umask 077
while read -r k; do [ -d "$k" ] && : >"$k/preempted"; done
exit 0
"""

# $1 root. Stdin: keys. Whoever makes `go` first decides whether the job starts: this, or its wrapper when its hold is over.
LET_GO: Final = """cd "$1/attempts" || exit 1
umask 077
while read -r k; do
  [ -d "$k" ] || continue
  (set -C; : >"$k/go") 2>/dev/null || [ -e "$k/go" ] || exit 1
done
exit 0
"""

# $1 root. Stdin: keys.
CLEAN: Final = """cd "$1/attempts" || exit 1
umask 077; mkdir -p ../gone || exit 1
while read -r k; do : >"../gone/$k" || exit 1;
  [ -e "$k" ] || continue
  rm -rf "$k" || { chmod -R u+rwX "$k"; rm -rf "$k"; }
done 2>/dev/null
exit 0
"""

# $1 root, $2 days that unused content is kept (0: for ever). What a killed command left in incoming/ goes after a day.
SWEEP: Final = """cd "$1" || exit 1
find incoming -mindepth 1 -maxdepth 1 -mtime +0 -exec rm -rf {} +
[ -d gone ] && find gone -type f -mtime +30 -delete
[ "$2" = 0 ] || find blobs -type f -atime "+$2" -mtime "+$2" -delete
exit 0
"""

# $1 file, $2 offset from 1, $3 limit
LOG: Final = """[ -f "$1" ] || exit 0
tail -c "+$2" "$1" | head -c "$3"
"""

# Stdin: NUL-separated absolute paths. Prints kind, size, mode, top as given and the rest of the path, NUL-ended.
LIST: Final = """xargs -0 -r sh -c 'n=$#
for p; do if [ -e "$p" ] || [ -L "$p" ]; then set -- "$@" "$p"; fi; done
shift "$n"; [ $# = 0 ] ||
find "$@" \\( -type f -o -type l -o -type d \\) -printf "%y\\t%s\\t%m\\t%p\\0"' sh
"""

# Stdin: NUL-separated links. Prints where each leads, NUL-ended, empty when nowhere.
RESOLVE: Final = """xargs -0 -r sh -c 'for p; do readlink -f -z -- "$p" || printf "\\0"; done' sh
"""

# $1 longest log. Stdin: NUL-separated logs that are longer. Keeps the end of each beside it.
SHORTEN: Final = """umask 077
xargs -0 -r sh -c 'n=$1; shift; for p; do tail -c "$n" "$p" >"$p.end" || exit 1; done' sh "$1"
"""

HASH: Final = "xargs -0 -r sha256sum -z --"
READ_ALL: Final = "xargs -0 -r cat --"
