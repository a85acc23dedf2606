# What .ci/run and .ci/full share. Sourced, not run.
#
# check NAME COMMAND...: prints the command, runs it, and prints how long it took. The first failure ends the run.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
export CI=${CI:-true} DEBIAN_FRONTEND=noninteractive
export NPM_CONFIG_AUDIT=false NPM_CONFIG_FUND=false NPM_CONFIG_UPDATE_NOTIFIER=false

scratch=$(mktemp -d)
current='preparation' times=()
finish() {
    local code=$?
    rm -rf "$scratch"
    printf '\n'
    if ((${#times[@]})); then printf '%s\n' "${times[@]}"; fi
    if ((code)); then
        printf 'ci: FAILED at "%s" (exit status %d) after %d checks and %d s\n' "$current" "$code" "${#times[@]}" "$SECONDS"
    else
        printf 'ci: all %d checks passed in %d s\n' "${#times[@]}" "$SECONDS"
    fi
}
trap finish EXIT
# Without these, a signal would end the shell with the status of the last command that succeeded.
trap 'exit 130' INT
trap 'exit 143' TERM

check() {
    local since=$SECONDS line
    current=$1
    shift
    printf '\n== %s\n$ %s\n' "$current" "$*"
    "$@" </dev/null
    printf -v line '%6d s  %s' $((SECONDS - since)) "$current"
    times+=("$line")
    printf -- '-- %s\n' "$line"
}

as_root() { if ((EUID)); then sudo -n "$@"; else "$@"; fi; }

# debian COMMAND:PACKAGE...: installs the packages whose commands are missing.
debian() {
    local missing=() pair
    for pair in "$@"; do
        command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
    done
    if ((${#missing[@]})); then
        as_root apt-get -qq update
        as_root apt-get -qq --yes --no-install-recommends install "${missing[@]}"
    fi
}

# fuzz SECONDS: coverage-guided inputs for what reads bytes from outside. A finding fails the run and is kept by run.sh.
fuzz() { kernels/fuzz/run.sh pack -max_total_time="$1" -print_final_stats=1; }

tree() { git status --porcelain --untracked-files=all 2>/dev/null || true; }
tree_is_as_it_was() { diff <(printf '%s' "$tree_before") <(tree | head -c -1) && printf 'unchanged\n'; }
tree_before=$(tree)
