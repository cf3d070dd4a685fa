#!/bin/bash
#SBATCH --job-name=cifar10-dcgan
#SBATCH --partition=gpu
#SBATCH --account=vision
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --mem=400G
#SBATCH --time=1-12:00:00
#SBATCH --signal=USR1@120
#SBATCH --open-mode=append
#SBATCH --output=/scratch/lab/runs/b/slurm/job.log
#SBATCH --requeue
#SBATCH --exclusive

# gesso slurm submit ... -- fit --config cifar10-dcgan
run=/scratch/lab/runs/b
logs=${run//%/%%}/logs
module load cuda/13.0
source /home/ada/gesso/.venv/bin/activate
export NCCL_SOCKET_IFNAME=ib0
export WANDB_MODE=offline
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# Differs between jobs, since two of them may share a node.
MASTER_PORT=$((15000 + SLURM_JOB_ID % 15000))
export MASTER_ADDR MASTER_PORT

# SLURM's signals are for the ranks; this script waits for them, to decide what comes next.
trap : TERM USR1

srun --kill-on-bad-exit=1 --open-mode=append --output="$logs/rank%t.log" --cpus-per-task=8 \
    /home/ada/gesso/.venv/bin/gesso fit --resume "$run"
code=$?

# Cancelled, or already requeued by SLURM itself, maybe running elsewhere: nothing is left to decide.
now=$(scontrol --oneliner show job "$SLURM_JOB_ID")
[[ $now == *" Restarts=${SLURM_RESTART_COUNT:-0} "* ]] || exit "$code"
[[ $now == *" JobState=RUNNING "* || $now == *" Reason=TimeLimit "* ]] || exit "$code"
case $(/home/ada/gesso/.venv/bin/gesso slurm settle "$run" --exit-code "$code") in
    requeue) scontrol requeue "$SLURM_JOB_ID" ;;
    pass) code=0 ;;
esac
exit "$code"
