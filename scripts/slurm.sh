# shellcheck shell=bash
# ./launch.sh slurm: one process per GPU, in a batch job that comes back until
# the run has ended. Sourced by launch.sh; docs/cluster.md explains it.
# shellcheck disable=SC2154  # $venv is launch.sh's.

# Status of a run that SIGTERM stopped half-way (EX_TEMPFAIL of sysexits.h).
stopped_status=75

slurm() {
  local nodes=1 gpus_per_node=8 cpus_per_task=8 dry_run='' directives=()
  while (($#)) && [[ $1 != -- ]]; do
    case $1 in
      --nodes=*) nodes=${1#*=} ;;
      --gpus_per_node=*) gpus_per_node=${1#*=} ;;
      --cpus_per_task=*) cpus_per_task=${1#*=} ;;
      --account=* | --constraint=* | --mem=* | --partition=* | --qos=* | --time=*)
        directives+=("#SBATCH $1")
        ;;
      --dry_run) dry_run=yes ;;
      *) fail "slurm has no option $1; what main gets comes after --." ;;
    esac
    shift
  done
  local number
  for number in "$nodes" "$gpus_per_node" "$cpus_per_task"; do
    [[ $number =~ ^[1-9][0-9]*$ ]] || fail "'$number' is no number of nodes, GPUs or CPUs."
  done
  (($#)) && shift
  local name script
  name=$(run_name "$@")
  script=$PWD/runs/slurm/$name.sbatch

  # The login node need not have the GPUs that the others have; CUDA 12 runs
  # under newer drivers too.
  export PINPP_ACCELERATOR=${PINPP_ACCELERATOR:-cuda12}
  if [[ $dry_run ]]; then
    echo "# 1. The environment $venv, with the extra $PINPP_ACCELERATOR."
    echo "# 2. The file $script:"
    batch_script "$@"
    echo '# 3. Run:'
    quoted sbatch "$script"
    return
  fi
  prepare ''
  mkdir -p "${script%/*}"
  batch_script "$@" >"$script"
  sbatch "$script"
}

# Prints the batch script. Reads the variables of slurm().
batch_script() {
  local python=$venv/bin/python
  [[ $python == /* ]] || python=$PWD/$python
  # --signal: before the time limit, every process gets SIGTERM with so many
  # seconds left to save. Not `B:`, which would tell this script alone.
  # --open-mode: a job that comes back goes on in the same log.
  # shellcheck disable=SC2016
  printf '%s\n' '#!/usr/bin/env bash' \
    "#SBATCH --job-name=$name" \
    "#SBATCH --nodes=$nodes" \
    "#SBATCH --ntasks-per-node=$gpus_per_node" \
    "#SBATCH --gres=gpu:$gpus_per_node" \
    "#SBATCH --cpus-per-task=$cpus_per_task" \
    ${directives[@]+"${directives[@]}"} \
    "#SBATCH --chdir=$PWD" \
    "#SBATCH --output=$PWD/runs/slurm/$name-%j.log" \
    '#SBATCH --open-mode=append' \
    '#SBATCH --requeue' \
    '#SBATCH --signal=TERM@300' \
    'status=0' \
    '# When one process has ended, the others have a minute.' \
    "srun --label --cpus-per-task=$cpus_per_task --kill-on-bad-exit=0 --wait=60 \\" \
    "  $(quoted "$python" -m pinpp_jax.main) \\" \
    "  $(quoted "$@") \\" \
    "  --config.distributed=True --devices=$((nodes * gpus_per_node)) --local_devices=1 \\" \
    "  --stopped_status=$stopped_status || status=\$?" \
    "if ((status == $stopped_status)); then" \
    '  echo "Stopped before the end: job $SLURM_JOB_ID goes back into the queue."' \
    '  # Incomplete: not when somebody is cancelling the job.' \
    '  scontrol requeue Incomplete "$SLURM_JOB_ID"' \
    'fi' \
    'exit "$status"'
}
