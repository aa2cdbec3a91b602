#!/bin/bash
# A training by torchrun: the same line on each node, which meet at the first.
#
#   RUN=outputs/genre scripts/launch/torchrun.sh experiment=lvu_genre data.root=/data      one node
#   RUN=… NODES=2 HEAD=first-node scripts/launch/torchrun.sh experiment=…           on each of two
#
# Everything behind the file's name are settings of mmavlm.train. By environment variables:
#   NODES=1             how many machines
#   PROCESSES=8         processes on each; by default one for each GPU, or one
#   HEAD=localhost      the first node, by a name that the others find
#   PORT=29500          where it listens
#   RUN=outputs/genre   the run's folder, which must be given, on a disk that all nodes see
#   TRAINER=hsdp        the trainer (ddp)
#   PYTHON=…            the Python that has mmavlm (python)
set -euo pipefail

NODES="${NODES:-1}"
GPUS=$( (nvidia-smi --list-gpus 2>/dev/null || true) | wc -l)
PROCESSES="${PROCESSES:-$(( GPUS > 0 ? GPUS : 1 ))}"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # else each process takes all cores

exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes "$NODES" --nproc-per-node "$PROCESSES" \
    --rdzv-backend c10d --rdzv-endpoint "${HEAD:-localhost}:${PORT:-29500}" \
    -m mmavlm.train \
    trainer="${TRAINER:-ddp}" trainer.num_nodes="$NODES" trainer.devices="$PROCESSES" \
    hydra.run.dir="${RUN:?give the folder of the run}" resume=auto "$@"
