// All images: filters, tiles, pages, statistics.

let listing = null; // What is on the page, and of which query.
let asked = 0; // The newest question: answers to earlier ones are dropped.

function options(select, entries) {
  const same = (option, i) => option.value === entries[i][0] && option.text === entries[i][1];
  if (select.options.length === entries.length && [...select.options].every(same)) return;
  select.replaceChildren(...entries.map(([value, text]) => element('option', { value }, text)));
}

function partOptions(state) {
  const chosen = ABOUT.classes.find((one) => one.wnid === state.class);
  if (chosen) return [['', 'any'], ...chosen.parts.map((part) => [`part:${part.id}`, part.short])];
  return [['', 'any'], ...ABOUT.concepts.map((name) => [`concept:${name}`, name])];
}

function showFilters(state) {
  const form = byId('filters'), counted = (one) => `${one.name} (${number(one.images)})`;
  const classes = ABOUT.classes.map((one) => [one.wnid, counted(one)]);
  options(form.elements.class, [['', 'all'], ...classes]);
  options(form.elements.part, partOptions(state));
  options(form.elements.split, [['', 'all'], ...ABOUT.splits.map((one) => [one.name, counted(one)])]);
  const makers = { human: 'people', pseudo: 'a network', none: 'nobody' };
  options(form.elements.source, [['', 'all'], ...ABOUT.sources.map((name) => [name, makers[name]])]);
  const orders = ['confidence', 'agreement'].filter((name) => ABOUT.fields.includes(name));
  options(form.elements.order, [['', 'as stored'], ...orders.map((name) => [name, `least ${name}`])]);
  for (const node of form.querySelectorAll('[data-field]')) {
    const field = node.dataset.field;
    node.hidden = field === 'order' ? !orders.length : !ABOUT.fields.includes(field);
  }
  for (const node of form.elements) {
    if (!node.name || node === document.activeElement && node.type !== 'select-one') continue;
    const part = state.part ? `part:${state.part}` : state.concept ? `concept:${state.concept}` : '';
    node.value = node.name === 'part' ? part : state[node.name] ?? '';
  }
  byId('clear').hidden = !QUERY.some((name) => name !== 'page' && state[name]);
}

function showTools(state) {
  for (const node of document.querySelectorAll('[data-tool=overlay]')) node.checked = overlayOf(state);
  for (const node of document.querySelectorAll('[data-tool=opacity]')) node.value = opacityOf(state);
  document.body.classList.toggle('bare', !overlayOf(state));
  document.body.style.setProperty('--opacity', opacityOf(state) / 100);
}

function badges(row) {
  const found = [];
  const add = (text, kind = '') => found.push(element('span', { class: `badge ${kind}` }, text));
  if (row.discarded) add('discarded', 'wrong');
  if (row.split) add(row.split);
  if (row.source === 'none' && !row.discarded) add('no mask');
  if (row.confidence !== null) add(`sure ${row.confidence.toFixed(2)}`);
  if (row.agreement !== null) add(`IoU ${row.agreement.toFixed(2)}`);
  return found;
}

function tile(row, state) {
  const { name } = ABOUT.classes[row.label];
  const file = row.name.split('/').pop();
  const layers = [element('img', { src: store.thumbnail(row), alt: `${name}, ${file}`, loading: 'lazy' })];
  const query = queryOf(state);
  layers.push(element('img', { src: store.parts(row, query), alt: '', class: 'over', loading: 'lazy' }));
  const link = element('a', { href: hashOf({ ...state, image: row.name }), 'data-name': row.name },
    element('span', { class: 'frame' }, ...layers),
    element('span', { class: 'title' }, name),
    element('span', { class: 'note' }, file),
    element('span', { class: 'badges' }, ...badges(row)));
  return element('li', {}, link);
}

async function showMany(state) {
  showFilters(state);
  const query = queryOf(state), key = JSON.stringify(query), turn = ++asked;
  showStatistics(state);
  if (listing && listing.key === key && listing.whole) return refreshLinks(state);
  let found;
  try {
    found = await store.list(query);
  } catch (error) {
    if (turn === asked) failed(error);
    return;
  }
  if (turn !== asked) return;
  const before = listing?.key === key ? listing.rows.map((row) => row.id).join() : null;
  const whole = found.done >= found.images;
  listing = { ...found, key, whole };
  if (before !== found.rows.map((row) => row.id).join()) {
    byId('tiles').replaceChildren(...found.rows.map((row) => tile(row, state)));
  }
  showStatus(found);
  showPages(state, found);
  if (!whole) setTimeout(() => turn === asked && !readState().image && showMany(readState()), 700);
}

function refreshLinks(state) {
  for (const link of byId('tiles').querySelectorAll('a')) {
    link.href = hashOf({ ...state, image: link.dataset.name });
  }
}

function failed(error) {
  listing = null;
  byId('tiles').replaceChildren();
  byId('pages').replaceChildren();
  byId('status').textContent = `This cannot be shown: ${error.message}.`;
}

function showStatus(found) {
  const all = found.total === found.images;
  let text = all ? plural(found.total, 'image') : `${number(found.total)} of ${plural(found.images, 'image')}`;
  if (found.done < found.images) {
    text += ` · ${number(found.done)} looked at so far`;
  }
  byId('status').textContent = found.total ? text : `No image fits. ${text}`;
}

function showPages(state, found) {
  const last = Math.max(1, Math.ceil(found.total / found.count));
  const link = (page, text) => element('a', {
    href: hashOf({ ...state, page: page > 1 ? page : '' }), rel: text.toLowerCase() }, text);
  const here = element('span', {}, `Page ${number(found.page)} of ${number(last)}`);
  const parts = [here];
  if (found.page > 1) parts.unshift(link(Math.min(found.page - 1, last), 'Previous'));
  if (found.page < last) parts.push(link(found.page + 1, 'Next'));
  byId('pages').replaceChildren(...(last > 1 || found.page > 1 ? parts : []));
}

let counted = null;

async function showStatistics(state) {
  const node = byId('statistics'), open = state.statistics === 'on';
  node.hidden = !open;
  byId('statistics-button').setAttribute('aria-expanded', String(open));
  const key = JSON.stringify({ ...queryOf(state), page: '' });
  if (!open || counted === key) return;
  counted = key;
  const { page, order, ...query } = queryOf(state);
  const found = await store.statistics(query).catch(() => null);
  if (!found || counted !== key) return;
  node.replaceChildren(statisticsTable(found, state));
  if (found.done < found.images) {
    counted = null;
    setTimeout(() => showStatistics(readState()), 1500);
  }
}

function statisticsTable(found, state) {
  const ofClass = Boolean(state.class);
  const lines = found.rows.slice(0, ofClass ? undefined : 40).map((line) => {
    const share = found.counted ? line.images / found.counted : 0;
    const bar = element('i', { style: `width: ${(100 * share).toFixed(1)}%` });
    if (line.colour) bar.style.background = line.colour;
    const target = line.part ? { part: line.part, concept: '' } : { concept: line.concept, part: '' };
    const link = element('a', { href: hashOf({ ...state, ...target, page: '' }) }, line.name);
    return element('tr', {}, element('td', {}, link),
      element('td', { class: 'number' }, number(line.images)),
      element('td', { class: 'share' }, bar),
      element('td', { class: 'number' }, percent(share, 0)),
      element('td', { class: 'number' }, percent(line.median, 2)));
  });
  const head = [ofClass ? 'Part' : 'Part, whatever the class', 'Seen in', '', 'of images', 'Median area there'];
  const cells = head.map((text, i) => element('th', i && i !== 2 ? { class: 'number' } : {}, text));
  const more = found.rows.length - lines.length;
  let note = `Of ${plural(found.counted, 'image')} that fit.`;
  if (found.done < found.images) note += ` ${number(found.done)} of ${number(found.images)} looked at so far.`;
  if (more > 0) note += ` ${number(more)} rarer ones are left out.`;
  return element('div', { class: 'scroll' },
    element('table', {}, element('thead', {}, element('tr', {}, ...cells)),
      element('tbody', {}, ...lines)),
    element('p', { class: 'note' }, note));
}
