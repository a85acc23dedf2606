#!/bin/sh
# Builds a target with coverage on the stable toolchain and runs it: run.sh TARGET [libFuzzer's options].
# A finding is written next to this script; pass it as the only option to reproduce it.
set -eu
cd "$(dirname "$0")"
target=$1
shift
host=$(rustc -vV | sed -n 's/^host: //p')
# An explicit target keeps the flags from build scripts.
RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares" \
    cargo build --release --target "$host" --bin "$target"
mkdir -p corpus/"$target"
exec target/"$host"/release/"$target" corpus/"$target" "$@"
