#!/usr/bin/env bash
# Trains on all GPUs of a SLURM job. torchrun starts the processes of each node; they meet at the first one.
#   RECIPE=recipe.yaml DATA=/data/clips OUT=/data/out sbatch --nodes 4 --gpus-per-node 8 examples/cluster/slurm.sh
# SLURM puts the job back into the queue after a preemption (--requeue), with any number of nodes (--nodes 2-4): the run
# goes on from its last checkpoint. SLURM sends SIGTERM five minutes before the end, and the run saves.
#SBATCH --job-name=hf-videovit
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@300
#SBATCH --open-mode=append
set -euo pipefail

: "${RECIPE:?a recipe}" "${DATA:?the videos}" "${OUT:?a folder that all nodes share}"
export FIRST_NODE="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
export OMP_NUM_THREADS=1

# srun takes the cores of a task from its own option, not from the job's.
srun --cpus-per-task "${SLURM_CPUS_PER_TASK:-1}" bash -c 'exec torchrun \
    --nnodes "$SLURM_NNODES" \
    --node-rank "$SLURM_NODEID" \
    --nproc-per-node "${SLURM_GPUS_ON_NODE:-1}" \
    --rdzv-backend c10d \
    --rdzv-id "$SLURM_JOB_ID" \
    --rdzv-endpoint "$FIRST_NODE:29500" \
    --max-restarts 3 \
    examples/finetune.py \
    --recipe "$RECIPE" \
    --data "$DATA" \
    --output_dir "$OUT" \
    --mixed_precision bf16 \
    --save_steps 500 \
    --resume'
