#!/usr/bin/env bash
# The same with accelerate and FSDP2: weights, gradients and optimiser are shared out among all GPUs.
#   RECIPE=recipe.yaml DATA=/data/clips OUT=/data/out sbatch --nodes 4 --gpus-per-node 8 examples/cluster/slurm_fsdp2.sh
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
srun --cpus-per-task "${SLURM_CPUS_PER_TASK:-1}" bash -c 'exec accelerate launch \
    --config_file examples/accelerate/fsdp2.yaml \
    --num_machines "$SLURM_NNODES" \
    --machine_rank "$SLURM_NODEID" \
    --num_processes "$((SLURM_NNODES * SLURM_GPUS_ON_NODE))" \
    --main_process_ip "$FIRST_NODE" \
    --main_process_port 29500 \
    --rdzv_backend c10d \
    --max_restarts 3 \
    examples/finetune.py \
    --recipe "$RECIPE" \
    --data "$DATA" \
    --output_dir "$OUT" \
    --save_steps 500 \
    --resume'
