#!/usr/bin/env bash
# One door to the project, on one machine, a SLURM cluster or a TPU slice.
# `./launch.sh help` lists the commands.
#
# Everything it makes lies in this folder: .venv, data/, runs/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
  cat <<'TEXT'
./launch.sh mini        on the embedded data set: a segmenter, its pseudo labels,
                        MPM trained with them, and runs/mini.html over all
./launch.sh test [...]  the test suite without the slow tests; with --all, every
                        test (other arguments go to pytest)
./launch.sh run [...]   python -m pinpp_jax.main with these arguments
./launch.sh install     the environment alone

On clusters (docs/cluster.md), ARGUMENTS being those of pinpp_jax.main;
--dry_run prints what would be written and run, and does nothing:

./launch.sh slurm [--nodes=1] [--gpus_per_node=8] [--cpus_per_task=8]
    [--partition=] [--time=] [--account=] [--qos=] [--constraint=] [--mem=]
    [--dry_run] -- ARGUMENTS
./launch.sh tpu NAME --zone=ZONE [--project=] [--dry_run] -- ARGUMENTS
./launch.sh tpu stop|status NAME --zone=ZONE [--project=] [--dry_run]

Environment variables:
  PYTHON        interpreter for a new .venv (default: python3, 3.11 or newer)
  PINPP_VENV    the virtual environment's folder (default: .venv)
  PINPP_EXTRAS  more extras of pyproject.toml, comma separated, e.g. torch
  PINPP_ACCELERATOR  tpu, cuda12, cuda13 or none, instead of looking for one
TEXT
}

# Ends with a line for the person at the keyboard.
fail() {
  echo "launch.sh: $1" >&2
  exit 2
}

# Prints words in one line, as a shell reads them back.
quoted() {
  local word line=''
  for word; do
    if [[ ! $word =~ ^[A-Za-z0-9_./:=@%+,-]+$ ]]; then
      word="'$(printf '%s' "$word" | sed "s/'/'\\\\''/g")'"
    fi
    line+=" $word"
  done
  echo "${line# }"
}

# Prints <config>-<variant>, main's own name for a run.
run_name() {
  local argument config='' path variant
  for argument; do
    if [[ $argument == --config=* ]]; then config=${argument#*=}; fi
  done
  [[ $config ]] || fail 'Which recipe? Give -- --config=configs/NAME.py:VARIANT.'
  path=${config%%:*} variant=full
  if [[ $config == *:* ]]; then variant=${config#*:}; fi
  path=${path##*/}
  echo "${path%.py}-$variant"
}

venv=${PINPP_VENV:-.venv}

# Prints the accelerator extra that this machine wants, or nothing for CPU.
accelerator() {
  if [[ ${PINPP_ACCELERATOR:-} ]]; then
    if [[ $PINPP_ACCELERATOR != none ]]; then echo "$PINPP_ACCELERATOR"; fi
  elif compgen -G '/dev/accel*' >/dev/null || compgen -G '/dev/vfio/[0-9]*' >/dev/null; then
    echo tpu
  elif command -v nvidia-smi >/dev/null; then
    local driver
    driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -n 1 | cut -d. -f1)
    if [[ $driver =~ ^[0-9]+$ ]]; then
      if ((driver >= 580)); then echo cuda13; elif ((driver >= 525)); then echo cuda12; fi
    fi
  fi
}

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  # uv knows where to get one.
  command -v uv >/dev/null || fail 'no Python 3.11 or newer found; set PYTHON=/path/to/python3.'
  echo 3.12
}

# Makes or reuses the environment; installs when pyproject.toml or the extras change.
prepare() {
  local extras stamp
  extras=$(echo "$1,$(accelerator),${PINPP_EXTRAS:-}" | tr -s , | sed 's/^,//; s/,$//')
  stamp="$extras $(cksum pyproject.toml)"
  if [[ -f $venv/installed && $(<"$venv/installed") == "$stamp" ]]; then
    return
  fi
  echo "launch.sh: installing into $venv (extras: ${extras:-none})" >&2
  if command -v uv >/dev/null; then
    [[ -x $venv/bin/python ]] || uv venv --quiet --python "$(find_python)" "$venv"
    uv pip install --quiet --python "$venv/bin/python" -e ".${extras:+[$extras]}"
  else
    [[ -x $venv/bin/python ]] || "$(find_python)" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -e ".${extras:+[$extras]}"
  fi
  echo "$stamp" >"$venv/installed"
}

# shellcheck source=scripts/slurm.sh
source scripts/slurm.sh
# shellcheck source=scripts/tpu.sh
source scripts/tpu.sh

command=${1:-help}
shift || true
case $command in
  mini)
    prepare ''
    mkdir -p data
    for stage in segmenter label mpm; do
      "$venv/bin/python" -m pinpp_jax.main --config="configs/$stage.py:mini"
    done
    "$venv/bin/python" -m pinpp_jax.tools.overview \
      runs/{segmenter,label,mpm}-mini --output=runs/mini.html
    ;;
  test)
    prepare dev
    chosen=(-m 'not slow')
    for argument; do
      shift
      if [[ $argument == --all ]]; then chosen=(); else set -- "$@" "$argument"; fi
    done
    # What a library says before it aborts is to be seen.
    exec "$venv/bin/python" -m pytest -n auto --capture=sys "${chosen[@]}" "$@"
    ;;
  run)
    prepare ''
    mkdir -p data
    exec "$venv/bin/python" -m pinpp_jax.main "$@"
    ;;
  install)
    prepare ''
    # Tools and runs look for data sets here unless TFDS_DATA_DIR is set.
    mkdir -p data
    ;;
  slurm) slurm "$@" ;;
  tpu) tpu "$@" ;;
  help | -h | --help) usage ;;
  *)
    usage >&2
    exit 2
    ;;
esac
