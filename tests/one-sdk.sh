#!/usr/bin/env bash
# Fails where `make run` and `make test` would give a crate of the function different features: cargo would then compile
# the AWS SDK twice, silently.
set -euo pipefail

# Each crate with its features, as cargo resolves them for some packages together, with or without their tests.
crates() {
  cargo tree --locked --prefix none --no-dedupe --format '{p} [{f}]' "$@" | sed 's/ ([^)]*)//' | sort -u
}

function=$(crates --edges no-dev --package ec2-curfew | cut -d ' ' -f 1,2 | sort -u)
run=$(crates --edges no-dev --package ec2-curfew --package ec2-sim | grep --fixed-strings --word-regexp "$function")
test=$(crates --workspace)
if other=$(comm -23 <(echo "$run") <(echo "$test") | grep .); then
  echo "compiled by \`make run\` with features that \`make test\` does not ask for, see tests/README.md:" >&2
  echo "$other" >&2
  exit 1
fi
