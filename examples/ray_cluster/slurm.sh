#!/bin/bash
# One allocation: the first node is the head with the devices, the others judge. Not run by us; adapt what is marked.
#SBATCH --job-name=assay
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=32        # adapt
#SBATCH --gres=gpu:2              # adapt; a heterogeneous job saves the devices of the reward nodes
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@300       # five minutes to finish the step and write a checkpoint
set -euo pipefail

source "$HOME/assay/.venv/bin/activate"   # adapt: the same path on every node
config=${1:?usage: sbatch slurm.sh RUN.yaml RUN_DIR; again, it goes on}
folder=${2:?usage: sbatch slurm.sh RUN.yaml RUN_DIR; again, it goes on}
port=6379
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}

# Other users reach these ports: a token, in the environment of every srun. The rest as in two_machines.sh.
export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=${RAY_AUTH_TOKEN:-$(umask 077 && ray get-auth-token --generate)}
export RAY_AUTH_TOKEN
export RAY_health_check_period_ms=1000 RAY_health_check_timeout_ms=4000 RAY_health_check_failure_threshold=3

srun --nodes=1 --ntasks=1 --overlap -w "$head" \
    ray start --head --node-ip-address="$head" --port="$port" --num-cpus="$SLURM_CPUS_PER_TASK" \
    --disable-usage-stats --block &
sleep 15
for node in "${nodes[@]:1}"; do
    srun --nodes=1 --ntasks=1 --overlap -w "$node" \
        ray start --address="$head:$port" --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus=0 \
        --resources="{\"reward\": $SLURM_CPUS_PER_TASK}" --disable-usage-stats --block &
done
sleep 15

# This script runs on the first node, so the trainer does too. SIGTERM is passed on: the run stops after its step.
# max_hours stops it before Slurm has to: it knows how long a step and a checkpoint take.
here=(cluster.address="$head:$port" max_hours=23.9)
if [ -f "$folder/grpo/metrics.jsonl" ]; then
    assay grpo --resume "$folder" "${here[@]}" &
else
    assay grpo "$config" run_dir="$folder" "${here[@]}" &
fi
run=$!
trap 'kill -TERM "$run"; wait "$run"' TERM
wait "$run"
