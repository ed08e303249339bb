# What the scripts here share: how they speak, and how they build Go programs so that a person sees it go on and learns
# what to do when it does not. The sourcing script sets root, cache and speaker.
# shellcheck shell=bash

progress_seconds=15

say() { printf '%s: %s\n' "${speaker:?}" "$*" >&2; }

die() {
  say "$*"
  exit 1
}

# A full disk may have kept the log from saying so.
disk_is_full() {
  local directory available
  grep -q 'no space left on device' "$1" && return
  for directory in "$cache" "$(go env GOCACHE)" "$(go env GOMODCACHE)" "${TMPDIR:-/tmp}"; do
    available=$(df -Pk "$directory" 2>/dev/null | awk 'NR == 2 { print $4 }')
    [[ -z $available ]] || ((available > 100 * 1024)) || return 0
  done
  return 1
}

# What to do about a build that failed, by what Go said.
advise() {
  if disk_is_full "$1"; then
    say "the disk is full. The tools need about 6 GB in GOCACHE ($(go env GOCACHE)), GOMODCACHE ($(go env GOMODCACHE)),"
    say "the cache ($cache) and TMPDIR (${TMPDIR:-/tmp}). Free some space or point these elsewhere, then run this again."
  elif grep -q -E 'dial tcp|no such host|proxyconnect|i/o timeout|connection refused|TLS handshake|module lookup disabled' "$1"; then
    say "modules cannot be downloaded from GOPROXY=$(go env GOPROXY)."
    say "Set GOPROXY to a module proxy that this machine reaches, and HTTPS_PROXY where one is needed; then run this again."
    say "kube-apiserver, etcd and kubectl need no building where KUBEBUILDER_ASSETS names a directory that holds them."
  else
    say "see what Go says above; what was built so far is kept, so running this again goes on from there."
  fi
}

report_progress() { # WHAT JOB SCRATCH
  local what=$1 job=$2 scratch=$3 started=$SECONDS next=$progress_seconds compiled before=0
  while kill -0 "$job" 2>/dev/null; do
    sleep 0.2
    ((SECONDS - started >= next)) || continue
    next=$((next + progress_seconds))
    if [[ -s $scratch.packages ]]; then
      # Of how many is unknown: what is in Go's cache is not compiled.
      compiled=$(grep -c -v '^go: ' "$scratch.log" || true)
      if ((compiled > before)); then
        say "$what: compiling, $compiled packages so far, $((SECONDS - started)) s"
      else
        say "$what: checking what is cached, or linking, $((SECONDS - started)) s"
      fi
      before=$compiled
    else
      say "$what: downloading modules, $(grep -c '^go: downloading' "$scratch.log" || true) so far, $((SECONDS - started)) s"
    fi
  done
}

# Run a build as a job and report on it until it ends; die with advice where it fails. The build writes the list of its
# packages to SCRATCH.packages, and to standard error what `go build -v` does.
watch_build() { # WHAT SCRATCH BUILD...
  local what=$1 scratch=$2 job
  shift 2
  "$@" >"$scratch.log" 2>&1 &
  job=$!
  trap 'kill '"$job"' 2>/dev/null || true' EXIT
  report_progress "$what" "$job" "$scratch"
  if ! wait "$job"; then
    # Without the names of the packages that went well.
    grep -v -x -F -f "$scratch.packages" "$scratch.log" | tail -n 20 >&2 || true
    advise "$scratch.log"
    die "$what: not built"
  fi
  trap - EXIT
}
