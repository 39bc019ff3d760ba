#!/usr/bin/env bash
# Stands in for the compiler of Curfew's own crates, and for no others, in `make lint`.
#
# `cargo clippy` checks every dependency, for which it compiles the front half of the AWS SDK once more. `cargo build`
# takes what `make run` and `make test` have compiled already, and keeps what comes out of here apart from it.
exec clippy-driver "$@" -D warnings
