#!/usr/bin/env bash
# Train on NODES machines of 4 GPUs without a scheduler. Give this command on every machine, with the same address:
#   NODES=2 ADDRESS=node0:29500 DATA_ROOT=/data/shards examples/torchrun.sh configs/depth_stable_diffusion.yaml
# A rank that dies takes the others down, and all are started again from the last checkpoint, up to three times.
set -euo pipefail

config=${1:?usage: examples/torchrun.sh CONFIG [options of train.py fit]}
shift

# Image sizes alternate: memory grows in place rather than in blocks that only one of them fits.
export PYTORCH_ALLOC_CONF="${PYTORCH_ALLOC_CONF:-expandable_segments:True}"

exec torchrun --nnodes "${NODES:-1}" --nproc-per-node "${GPUS:-4}" --max-restarts 3 \
    --rdzv-backend c10d --rdzv-endpoint "${ADDRESS:-localhost:29500}" --rdzv-id "${JOB:-onestep}" \
    train.py fit --config "$config" --ckpt_path last \
    --trainer.num_nodes "${NODES:-1}" --trainer.devices "${GPUS:-4}" --trainer.strategy ddp "$@"
