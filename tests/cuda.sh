#!/usr/bin/env bash
# What needs a GPU, within 8 minutes: the tests on CUDA, the benchmark, and a run that is evaluated on the CPU.
#
#   tests/cuda.sh [FOLDER]        after `make venv`; files go to FOLDER, ./cuda without one
#
# DEVICE=cpu tries the script itself on a machine without a GPU.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
output=${1:-cuda} device=${DEVICE:-cuda} bin=${BIN:-.venv/bin} failed=0
use_cuda=$([ "$device" = cuda ] && echo True || echo False)
mkdir -p "$output"
export OMP_NUM_THREADS=1

step() { # SECONDS NAME COMMAND...
    local seconds=$1 name=$2 status
    shift 2
    timeout "$seconds" "$@" >"$output/$name.log" 2>&1
    status=$?
    [ "$status" = 0 ] || failed=1
    echo "$name: status $status, $SECONDS s so far"
}

"$bin/python" -c 'import torch; print("torch", torch.__version__, torch.cuda.is_available() and torch.cuda.get_device_name())'
step 150 tests "$bin/python" -m pytest -q tests/test_devices.py
step 60 run "$bin/limask" run --host pymarlzooplus --results "$output/run" --config=qmix_lim --env-config=smax \
    with env_args.map_name=3m use_cuda="$use_cuda" t_max=2000 batch_size=64 test_interval=1000 save_model=True seed=1
step 60 evaluate "$bin/limask" evaluate "$output/run" --episodes 32 --output "$output" --force
step 210 speed "$bin/limask" bench speed --quick --device "$device" --output "$output" --force
exit "$failed"
