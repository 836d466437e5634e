"""Tests of bats for the verifier "project": no code of the answer ever runs in the shell that asserts.

Every test has a run of its own. Where a test sources a file of the answer, `source`, `.` and `load` are ours: the file
is read by another bash, and each function it defines becomes one here that starts a bash, sources the file there, calls
the function with the arguments, and takes back what it did to variables: as values, never as code. So nothing that an
answer redefines (`[`, `run`, `exit`, traps, options) is what its tests use, and leaving is leaving another process.

What goes to and fro: variables whose names are arguments (so namerefs work), functions whose names are, and variables
that the answer made itself, but for those that the tests' own text assigns.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

#: How `bats-preprocess` finds a test: the line that opens it, or a function with a remark.
TEST = (
    r"^[ \t]*@test[ \t]+(?P<title>.*[^ \t])[ \t]+\{"
    r"|^[ \t]*(?:function[ \t]+)?(?P<name>[^ \t(){]+)[ \t]*(?:\([ \t]*\))?[ \t]*\{[ \t]*#[ \t]*@test\b"
)
#: The other bash. Descriptor 9 says what is there before, in our own `declare` form; 8 takes what is there after.
_CHILD = r"""
assay_file=$1 assay_do=$2 assay_sent=$3; shift 3
assay_state=$(cat <&9); exec 9<&-
assay_before=" $(compgen -v | tr "\n" " ") BASH_REMATCH FUNCNAME PIPESTATUS _ OPTIND OPTARG OPTERR MAPFILE REPLY "
for assay_name in $assay_sent; do assay_before=${assay_before/ $assay_name / }; done
assay_tell() {
  local assay_name assay_kind assay_key IFS=$' \t\n'
  for assay_name in $(builtin compgen -v); do
    [[ $assay_before != *" $assay_name "* && $assay_name != assay_* ]] || continue
    assay_kind=$(builtin declare -p "$assay_name" 2>/dev/null) || continue
    [[ $assay_kind == "declare "*=* ]] || continue
    assay_kind=${assay_kind#declare -}; assay_kind=${assay_kind%% *}
    [[ $assay_kind != *n* ]] || continue
    local -n assay_it=$assay_name
    builtin printf "%s\0%s\0%s\0" "$assay_kind" "$assay_name" "${#assay_it[@]}"
    for assay_key in "${!assay_it[@]}"; do builtin printf "%s\0%s\0" "$assay_key" "${assay_it[$assay_key]}"; done
    unset -n assay_it
  done
  if [[ $assay_do == load ]]; then
    for assay_name in $(builtin compgen -A function); do
      [[ $assay_name == assay_tell ]] || builtin printf "function\0%s\0000\0" "$assay_name"
    done
  fi
  builtin printf "end\0end\0000\0"
}
if [[ $assay_do == load ]]; then
  eval "$assay_state" 2>/dev/null
  source "$assay_file" "$@" 8>&-
  assay_status=$?
else
  source "$assay_file" >/dev/null 2>&1 </dev/null 8>&-
  eval "$assay_state" 2>/dev/null
  "$assay_do" "$@" 8>&-
  assay_status=$?
fi
assay_tell >&8
builtin exit "$assay_status"
"""
#: In front of the tests and of all else in their file.
_FRONT = r"""
assay_child_@ID@=@CHILD@
assay_theirs_@ID@=' '
assay_is_@ID@() {
  local assay_each
  for assay_each in @FILES@; do
    [[ ! $1 -ef $BATS_TEST_DIRNAME/$assay_each ]] || return 0
  done
  return 1
}
source() {
  if assay_is_@ID@ "$1"; then assay_ask_@ID@ "$1" load "${@:2}"; else builtin source "$@"; fi
}
.() { source "$@"; }
assay_plain_@ID@() {
  [[ $1 =~ ^[A-Za-z_][A-Za-z0-9_]*$ && $1 != BATS_* && $1 != BASH* && $1 != assay_* && $1 != _ ]] || return 1
  case $1 in
    PATH | IFS | ENV | SHELLOPTS | POSIXLY_CORRECT | LD_* | GLOBIGNORE | FUNCNEST | PS4 | TMPDIR) return 1 ;;
    FUNCNAME | GROUPS | EUID | UID | PPID | DIRSTACK | PIPESTATUS | output | status | lines | stderr) return 1 ;;
  esac
}
# FILE load|FUNCTION ARGUMENTS...: in a bash of its own
assay_ask_@ID@() {
  local assay_file=$1 assay_do=$2 assay_each assay_sent='' assay_state='' assay_calls='' assay_told assay_status=0
  local assay_kind assay_name assay_count assay_key assay_value assay_end='' assay_mine assay_named=' '
  local IFS=$' \t\n'
  shift 2
  for assay_each in $assay_theirs_@ID@ "$@"; do
    [[ $assay_each == *[![:space:]]* && " $assay_sent " != *" $assay_each "* ]] || continue
    if assay_plain_@ID@ "$assay_each" && assay_value=$(declare -p "$assay_each" 2>/dev/null); then
      assay_value=${assay_value#declare -}
      assay_kind=${assay_value%% *}
      [[ $assay_kind != *[nr]* && $assay_value == *=* ]] || continue
      assay_state+="declare -${assay_kind/x/} ${assay_value#* }"$'\n'
      assay_sent+="$assay_each "
    fi
  done
  for assay_each in "$@"; do
    assay_plain_@ID@ "$assay_each" && assay_named+="$assay_each "
    case $assay_each in test_* | assay_* | bats_* | setup* | teardown* | source | . | load | run) continue ;; esac
    if declare -F -- "$assay_each" >/dev/null && ! [[ $(declare -f -- "$assay_each") == *assay_ask_@ID@* ]]; then
      assay_calls+="$(declare -f -- "$assay_each")"$'\n'
    fi
  done
  assay_told=$(mktemp) || exit 1
  /bin/bash --norc --noprofile -c "$assay_child_@ID@" "$0" "$assay_file" "$assay_do" "$assay_sent" "$@" \
    3>&- 4>&- 8>"$assay_told" 9<<<"$assay_calls$assay_state" || assay_status=$?
  while IFS= read -r -d '' assay_kind && IFS= read -r -d '' assay_name && IFS= read -r -d '' assay_count; do
    if [[ $assay_kind == end ]]; then assay_end=1; break; fi
    if [[ $assay_kind == function ]]; then assay_name_@ID@ "$assay_file" "$assay_name"; continue; fi
    [[ $assay_count =~ ^[0-9]{1,9}$ ]] || break
    assay_mine=
    if assay_plain_@ID@ "$assay_name"; then
      assay_value=$(declare -p "$assay_name" 2>/dev/null) || assay_value=
      [[ $assay_named != *" $assay_name "* ]] || assay_mine=1
      case ' @ASSIGNED@ ' in *" $assay_name "*) ;; *) assay_mine=1 ;; esac
      case $assay_value in
        '') [[ -z $assay_mine ]] || case $assay_kind in
            *A*) declare -gA "$assay_name=()" ;;
            *a*) declare -ga "$assay_name=()" ;;
            *) declare -g "$assay_name=" ;;
          esac ;;
        "declare -"*[nri]*' '"$assay_name"*) case ${assay_value%% "$assay_name"*} in *[nri]*) assay_mine= ;; esac ;;
      esac
      [[ -z $assay_value && $assay_theirs_@ID@ != *" $assay_name "* && -n $assay_mine ]] \
        && assay_theirs_@ID@+="$assay_name "
    fi
    if [[ -n $assay_mine ]]; then
      local -n assay_it_@ID@=$assay_name
      [[ $assay_kind != *[aA]* ]] || assay_it_@ID@=()
    fi
    while ((assay_count-- > 0)) && IFS= read -r -d '' assay_key && IFS= read -r -d '' assay_value; do
      [[ -n $assay_mine ]] || continue
      if [[ $assay_kind == *A* ]]; then
        [[ $assay_key != *['$`[]\"'"'"]* && -n $assay_key ]] && assay_it_@ID@[$assay_key]=$assay_value
      elif [[ $assay_kind == *a* ]]; then
        [[ $assay_key =~ ^(0|[1-9][0-9]{0,8})$ ]] && assay_it_@ID@[$assay_key]=$assay_value
      else
        assay_it_@ID@=$assay_value
      fi
    done
    [[ -z $assay_mine ]] || unset -n assay_it_@ID@
  done <"$assay_told"
  rm -f "$assay_told"
  [[ -n $assay_end ]] || exit "$assay_status"  # it left: so would it have here
  return "$assay_status"
}
# FILE NAME: a function here that calls the answer's; never in the place of what tests may use themselves
assay_name_@ID@() {
  local assay_text
  [[ $2 =~ ^[][:alnum:]_.:@%+,/^~!-]+$ ]] || return 0
  case $(type -t -- "$2") in
    function) [[ $(declare -f -- "$2") == *"assay_ask_@ID@ "* ]] || return 0 ;;
    builtin | keyword) return 0 ;;
    file) case ' @RUN@ ' in *" $2 "*) ;; *) return 0 ;; esac ;;
  esac
  printf -v assay_text '%q() { assay_ask_@ID@ %q %q "$@"; }' "$2" "$1" "$2"
  eval "$assay_text"
}
"""
#: Behind the tests: what is expected goes before the answer comes (emptied, not removed: bats reads the line that
#: failed).
_END = r"""
if [[ -n ${BATS_TEST_NAME-} ]]; then
  : >"$BATS_TEST_FILENAME"
  : >"$BATS_TEST_SOURCE"
  readonly -f source . $(compgen -A function assay_)
fi
"""
#: The one test of a run. Its own text says that it came to its end.
_ONE = r"""
@test @TITLE@ {
  @BODY@
  if [[ $? == 0 ]]; then builtin printf '# %s\n' '@TOKEN@' >&3; else false; fi
}
"""


def parts(
    given: Mapping[str, str], tests: Sequence[str], files: Sequence[str], name: str, token: str
) -> list[dict[str, str]]:
    """The given files of each run: one for every test; the others are left as functions that nobody calls."""
    made: list[dict[str, str]] = []
    everything = "\n".join(given.values())
    for path in tests:
        for wanted, found in enumerate(re.finditer(TEST, given[path], re.MULTILINE)):
            one = _ONE.replace("@TITLE@", found["title"] or f'"{found["name"]}"').replace("@TOKEN@", token)
            one = one.replace("@BODY@", found["name"] or f"assay_test_{name}_{wanted}")
            changed = {each: _untested(given[each], name) for each in tests}
            changed[path] += one
            front = _front(everything, files, name)
            made.append({**given, **{each: f"{front}{text}{_END}" for each, text in changed.items()}})
    return made


def _front(texts: str, files: Sequence[str], name: str) -> str:
    assigned = set(re.findall(r"\b([A-Za-z_]\w*)(?:\[[^\]\n]*\])?\+?=", texts))
    declared = re.findall(r"\b(?:local|declare|typeset|readonly|read|mapfile|readarray|for)\b([^\n;=]*)", texts)
    assigned |= {word for words in declared for word in re.findall(r"(?<![-\w$])[A-Za-z_]\w*", words)}
    run = set(re.findall(r"\brun[ \t]+(?:[-!]\S*[ \t]+)*([\w:.+-]+)", texts))
    quoted = "'" + _CHILD.replace("'", "'\\''") + "'"
    return (
        _FRONT.replace("@FILES@", " ".join(files))
        .replace("@ASSIGNED@", " ".join(sorted(assigned)))
        .replace("@RUN@", " ".join(sorted(run)))
        .replace("@CHILD@", quoted)
        .replace("@ID@", name)
    )


def _untested(text: str, name: str) -> str:
    """A file of tests as functions, none of them a test."""
    numbers = iter(range(text.count("\n") + 2))

    def plain(found: re.Match[str]) -> str:
        number = next(numbers)
        return f"{found['name'] or f'assay_test_{name}_{number}'}() {{"

    return re.sub(TEST, plain, text, flags=re.MULTILINE)
