"""launch.sh on clusters: what it writes and runs, with stand-ins for them."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

from absl import flags
import processes
import pytest
import yaml

from pinpp_jax import main, metrics

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Every stand-in notes its name and arguments.
NOTE = f"""#!{sys.executable}
import json, os, pathlib, shutil, subprocess, sys
name, *words = [pathlib.Path(sys.argv[0]).name, *sys.argv[1:]]
with open(os.environ['STAND_INS'], 'a') as file:
  file.write(json.dumps([name, *words]) + '\\n')
"""

STAND_INS = {
  'sbatch': "print('Submitted batch job 4242')",
  'scontrol': '',
  # Starts the tasks of one step on this machine, with the variables that
  # srun(1) lists under OUTPUT ENVIRONMENT VARIABLES and JAX reads; the process
  # ids go to a file. Returns the highest exit code of all tasks.
  'srun': """
while words[0].startswith('--'):
  del words[0]
count = int(os.environ['SLURM_NTASKS'])
common = {'SLURM_STEP_NODELIST': 'localhost', 'SLURM_STEP_NUM_NODES': '1'}
tasks = [
  subprocess.Popen(words, env=os.environ | common | {
    'SLURM_PROCID': str(i), 'SLURM_LOCALID': str(i)})
  for i in range(count)
]
pids = ' '.join(str(task.pid) for task in tasks)
pathlib.Path(os.environ['STAND_INS'] + '.pids').write_text(pids)
sys.exit(max(task.wait() for task in tasks))
""",
  # Two workers: folders beside the note, in which commands really run.
  'gcloud': """
home = pathlib.Path(os.environ['STAND_INS']).parent
options = dict(word.split('=', 1) for word in words if word.startswith('--'))
which = {'all': [0, 1], '0': [0]}[options['--worker']]
status = 0
for i in which:
  worker = home / f'worker{i}'
  worker.mkdir(exist_ok=True)
  if words[3] == 'scp':
    shutil.copy(words[4], worker / words[5].split(':')[1])
  else:
    done = subprocess.run(
      ['bash', '-c', options['--command']], cwd=worker,
      env=os.environ | {'HOME': str(worker)})
    status = max(status, done.returncode)
sys.exit(status)
""",
  # Makes an environment with the Python that $STAND_IN_PYTHON holds.
  'uv': """
if words[0] == 'venv':
  python = pathlib.Path(words[-1], 'bin/python')
  python.parent.mkdir(parents=True)
  python.write_text(os.environ['STAND_IN_PYTHON'])
  python.chmod(0o755)
""",
}

PYTHON = f'#!/bin/sh\nexec {sys.executable} "$@"\n'
# In place of a run: says what it was given, and takes SIGTERM for an answer.
PRETENDER = """#!/bin/bash
trap 'echo saved; exit 0' TERM
printf '<%s>' "$PINPP_COMMIT" "$@"; echo
for ((i = 0; i < 10 * SECONDS_TO_RUN; i++)); do sleep 0.1; done
"""


class Checkout:
  """A checkout with launch.sh, and a machine on which nothing is real.

  Args:
    folder: An empty folder.
  """

  def __init__(self, folder):
    self.folder = folder / 'checkout'
    self.note = folder / 'stand_ins.jsonl'
    shutil.copytree(ROOT / 'scripts', self.folder / 'scripts')
    for name in ('launch.sh', 'pyproject.toml'):
      shutil.copy(ROOT / name, self.folder)
    machine = folder / 'bin'
    machine.mkdir()
    files = {name: NOTE + text for name, text in STAND_INS.items()}
    for name, text in (files | {'python3': PYTHON}).items():
      (machine / name).write_text(text)
      (machine / name).chmod(0o755)
    self.environment = {
      **os.environ,
      'PATH': f'{machine}:/usr/bin:/bin',
      'STAND_INS': str(self.note),
      'STAND_IN_PYTHON': PYTHON,
    }
    for name in 'PINPP_ACCELERATOR', 'PINPP_EXTRAS', 'PINPP_VENV':
      self.environment.pop(name, None)

  def start(self, *arguments, **environment):
    """Starts ./launch.sh."""
    return subprocess.Popen(
      ['./launch.sh', *arguments],
      cwd=self.folder,
      env=self.environment | environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )

  def launch(self, *arguments, status=0, **environment):
    """Returns what ./launch.sh prints."""
    process = self.start(*arguments, **environment)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == status, output
    return output

  def git(self, *arguments):
    """Returns what git prints."""
    identity = ('-c', 'user.name=A', '-c', 'user.email=a@example.org')
    return subprocess.run(
      ['git', *identity, *arguments],
      cwd=self.folder,
      check=True,
      capture_output=True,
      text=True,
    ).stdout.strip()

  @property
  def called(self):
    """What was called of the stand-ins, in order."""
    if not self.note.exists():
      return []
    return [json.loads(line) for line in self.note.read_text().splitlines()]

  @property
  def files(self):
    """All files and their contents."""
    found = self.folder.parent.rglob('*')
    return {p: p.read_bytes() for p in found if p.is_file()}


@pytest.fixture
def checkout(tmp_path):
  return Checkout(tmp_path)


# References are to https://slurm.schedmd.com/sbatch.html, srun.html,
# scontrol.html, preempt.html, and to JAX's page "Multi-host and multi-process
# environments" (https://docs.jax.dev/en/latest/multi_process.html).
def batch_script(folder, nodes, devices, directives):
  return [
    '#!/usr/bin/env bash',
    '#SBATCH --job-name=mpm-human',
    # JAX: "When running on GPUs with Slurm [...] it is assumed that one process
    # is started per GPU". sbatch: --ntasks-per-node is "meant to be used with
    # the --nodes option"; --gres is "requested per node". Not
    # --gpus-per-task, which binds a GPU to each task (--tres-bind): JAX picks
    # the one of the task's number itself.
    f'#SBATCH --nodes={nodes}',
    '#SBATCH --ntasks-per-node=8',
    '#SBATCH --gres=gpu:8',
    # sbatch: without it, "one processor per task".
    '#SBATCH --cpus-per-task=8',
    *directives,
    f'#SBATCH --chdir={folder}',
    # sbatch, filename pattern: %j is the job's id.
    f'#SBATCH --output={folder}/runs/slurm/mpm-human-%j.log',
    '#SBATCH --open-mode=append',
    # sbatch: "eligible for requeuing [...] after node failure, or upon
    # preemption"; "the batch script is initiated from its beginning".
    '#SBATCH --requeue',
    # sbatch: without B:, "all job steps will be signaled, but not the batch
    # shell itself". preempt: a job to be preempted gets SIGTERM as well.
    '#SBATCH --signal=TERM@300',
    'status=0',
    '# When one process has ended, the others have a minute.',
    # JAX finds its peers by SLURM_STEP_NODELIST, which srun alone sets. srun:
    # -K "takes precedence over -W", and would kill processes that are about to
    # end with the same status.
    'srun --label --cpus-per-task=8 --kill-on-bad-exit=0 --wait=60 \\',
    f'  {folder}/.venv/bin/python -m pinpp_jax.main \\',
    "  --config=configs/mpm.py:human '--config.data.data_dir=/a b/it'\\''s' \\",
    f'  --config.distributed=True --devices={devices} --local_devices=1 \\',
    # srun: returns "the highest exit code of all tasks".
    '  --stopped_status=75 || status=$?',
    'if ((status == 75)); then',
    '  echo "Stopped before the end: job $SLURM_JOB_ID goes back into the'
    ' queue."',
    '  # Incomplete: not when somebody is cancelling the job.',
    # scontrol: "Operate only on jobs [...] which have not completed".
    '  scontrol requeue Incomplete "$SLURM_JOB_ID"',
    'fi',
    'exit "$status"',
  ]


MAIN = ('--config=configs/mpm.py:human', "--config.data.data_dir=/a b/it's")


class TestSlurm:
  @pytest.mark.parametrize(
    ('options', 'nodes', 'devices', 'directives'),
    [
      ([], 1, 8, []),
      (
        ['--nodes=4', '--partition=gpu', '--time=24:00:00', '--account=me'],
        4,
        32,
        [
          '#SBATCH --partition=gpu',
          '#SBATCH --time=24:00:00',
          '#SBATCH --account=me',
        ],
      ),
    ],
    ids=['1 node', '4 nodes'],
  )
  def test_dry_run_says_all_and_does_nothing(
    self, options, nodes, devices, directives, checkout
  ):
    before = checkout.files
    output = checkout.launch('slurm', *options, '--dry_run', '--', *MAIN)
    script = f'{checkout.folder}/runs/slurm/mpm-human.sbatch'
    assert output.splitlines() == [
      '# 1. The environment .venv, with the extra cuda12.',
      f'# 2. The file {script}:',
      *batch_script(checkout.folder, nodes, devices, directives),
      '# 3. Run:',
      f'sbatch {script}',
    ]
    assert checkout.files == before

  def test_what_it_submits_is_what_dry_run_says(self, checkout):
    arguments = ('slurm', '--nodes=4', '--', *MAIN)
    assert 'Submitted batch job 4242' in checkout.launch(*arguments)
    script = checkout.folder / 'runs/slurm/mpm-human.sbatch'
    said = batch_script(checkout.folder, 4, 32, [])
    assert script.read_text().splitlines() == said
    *installed, submitted = checkout.called
    assert installed[-1][-1] == '.[cuda12]'
    assert submitted == ['sbatch', str(script)]

  def test_the_accelerator_can_be_named(self, checkout):
    arguments = ('slurm', '--dry_run', '--', *MAIN)
    output = checkout.launch(*arguments, PINPP_ACCELERATOR='cuda13')
    assert 'with the extra cuda13.' in output

  @pytest.mark.parametrize(
    ('arguments', 'message'),
    [
      (['--nodes=two', '--', *MAIN], "'two' is no number of nodes"),
      (['--gpus_per_node=0', '--', *MAIN], "'0' is no number of nodes, GPUs"),
      (['--nods=2', '--', *MAIN], 'slurm has no option --nods=2'),
      ([*MAIN], 'what main gets comes after --'),
      (['--nodes=2'], 'Which recipe? Give -- --config='),
    ],
  )
  def test_mistakes(self, arguments, message, checkout):
    output = checkout.launch('slurm', *arguments, status=2)
    assert message in output and len(output.splitlines()) == 1
    assert not checkout.called


def until(text, process):
  """Returns what a process prints up to the line with a text, or all."""
  seen = ''
  while text not in seen and (line := process.stdout.readline()):
    seen += line
  return seen


class Job:
  """A submitted job of two processes with one CPU device each."""

  def __init__(self, checkout, data_dir):
    self.workdir = checkout.folder / 'run'
    self._checkout = checkout
    checkout.launch(
      *('slurm', '--gpus_per_node=2', '--'),
      f'--config={ROOT}/configs/resnet.py:smoke',
      *(f'--workdir={self.workdir}', f'--config.data.data_dir={data_dir}'),
      *('--config.optim.epochs=2.0', '--config.eval_epochs=1.0'),
      *('--config.log_steps=1', '--config.data.batch_size=48'),
    )

  def start(self, tasks=2):
    """Starts the batch script as SLURM would."""
    return subprocess.Popen(
      ['bash', self._checkout.folder / 'runs/slurm/resnet-smoke.sbatch'],
      cwd=self._checkout.folder,
      env=self._checkout.environment
      | processes.meeting()
      | {'PYTHONPATH': str(ROOT), 'SLURM_NTASKS': str(tasks)},
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )

  def tasks(self):
    """Returns the process ids of the tasks."""
    pids = pathlib.Path(f'{self._checkout.note}.pids').read_text()
    return [int(pid) for pid in pids.split()]


@pytest.mark.slow
def test_a_job_that_is_told_to_stop_comes_back_and_ends(checkout, mini_data):
  job = Job(checkout, mini_data)
  process = job.start()
  seen = until('step 2/16', process)
  assert 'step 2/16' in seen, seen
  # SLURM tells all of them; it takes no more than one.
  os.kill(job.tasks()[1], signal.SIGTERM)
  output, _ = process.communicate(timeout=400)
  assert process.returncode == 75, output
  assert output.count('Asked to stop: saved step') == 2
  assert checkout.called[-1] == ['scontrol', 'requeue', 'Incomplete', '4242']
  calls = len(checkout.called)

  process = job.start()
  output, _ = process.communicate(timeout=400)
  assert process.returncode == 0, output
  for number in range(2):
    assert f'Process {number} of 2: 1 local of 2 devices (cpu)' in output
  assert 'Resuming after step' in output
  assert [call[0] for call in checkout.called[calls:]] == ['srun']
  rows = [row for row in metrics.read(job.workdir) if 'train/loss' in row]
  assert [row['step'] for row in rows] == list(range(1, 17))
  assert 'test/clean_accuracy' in json.loads(
    (job.workdir / 'scores.json').read_text()
  )


def test_a_job_with_too_few_devices_ends_at_once(checkout, mini_data):
  job = Job(checkout, mini_data)
  process = job.start(tasks=1)
  output, _ = process.communicate(timeout=100)
  assert process.returncode == 2
  assert '--devices=2, but there are 1: process 0 of 1 has 1 of 1' in output
  assert 'Traceback' not in output
  assert not job.workdir.exists()
  assert checkout.called[-1][0] == 'srun'


# References are to "Run JAX code on TPU slices"
# (https://cloud.google.com/tpu/docs/jax-pods) and to `gcloud compute tpus
# tpu-vm ssh --help` and `scp --help`.
def on_workers(which, command):
  command = command.replace("'", "'\\''")
  # ssh: "To run the same command in all workers in a Cloud TPU VM
  # simultaneously": --command="last boot" --worker=all.
  return (
    'gcloud compute tpus tpu-vm ssh pod --zone=us-central1-a --project=mine'
    f" --worker={which} '--command={command}'"
  )


ALIVE = (
  'pid=$(cat pinpp_jax/runs/tpu/pid 2>/dev/null) &&'
  ' grep -qs pinpp_jax.main "/proc/$pid/cmdline"'
)
POD = ('pod', '--zone=us-central1-a', '--project=mine')


class TestTpu:
  @pytest.fixture(autouse=True)
  def committed(self, checkout):
    """The commit of the checkout."""
    checkout.git('init', '--quiet')
    checkout.git('add', '.')
    checkout.git('commit', '--quiet', '--message=All')
    return checkout.git('rev-parse', 'HEAD')

  def test_dry_run_says_all_and_does_nothing(self, checkout, committed):
    before = checkout.files
    arguments = (*MAIN, '--workdir=/shared/run')
    output = checkout.launch('tpu', *POD, '--dry_run', '--', *arguments)
    assert output.splitlines() == [
      'mkdir -p runs/tpu',
      'tree=$(git stash create)',
      'git archive --format=tar.gz --output=runs/tpu/pod.tar.gz'
      ' "${tree:-HEAD}"',
      on_workers(
        'all',
        f'if {ALIVE}; then echo "$(hostname): a run is at work; stop it first"'
        ' >&2; exit 1; fi',
      ),
      # scp: "To copy a file into all workers in a Cloud TPU VM, run: $ gcloud
      # compute tpus tpu-vm scp ~/my-file my-tpu: --worker=all".
      'gcloud compute tpus tpu-vm scp runs/tpu/pod.tar.gz pod:pinpp_jax.tar.gz'
      ' --zone=us-central1-a --project=mine --worker=all',
      on_workers(
        'all',
        'mkdir -p pinpp_jax/runs/tpu && cd pinpp_jax && find . -mindepth 1'
        ' -maxdepth 1 ! -name .venv ! -name data ! -name runs -exec rm -rf {} +'
        ' && tar -xzf ../pinpp_jax.tar.gz',
      ),
      # "After creating the TPU slice, you must install JAX on all hosts": the
      # extra `tpu` is jax[tpu].
      on_workers(
        'all',
        'cd pinpp_jax && export PATH="$HOME/.local/bin:$PATH" && { command -v'
        ' uv >/dev/null || python3 -m pip install --quiet --user uv; } &&'
        ' PINPP_ACCELERATOR=tpu ./launch.sh install',
      ),
      # "you must run the code on each host in the TPU slice". JAX's page: "On
      # Cloud TPU [...] you can simply call jax.distributed.initialize() with no
      # arguments", one process per host.
      on_workers(
        'all',
        f'cd pinpp_jax && {{ PINPP_COMMIT={committed} setsid nohup bash -c'
        " 'echo $$ >runs/tpu/pid; exec .venv/bin/python -m pinpp_jax.main"
        ' "$@"\' run --config=configs/mpm.py:human'
        " '--config.data.data_dir=/a b/it'\\''s' --workdir=/shared/run"
        ' --config.distributed=True >runs/tpu/log.txt 2>&1 </dev/null & }',
      ),
      on_workers(
        '0',
        'cd pinpp_jax && sleep 1 && tail --pid="$(cat runs/tpu/pid)" -n +1 -F'
        ' runs/tpu/log.txt',
      ),
    ]
    assert checkout.files == before

  def test_it_starts_all_workers_and_follows_the_first(
    self, checkout, committed, tmp_path
  ):
    (checkout.folder / 'pyproject.toml').write_text('# changed\n')
    for i in range(2):
      for name in ('old.py', 'runs/kept'):
        path = tmp_path / f'worker{i}' / 'pinpp_jax' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    output = checkout.launch(
      *('tpu', *POD, '--', *MAIN, '--workdir=/shared/run'),
      STAND_IN_PYTHON=PRETENDER,
      SECONDS_TO_RUN='2',
    )
    told = (
      f'<{committed}-dirty><-m><pinpp_jax.main><{MAIN[0]}><{MAIN[1]}>'
      '<--workdir=/shared/run><--config.distributed=True>'
    )
    assert told in output
    for i in range(2):
      worker = tmp_path / f'worker{i}' / 'pinpp_jax'
      assert (worker / 'runs/tpu/log.txt').read_text().strip() == told
      assert (worker / 'pyproject.toml').read_text() == '# changed\n'
      assert (worker / 'runs/kept').exists()
      assert not (worker / 'old.py').exists()
    installs = [call for call in checkout.called if call[:2] == ['uv', 'pip']]
    assert [call[-1] for call in installs] == ['.[tpu]'] * 2

  def test_status_and_stop(self, checkout, tmp_path):
    run = ('tpu', *POD, '--', *MAIN, '--workdir=/shared/run')
    assert checkout.launch('tpu', 'status', *POD, status=1).count('no run') == 2
    environment = {'STAND_IN_PYTHON': PRETENDER, 'SECONDS_TO_RUN': '60'}
    process = checkout.start(*run, **environment)
    assert '<-m>' in until('<-m>', process)
    assert checkout.launch('tpu', 'status', *POD).count(': running') == 2
    refused = checkout.launch(*run, status=1, **environment)
    assert refused.count('a run is at work; stop it first') == 2
    assert checkout.launch('tpu', 'stop', *POD).count(': stopping') == 2
    output, _ = process.communicate(timeout=30)
    assert 'saved' in output
    output = checkout.launch('tpu', 'status', *POD)
    assert output.count(': no run') == output.count('saved') == 2
    assert checkout.launch('tpu', 'stop', *POD).count(': no run') == 2

  @pytest.mark.parametrize(
    ('arguments', 'message'),
    [
      ([], 'tpu needs the name of a TPU VM'),
      (['pod'], 'tpu needs --zone=ZONE'),
      (['pod', '--zome=z'], 'tpu has no option --zome=z'),
      ([*POD, '--'], 'Which recipe? Give -- --config='),
      ([*POD, '--', *MAIN], 'a disk that all workers share'),
      ([*POD, '--', *MAIN, '--workdir=run'], 'a disk that all workers share'),
      (['stop', '--zone=z'], 'tpu needs the name of a TPU VM'),
    ],
  )
  def test_mistakes(self, arguments, message, checkout):
    output = checkout.launch('tpu', *arguments, status=2)
    assert message in output and len(output.splitlines()) == 1
    assert not checkout.called


def test_usage_names_every_command(checkout):
  cases = re.findall(r'^  (\w+)\) ', (ROOT / 'launch.sh').read_text(), re.M)
  usage = checkout.launch('help')
  for command in {'slurm', 'tpu', 'install', *cases}:
    assert f'./launch.sh {command}' in usage


def test_the_jobset_of_the_page_asks_main_for_what_it_knows():
  page = (ROOT / 'docs/cluster.md').read_text()
  (text,) = re.findall(r'```yaml\n(.*?)```', page, re.S)
  spec = yaml.safe_load(text)['spec']['replicatedJobs'][0]['template']['spec']
  pod = spec['template']['spec']
  (container,) = pod['containers']
  status = spec['podFailurePolicy']['rules'][0]['onExitCodes']['values'][0]
  python, m, module, *arguments = container['command']
  assert (python, m, module) == ('python', '-m', main.__name__)
  given = dict(word[2:].split('=') for word in arguments)
  names = [name for name in given if not name.startswith('config.')]
  assert all(name in flags.FLAGS for name in names)
  chips = container['resources']['limits']['google.com/tpu']
  assert int(given['local_devices']) == chips
  assert int(given['devices']) == chips * spec['parallelism']
  assert int(given['stopped_status']) == status
