#!/bin/bash
#SBATCH --job-name=mnist-dcgan
#SBATCH --partition=gpu
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --time=2:00:00
#SBATCH --signal=USR1@120
#SBATCH --open-mode=append
#SBATCH --output=/scratch/lab/runs/a/slurm/job.log
#SBATCH --requeue

# gesso slurm submit ... -- fit --config mnist-dcgan
run=/scratch/lab/runs/a
logs=${run//%/%%}/logs
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# Differs between jobs, since two of them may share a node.
MASTER_PORT=$((15000 + SLURM_JOB_ID % 15000))
export MASTER_ADDR MASTER_PORT

# SLURM's signals are for the ranks; this script waits for them, to decide what comes next.
trap : TERM USR1

srun --kill-on-bad-exit=1 --open-mode=append --output="$logs/rank%t.log" \
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
