"""The facts script: POSIX shell, run as root in one exec, that only reads and prints.

It is one function, called on its last line, so that a script cut short on its way runs nothing. Each section tolerates
missing tools by staying empty. Content that is not ours to format (the ledger) is indented by a space, names are
quoted, so that nothing printed can look like a marker. `wg` prints private keys: awk drops that field on the host.
"""

from __future__ import annotations

import json
import re
import shlex

from meshctl.core.sysctl import proc_path
from meshctl.facts.request import FactsRequest
from meshctl.model.ledger import LEDGER_PATH
from meshctl.model.places import AGENT_DIR, AGENT_PREFIX, AGENT_SUFFIX, PENDING_PATH, SEARCH_PATH, UNDONE_PATH

BEGIN = "@@meshctl-facts 1 begin@@"
END = "@@meshctl-facts 1 end@@"
SECTION_PREFIX = "@@meshctl-facts section "
TOOLS = ("wg", "nft", "ip", "systemctl", "apt-get")

_TEMPLATE = r"""meshctl_facts() {
PATH=@PATH@ LC_ALL=C QUOTING_STYLE=c
export PATH LC_ALL QUOTING_STYLE
newline='
'
old_ifs=$IFS
lines() { IFS=$newline; set -f; }
words() { IFS=$old_ifs; set +f; }
section() { printf '%s%s@@\n' '@SECTION@' "$1"; }
table_hash() {
  listing=$(nft -s list table "$1" "$2") && printf '%s %s\t%s\n' "$1" "$2" "$(printf '%s\n' "$listing" | sha256sum)"
}
key_half() { [ -f "$2" ] && printf '%s\t%s\t%s\n' "$1" "$(wg pubkey <"$2")" "$(stat -c %Y -- "$2")"; }

printf '\n%s\n' '@BEGIN@'

section host
while read -r line; do
  case $line in ID=*) printf 'os\t%s\n' "${line#ID=}" ;; esac
done </etc/os-release
read -r value </proc/1/comm && printf 'init\t%s\n' "$value"
read -r value </proc/sys/kernel/random/boot_id && printf 'boot\t%s\n' "$value"
for tool in @TOOLS@; do command -v "$tool" >/dev/null && printf 'tool\t%s\n' "$tool"; done
for agent in @AGENTS@; do [ -f "$agent" ] && printf 'agent\t%s\n' "$agent"; done
# The link's target tells the version without starting Python; where it does not (a wrapper), Python is asked.
if value=$(command -v python3); then
  target=$(readlink -f "$value")
  case ${target##*/} in
    python3.[0-9]*) target=${target##*/python} ;;
    *) target=$("$value" -c 'import sys; print("%d.%d" % sys.version_info[:2])') ;;
  esac
  printf 'python\t%s\n' "$target"
fi

section ledger
sed 's/^/ /' @LEDGER@

# Names that the ledger holds: what meshctl made earlier and the document may no longer name.
paths= sysctls= units= tables= part=
if [ -s @LEDGER@ ]; then
  known=$newline@KNOWN@$newline
  lines
  for entry in $(grep -oE '"[^"\\]*":["{]|"[^"\\]* [^"\\]*":\[' @LEDGER@); do
    name=${entry#\"}; name=${name%%\":*}
    case $entry in *'{') part=$name; continue ;; esac
    case $known in *"$newline$name$newline"*) continue ;; esac
    case $part in
      files) paths=$paths$name$newline ;;
      sysctls) sysctls=$sysctls$name$newline ;;
      units) units=$units$name$newline ;;
      tables) tables=$tables$name$newline ;;
    esac
  done
  words
fi

section pending
# A line before it, for who has it empty, and one after it, for noise of a damaged disk ends none.
[ -e @PENDING@ ] && echo ' ' && sed 's/^/ /' @PENDING@ && echo
section undone
[ -e @UNDONE@ ] && echo ' ' && sed 's/^/ /' @UNDONE@ && echo

section packages
@PACKAGES@

section files
lines; set -- @PATHS@ $paths; words
# Of private keys the attributes alone: not even their hashes leave the host.
stat -c '%f %U %G %N' -- "$@" @KEYPATHS@
section sums
for path do
  shift
  [ -f "$path" ] && [ ! -h "$path" ] && set -- "$@" "$path"
done
[ $# -gt 0 ] && sha256sum -- "$@"

section sysctls
asked() { [ $# -gt 0 ] && printf '%s\t%s\n' "$@"; }
asked @SYSCTLS@
set -- @PROCPATHS@
lines
for name in $sysctls; do
  IFS=.; value=/proc/sys
  for part in $name; do value=$value/$part; done
  printf '%s\t%s\n' "$name" "$value"
  set -- "$@" "$value"
done
words
# Not the shell's read: it asks for a byte at a time, and /proc/sys answers only the first time.
grep -H '' -- "$@"

section units
lines; set -- @UNITS@ $units; words
if [ $# -gt 0 ] && [ -d /run/systemd/system ]; then
  printf 'unit\t%s\n' "$@"
  systemctl show -p LoadState -p ActiveState -p UnitFileState -- "$@"
fi

section keys
@KEYS@

section wireguard
wg show all dump | awk -F '\t' -v OFS='\t' -v ours=@OURS@ '
  NF == 5 { print $1, $3, $4, $5 }
  NF == 9 { if (!index(ours, " " $1 " ")) $3 = "(hidden)"; print }'
batch=
for name in $(wg show interfaces); do
  batch="${batch}addr show dev $name${newline}route show table all dev $name$newline"
done

section links
[ -n "$batch" ] && ip -j -force -batch - <<BATCH
$batch
BATCH
section rules4
[ -n "$batch" ] && ip -4 -j rule
section rules6
[ -n "$batch" ] && ip -6 -j rule

section tables
@TABLES@
lines
for name in $tables; do table_hash "${name%% *}" "${name#* }"; done
words

printf '%s\n' '@END@'
}
meshctl_facts </dev/null 2>/dev/null
"""


def script(request: FactsRequest) -> str:
    """The shell text that prints the facts for `facts.parse`. Deterministic."""
    quote = shlex.quote
    known = (*request.paths, *request.sysctls, *request.units, *request.tables)
    values = {
        "BEGIN": BEGIN,
        "END": END,
        "SECTION": SECTION_PREFIX,
        "PATH": SEARCH_PATH,
        "TOOLS": " ".join(TOOLS),
        "AGENTS": f"{AGENT_DIR}/{AGENT_PREFIX}*{AGENT_SUFFIX}",
        "LEDGER": LEDGER_PATH,
        "PENDING": PENDING_PATH,
        "UNDONE": UNDONE_PATH,
        "KNOWN": quote("\n".join(known)),
        "PACKAGES": _packages(request.packages),
        "PATHS": " ".join(map(quote, request.paths)),
        "SYSCTLS": " ".join(f"{quote(name)} {quote(proc_path(name))}" for name in request.sysctls),
        "PROCPATHS": " ".join(quote(proc_path(name)) for name in request.sysctls),
        "KEYPATHS": " ".join(map(quote, request.key_files)),
        "UNITS": " ".join(map(quote, request.units)),
        "KEYS": "\n".join(f"key_half {quote(json.dumps(path))} {quote(path)}" for path in request.key_files),
        "OURS": _list(request.interfaces),
        "TABLES": "\n".join("table_hash " + " ".join(map(quote, table.split(" ", 1))) for table in request.tables),
    }
    # One pass, so that a value that happens to look like a placeholder stays what it is.
    return re.sub(r"@([A-Z]+)@", lambda match: values[match.group(1)], _TEMPLATE)


def _packages(names: tuple[str, ...]) -> str:
    """Straight from dpkg's status file: 5 ms of CPU, where dpkg-query takes 17 (Debian 12)."""
    if not names:
        return ""
    program = """
  /^Package: / { name = index(wanted, " " $2 " ") ? $2 : "" }
  name && /^Status: / { state = $4 }
  name && /^Version: / { print name, state, $2 }"""
    return f"awk -v OFS='\\t' -v wanted={_list(names)} '{program}' /var/lib/dpkg/status"


def _list(names: tuple[str, ...]) -> str:
    """Words with a space around each, for awk's index()."""
    return shlex.quote(f" {' '.join(names)} ")
