// What is shown, all of it in the address after '#'.

const PAGE = JSON.parse(document.getElementById('data').textContent);
const ABOUT = PAGE.about;
const QUERY = ['class', 'part', 'concept', 'split', 'source', 'low', 'high',
  'discarded', 'find', 'order', 'page'];

const byId = (id) => document.getElementById(id);

// Returns a new element; text is only ever text.
function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

function readState() {
  const fields = new URLSearchParams(location.hash.slice(1));
  return Object.fromEntries(fields);
}

function hashOf(state) {
  const kept = Object.entries(state).filter(([, value]) => value !== '');
  return '#' + new URLSearchParams(kept).toString();
}

// Goes to the present state with changes; other filters begin at page 1.
function go(changes, { replace = false } = {}) {
  const filters = QUERY.some((name) => name !== 'page' && name in changes);
  const first = filters && !('page' in changes) ? { page: '' } : {};
  const hash = hashOf({ ...readState(), ...first, ...changes });
  if (replace) location.replace(hash);
  else location.hash = hash;
}

function queryOf(state) {
  const kept = QUERY.filter((name) => state[name]);
  return Object.fromEntries(kept.map((name) => [name, state[name]]));
}

const opacityOf = (state) => {
  const given = Number(state.opacity ?? 60);
  return given >= 0 && given <= 100 ? given : 60;
};
const overlayOf = (state) => state.parts !== 'off';
const number = (value) => value.toLocaleString('en');
const percent = (value, digits = 1) =>
  value === null || value === undefined ? '' :
    (100 * value).toFixed(digits) + ' %';
const plural = (count, word) => `${number(count)} ${word}${count === 1 ? '' : 's'}`;
