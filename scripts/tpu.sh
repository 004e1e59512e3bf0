# shellcheck shell=bash
# ./launch.sh tpu: all workers of an existing Cloud TPU VM slice. Sourced by
# launch.sh; docs/cluster.md explains it.
#
# Commands on a worker start in the home directory. The checkout is copied to
# ~/pinpp_jax; what the run prints, and its process id, are in runs/tpu there.

# Asks a worker whether its run is alive, and leaves $pid there. By that id
# alone: others may use the machine.
# shellcheck disable=SC2016
alive='pid=$(cat pinpp_jax/runs/tpu/pid 2>/dev/null) && grep -qs pinpp_jax.main "/proc/$pid/cmdline"'

tpu() {
  local action=run
  if [[ ${1:-} == stop || ${1:-} == status ]]; then
    action=$1
    shift
  fi
  [[ ${1:-} == [a-z]* ]] || fail 'tpu needs the name of a TPU VM.'
  local name=$1 dry_run='' zone='' place=()
  shift
  while (($#)) && [[ $1 != -- ]]; do
    case $1 in
      --zone=*) zone=$1 && place+=("$1") ;;
      --project=*) place+=("$1") ;;
      --dry_run) dry_run=yes ;;
      *) fail "tpu has no option $1; what main gets comes after --." ;;
    esac
    shift
  done
  [[ $zone ]] || fail 'tpu needs --zone=ZONE.'
  (($#)) && shift
  # shellcheck disable=SC2016
  case $action in
    run) tpu_run "$@" ;;
    stop)
      on_workers all "if $alive; then "'kill -TERM "$pid" && echo "$(hostname): stopping"; else echo "$(hostname): no run"; fi'
      ;;
    status)
      on_workers all "if $alive; then "'echo "$(hostname): running"; else echo "$(hostname): no run"; fi; tail -n 1 pinpp_jax/runs/tpu/log.txt'
      ;;
  esac
}

# Copies, installs, starts and follows. Reads the variables of tpu().
tpu_run() {
  run_name "$@" >/dev/null
  local argument workdir='' archive=runs/tpu/$name.tar.gz commit
  for argument; do
    if [[ $argument == --workdir=/* ]]; then workdir=$argument; fi
  done
  # Every worker has a disk of its own, and a checkpoint is of all of them.
  [[ $workdir ]] || fail 'tpu needs --workdir=/FOLDER among the arguments of main, on a disk that all workers share.'
  commit=$(git describe --always --dirty --abbrev=40)

  step mkdir -p runs/tpu
  pack "$archive"
  # shellcheck disable=SC2016
  {
    # A TPU belongs to one process: no second run beside one at work.
    on_workers all "if $alive; then "'echo "$(hostname): a run is at work; stop it first" >&2; exit 1; fi'
    step gcloud compute tpus tpu-vm scp "$archive" "$name:pinpp_jax.tar.gz" "${place[@]}" --worker=all
    # What an earlier checkout left goes; environment, data and runs stay.
    on_workers all 'mkdir -p pinpp_jax/runs/tpu && cd pinpp_jax && find . -mindepth 1 -maxdepth 1 ! -name .venv ! -name data ! -name runs -exec rm -rf {} + && tar -xzf ../pinpp_jax.tar.gz'
    # The image's own Python may be older than ours; uv brings one along.
    on_workers all 'cd pinpp_jax && export PATH="$HOME/.local/bin:$PATH" && { command -v uv >/dev/null || python3 -m pip install --quiet --user uv; } && PINPP_ACCELERATOR=tpu ./launch.sh install'
    # In a session of its own, with nothing of ssh's left open.
    on_workers all "cd pinpp_jax && { PINPP_COMMIT=$commit setsid nohup bash -c 'echo \$\$ >runs/tpu/pid; exec .venv/bin/python -m pinpp_jax.main \"\$@\"' run $(quoted "$@") --config.distributed=True >runs/tpu/log.txt 2>&1 </dev/null & }"
    on_workers 0 'cd pinpp_jax && sleep 1 && tail --pid="$(cat runs/tpu/pid)" -n +1 -F runs/tpu/log.txt'
  }
}

# Packs the tracked files as they are now, committed or not.
pack() {
  if [[ $dry_run ]]; then
    # shellcheck disable=SC2016
    echo 'tree=$(git stash create)'
    echo "git archive --format=tar.gz --output=$1 \"\${tree:-HEAD}\""
    return
  fi
  local tree
  tree=$(git stash create)
  git archive --format=tar.gz --output="$1" "${tree:-HEAD}"
}

# on_workers WHICH COMMAND: runs a command on a worker, or on 'all'.
on_workers() {
  step gcloud compute tpus tpu-vm ssh "$name" "${place[@]}" "--worker=$1" "--command=$2"
}

# Runs a command, or prints it.
step() {
  if [[ $dry_run ]]; then quoted "$@"; else "$@"; fi
}
