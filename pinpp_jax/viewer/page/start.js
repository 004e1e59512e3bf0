// What happens when something is clicked, typed or gone to.

let last = null; // Image that was open: its tile gets the focus back.

async function render() {
  const state = readState(), one = Boolean(state.image);
  showTools(state);
  byId('many').hidden = one;
  byId('one').hidden = !one;
  if (one) {
    last = state.image;
    await showOne(state);
    return;
  }
  shown = null;
  wanted += 1;
  document.title = ABOUT.title;
  await showMany(state);
  const tiles = [...byId('tiles').querySelectorAll('a')];
  if (last) tiles.find((link) => link.dataset.name === last)?.focus();
  last = null;
}

function changed(event) {
  const { name, value } = event.target;
  if (!name) return;
  const clean = value.trim();
  if (name === 'part') {
    const [kind, ...rest] = clean.split(':');
    go({ part: '', concept: '', ...(clean ? { [kind]: rest.join(':') } : {}) });
  } else if (name === 'class') {
    go({ class: clean, part: '', concept: '' });
  } else {
    go({ [name]: clean });
  }
}

function typed(event) {
  if (event.target.name !== 'find') return;
  clearTimeout(typed.timer);
  typed.timer = setTimeout(() => go({ find: event.target.value.trim() }, { replace: true }), 250);
}

function start() {
  const parts = ABOUT.classes.reduce((sum, one) => sum + one.parts.length, 0);
  byId('title').textContent = ABOUT.title;
  byId('about').textContent = [ABOUT.kind, plural(ABOUT.images, 'image'),
    `${number(ABOUT.classes.length)} classes`, `${number(parts)} parts`].join(' · ');
  byId('filters').addEventListener('change', changed);
  byId('filters').addEventListener('input', typed);
  byId('filters').addEventListener('submit', (event) => event.preventDefault());
  byId('clear').addEventListener('click', () =>
    go(Object.fromEntries(QUERY.map((name) => [name, '']))));
  for (const node of document.querySelectorAll('[data-tool=overlay]')) {
    node.addEventListener('change', () => go({ parts: node.checked ? '' : 'off' }, { replace: true }));
  }
  for (const node of document.querySelectorAll('[data-tool=opacity]')) {
    node.addEventListener('input', () => go({ opacity: node.value, parts: '' }, { replace: true }));
  }
  byId('statistics-button').addEventListener('click', IN_GRID.s);
  byId('help-button').addEventListener('click', ANYWHERE['?']);
  byId('compare').addEventListener('click', toggleCompare);
  byId('previous').addEventListener('click', () => step(-1));
  byId('next').addEventListener('click', () => step(1));
  window.addEventListener('hashchange', render);
  render();
}

start();
