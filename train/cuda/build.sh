#!/bin/sh
# Builds `cargo nanochat` with `train --device cuda`, on a machine that may have neither a GPU nor a CUDA toolkit.
#
#   train/cuda/build.sh [FOLDER]            the binary: FOLDER/release/cargo-nanochat
#   train/cuda/build.sh [FOLDER] COMMAND…   the toolkit only, then COMMAND in its environment
#
# FOLDER, `target/cuda` by default, takes about 3 GB. The toolkit is NVIDIA's own wheels, laid out as candle's build
# scripts look for one. CUDA_COMPUTE_CAP names the GPU, 90 (H100, H200) by default; one of another number needs another
# build. Needs cargo, a C and a C++ compiler that nvcc knows, and python3 with venv. Linux only.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
folder=${1:-$root/target/cuda}
[ $# -eq 0 ] || shift
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)

say() { printf '%s\n' "train/cuda/build.sh: $*" >&2; }

# 1. The toolkit. Each wheel by its version: headers, compiler and libraries of one release belong together. No
#    dependencies: they would bring a second release.
venv=$folder/wheels
if [ ! -e "$venv/complete" ]; then
    say "fetching the toolkit into $venv"
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --no-deps --quiet \
        nvidia-cuda-nvcc==13.0.88 \
        nvidia-cuda-crt==13.0.88 \
        nvidia-nvvm==13.0.88 \
        nvidia-cuda-runtime==13.0.96 \
        nvidia-cuda-cccl==13.0.85 \
        nvidia-cuda-nvrtc==13.0.88 \
        nvidia-cuda-profiler-api==13.0.85 \
        nvidia-curand==10.4.0.35 \
        'nvidia-cublas>=13.0,<13.2'
    : >"$venv/complete"
fi
cuda=
for candidate in "$venv"/lib/python3*/site-packages/nvidia/cu13; do
    [ -d "$candidate" ] && cuda=$candidate
done
[ -n "$cuda" ] || { say "the wheels have no folder nvidia/cu13; remove $venv and try again"; exit 1; }

# 2. The names that linkers and build scripts look for. Wheels carry libraries by their full names only.
ln -sfn lib "$cuda/lib64"
for name in cudart cublas cublasLt curand nvrtc; do
    [ ! -e "$cuda/lib/lib$name.so" ] || continue
    versioned=
    for library in "$cuda/lib/lib$name.so."*; do
        [ -e "$library" ] && versioned=$(basename "$library") && break
    done
    [ -n "$versioned" ] || { say "there is no lib$name in $cuda/lib; remove $venv and try again"; exit 1; }
    ln -s "$versioned" "$cuda/lib/lib$name.so"
done

export CUDA_HOME="$cuda" CUDA_PATH="$cuda" CUDA_ROOT="$cuda" CUDA_TOOLKIT_ROOT_DIR="$cuda"
export PATH="$cuda/bin:$PATH"
# Without a GPU it cannot be detected.
export CUDA_COMPUTE_CAP="${CUDA_COMPUTE_CAP:-90}"

# 3. libcuda comes with the driver, which this machine need not have. Whoever links wants its names, so an empty library
#    defines them; the one of the driver takes its place when the binary starts.
stub=$folder/stub
mkdir -p "$stub"
export LIBRARY_PATH="$stub:$cuda/lib${LIBRARY_PATH:+:$LIBRARY_PATH}"
cd "$root"
driver=$(cargo metadata --format-version 1 --locked --features cargo-nanochat/cuda | python3 -c '
import json, pathlib, sys
packages = json.load(sys.stdin)["packages"]
manifest, = (p["manifest_path"] for p in packages if p["name"] == "cudarc")
print(pathlib.Path(manifest).parent / "src" / "driver")')
# All functions of the driver that cudarc declares, not those that its library leaves undefined: at `lto`, that library
# is bitcode, which nm cannot read.
grep -rhoE '\bfn cu[A-Z][A-Za-z0-9_]*' "$driver" | sed 's/^fn //' | sort -u >"$stub/names"
[ -s "$stub/names" ] || { say "no function of the driver is declared in $driver; has cudarc moved them?"; exit 1; }
sed 's/.*/void &(void) {}/' "$stub/names" >"$stub/cuda.c"
"${CC:-cc}" -shared -fPIC -w -Wl,-soname,libcuda.so.1 -o "$stub/libcuda.so" "$stub/cuda.c"
ln -sfn libcuda.so "$stub/libcuda.so.1"

# 4. The build, or what was asked for.
if [ $# -gt 0 ]; then
    exec "$@"
fi
say "building for compute capability $CUDA_COMPUTE_CAP; the kernels alone take some minutes"
cargo build --release --locked -p cargo-nanochat --features cuda --target-dir "$folder"
say "made $folder/release/cargo-nanochat"
say "where it runs it needs the driver's libcuda, and libcudart, libcublas, libcublasLt and libcurand as in $cuda/lib"
