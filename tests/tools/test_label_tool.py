"""The label table as people ask for it, and class-free names."""

import csv
import io
import json
import pathlib
import subprocess
import sys

import pytest

from pinpp_jax import tools
from pinpp_jax.data import labels
from pinpp_jax.data.labels import LabelTable, Part
from pinpp_jax.data.release import concepts, nesting
from pinpp_jax.data.release.findings import Findings
from pinpp_jax.data.release.reader import Release

ROOT = pathlib.Path(__file__).parents[2]
DUMMY = ROOT / 'datasets' / 'pinpp' / 'dummy_data'


def run(capsys, *words):
  status = tools.main(['labels', *map(str, words)])
  return status, capsys.readouterr()


def rows(capsys, *words):
  status, output = run(capsys, *words, '--json')
  assert status == 0
  return json.loads(output.out)['rows']


def part(name, object_name='table', generic=''):
  return Part(
    global_id=1,
    wnid='n00000001',
    object_name=object_name,
    name=name,
    generic_name=generic or nesting.generic_name(name, object_name),
    local_index=1,
  )


def test_a_release_a_table_and_a_built_set_give_the_same_rows(
  mini_data, tmp_path, capsys
):
  built = mini_data / 'pinpp_mini' / '1.0.0'
  release = mini_data / 'downloads' / 'manual' / 'pinpp_mini'
  expected = rows(capsys, built / 'labels.json')
  assert len(expected) == 47
  for source in (release, built, built.parent):
    assert rows(capsys, source) == expected
  assert rows(capsys, 'pinpp_mini', f'--data_dir={mini_data}') == expected
  run_folder = tmp_path / 'runs' / 'mpm'
  run_folder.mkdir(parents=True)
  LabelTable.load(built / 'labels.json').save(run_folder / 'labels.json')
  assert rows(capsys, run_folder) == expected


def test_rows_say_what_the_reader_says(capsys):
  record = Release(DUMMY, Findings()).load('n01440764')
  found = rows(capsys, DUMMY, '--object=TENCH')
  assert [r['part'] for r in found] == list(record.part_names)
  assert [r['local'] for r in found] == [1, 2, 3]
  assert [r['inside'] for r in found] == [[], ['tench body'], ['tench body']]
  assert [r['masks'] for r in found] == record.part_counts().tolist()
  assert not any(r['whole'] for r in found)
  purse = rows(capsys, DUMMY, '--wnid=4026417')
  assert [(r['whole'], r['concept']) for r in purse] == [(True, '')]


def test_search_is_by_any_part_of_any_name_without_case(capsys):
  names = lambda *words: [r['part'] for r in rows(capsys, DUMMY, *words)]
  assert names('FIN') == ['tench fin']
  assert names('tench', 'e') == ['tench body', 'tench fin', 'tench eye']
  assert names('--wnid=n0144', 'fin') == ['tench fin']
  assert names('--part=Tench_F') == ['tench fin']
  assert names('n01440764', 'eye') == ['tench eye']
  status, output = run(capsys, DUMMY, 'zebra')
  assert status == 1 and 'nothing' in output.err


def test_csv_reads_back(tmp_path, capsys):
  file = tmp_path / 'parts.csv'
  status, output = run(capsys, DUMMY, '--csv', f'--output={file}')
  assert status == 0 and str(file) in output.out
  found = list(csv.DictReader(io.StringIO(file.read_text())))
  expected = rows(capsys, DUMMY)
  assert [int(r['id']) for r in found] == [r['id'] for r in expected]
  assert [r['part'] for r in found] == [r['part'] for r in expected]
  assert [r['inside'] for r in found] == [
    '; '.join(r['inside']) for r in expected
  ]
  assert [bool(int(r['whole'])) for r in found] == [
    r['whole'] for r in expected
  ]


def test_the_end_of_a_pipe_is_no_error():
  command = f'{sys.executable} -m pinpp_jax.tools.labels {DUMMY} | true'
  done = subprocess.run(
    ['bash', '-o', 'pipefail', '-c', command],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert (done.returncode, done.stderr) == (0, '')


def test_text_is_aligned(capsys):
  _, output = run(capsys, DUMMY)
  head, *lines = output.out.splitlines()
  assert all(line[head.index('wnid') :].startswith('n0') for line in lines[:4])
  assert lines[-1].startswith('4 of 4 parts, 2 classes')


@pytest.mark.parametrize('place', ['absent/folder', '', 'no_such_set'])
def test_what_has_no_table_is_named(place, tmp_path, capsys):
  source = place if place == 'no_such_set' else tmp_path / place
  status, output = run(capsys, source, f'--data_dir={tmp_path}')
  assert status == 2
  assert str(source) in output.err and len(output.err.splitlines()) == 1


def test_the_list_of_concepts_is_one_step_and_in_one_form():
  names = [row.name for row in concepts.rows()]
  assert names == sorted(set(names))
  for row in concepts.rows():
    assert row.name == nesting.normal(row.name)
    assert row.concept == nesting.normal(row.concept) != row.name
    assert row.concept not in names, row
    assert row.why in concepts.REASONS
    assert (row.why == 'filler') == (not row.concept)


def test_spellings_of_one_thing_are_one_concept():
  for name in ('tier', 'Tyre', 'tires', 'TIRE'):
    assert concepts.concept(name) == 'tire'
  assert concepts.concept('left_sleef') == 'left sleeve'
  assert concepts.concept('Legs') == concepts.concept('leg') == 'leg'
  assert concepts.concept('glass') == 'glass'


def test_whole_objects_and_fillers_are_no_concepts():
  assert concepts.whole(part('Table'))
  assert concepts.of_part(part('table')) == ''
  assert concepts.of_part(part('table others')) == ''
  assert concepts.of_part(part('table legs')) == 'leg'


def test_concepts_gather_the_parts_of_all_classes(pin_real, capsys):
  table = labels.from_classes(Release(pin_real, Findings()))
  found = concepts.of_table(table)
  gathered = [p.global_id for one in found for p in one.parts]
  assert sorted(gathered) == [
    p.global_id for p in table.parts if concepts.of_part(p)
  ]
  by_name = {one.name: one for one in found}
  assert by_name['wheel'].classes == 2
  assert by_name['nucleus'].masks == sum(
    p.count for p in table.parts if p.name.endswith('nucleus')
  )
  lines = rows(capsys, pin_real, 'wheel', '--concepts')
  assert [line['concept'] for line in lines] == ['wheel']
