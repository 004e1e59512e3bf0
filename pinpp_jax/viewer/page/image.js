// One image: its layers, its parts, what is known of it.

const LAYERS = {
  true: 'True parts', predicted: 'Predicted parts', polygons: 'Polygons',
  differs: 'Differences', none: 'Image alone',
};
const SVG = 'http://www.w3.org/2000/svg';
let shown = null; // The detail of the image on the page.
let wanted = 0;

function drawing(tag, attributes, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const layersOf = (detail) => Object.keys(LAYERS).filter((name) => name === 'none' || name in detail.layers);
const hiddenOf = (state) => new Set((state.hide ?? '').split(',').filter(Boolean).map(Number));
const partsOf = (detail) => ABOUT.classes[detail.label].parts;

// Returns the layers of one or two pictures.
function viewOf(state, detail) {
  const there = layersOf(detail);
  const given = (state.view ?? '').split(',').filter((name) => there.includes(name)).slice(0, 2);
  if (given.length) return given;
  const second = ['predicted', 'polygons'].find((name) => there.includes(name));
  return there.includes('true') && second ? ['true', second] : [there[0]];
}

async function showOne(state) {
  const turn = ++wanted;
  if (shown?.name !== state.image) {
    shown = null;
    byId('image').ariaBusy = 'true'; // What is seen is still the last one.
    const row = listing?.rows.find((one) => one.name === state.image) ?? await store.find(state.image);
    const detail = row && await store.detail(row).catch(() => null);
    if (turn !== wanted) return;
    byId('image').ariaBusy = 'false';
    if (!detail) return missing(state.image);
    shown = detail;
    byId('name').focus({ preventScroll: true });
    window.scrollTo(0, 0);
  }
  const { name } = ABOUT.classes[shown.label];
  byId('name').textContent = name;
  document.title = `${name}, ${shown.name.split('/').pop()} · ${ABOUT.title}`;
  byId('back').href = hashOf({ ...state, image: '', hide: '', view: '' });
  const view = viewOf(state, shown);
  byId('compare').setAttribute('aria-pressed', String(view.length === 2));
  byId('compare').hidden = layersOf(shown).length < 3;
  const focus = document.activeElement?.dataset.focus;
  byId('stages').replaceChildren(...view.map((layer, i) => stage(shown, view, i, state)));
  byId('legend').replaceChildren(legend(shown, state));
  byId('facts').replaceChildren(...facts(shown));
  // What had the focus was made anew.
  if (focus) byId('image').querySelector(`[data-focus="${focus}"]`)?.focus();
}

function missing(name) {
  byId('name').textContent = 'No such image';
  byId('stages').replaceChildren(element('p', { class: 'panel' }, `There is no image ${name} here.`));
  byId('legend').replaceChildren();
  byId('facts').replaceChildren();
}

function stage(detail, view, place, state) {
  const names = layersOf(detail);
  const label = (name) => name === 'true' && !('predicted' in detail.layers) ? 'Part masks' : LAYERS[name];
  const choice = element('select', { 'aria-label': `layer of picture ${place + 1}`, 'data-focus': `layer ${place}` },
    ...names.map((name) => element('option', { value: name }, label(name))));
  choice.value = view[place];
  choice.addEventListener('change', () => {
    const next = [...view];
    next[place] = choice.value;
    go({ view: next.join() });
  });
  return element('figure', { class: 'panel stage' }, element('figcaption', {}, choice),
    picture(detail, view[place], hiddenOf(state), label(view[place])));
}

function picture(detail, layer, hidden, label) {
  const { width, height } = detail, { name } = ABOUT.classes[detail.label];
  const svg = drawing('svg', { viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': `${label} of ${name}` });
  svg.style.aspectRatio = `${width} / ${height}`;
  svg.append(drawing('rect', { width, height, class: 'ground' }));
  if (detail.there) svg.append(drawing('image', { href: store.photograph(detail), width, height }));
  const [rows, columns] = detail.grids[layer] ?? [height, width];
  const group = drawing('g', { class: `layer ${layer}`, transform: `scale(${width / columns} ${height / rows})` });
  for (const [local, path] of Object.entries(detail.layers[layer] ?? {})) {
    if (path && !hidden.has(Number(local))) group.append(region(detail, Number(local), path));
  }
  svg.append(group);
  return svg;
}

function region(detail, local, path) {
  const part = partsOf(detail)[local - 1];
  const node = drawing('path', { d: path, 'data-part': local });
  if (part) {
    node.style.setProperty('--colour', part.colour);
    node.append(drawing('title', {}, part.name));
  }
  return node;
}

function legend(detail, state) {
  const hidden = hiddenOf(state), parts = partsOf(detail);
  const has = (name) => detail.parts.some((part) => part[name] !== null && part[name] !== 0);
  const single = !('predicted' in detail.layers);
  const columns = [['true', single ? 'Area' : 'True', percent], ['predicted', 'Predicted', percent],
    ['outlines', 'Outlines', (n) => String(n || '')], ['confidence', 'Sure', (x) => x?.toFixed(2) ?? '']];
  const used = columns.filter(([name]) => has(name));
  const rows = detail.parts.map((amounts) => {
    const part = parts[amounts.local - 1];
    const box = element('input', { type: 'checkbox', 'data-focus': `part ${part.local}` });
    box.checked = !hidden.has(part.local);
    box.addEventListener('change', () => togglePart(part.local));
    const swatch = element('i');
    swatch.style.background = part.colour;
    const absent = used.every(([name]) => !amounts[name]);
    const row = element('tr', { class: absent ? 'absent-part' : null, 'data-part': part.local },
      element('td', {}, element('label', { title: part.name }, box, swatch, part.short)),
      ...used.map(([name, , text]) => element('td', { class: 'number' }, amounts[name] ? text(amounts[name]) : '')));
    row.addEventListener('mouseenter', () => highlight(part.local));
    row.addEventListener('mouseleave', () => highlight(null));
    return row;
  });
  const head = ['Part', ...used.map(([, title]) => title)];
  return element('table', {},
    element('thead', {}, element('tr', {}, ...head.map((text, i) => element('th', i ? { class: 'number' } : {}, text)))),
    element('tbody', {}, ...rows));
}

function highlight(local) {
  for (const path of byId('stages').querySelectorAll('path[data-part]')) {
    path.classList.toggle('faint', local !== null && Number(path.dataset.part) !== local);
  }
}

function facts(detail) {
  const { wnid, name } = ABOUT.classes[detail.label];
  const guess = detail.guess === null ? '' :
    detail.guess === detail.label ? 'the same' : ABOUT.classes[detail.guess].name;
  const lines = [['File', detail.name], ['Class', `${name} (${wnid})`], ['Taken for', guess],
    ['Split', detail.split], ['Mask by', detail.source],
    ['Confidence', detail.confidence?.toFixed(3)], ['Mean IoU', detail.agreement?.toFixed(3)],
    ['Size', `${detail.width} × ${detail.height}`], ['Discarded', detail.discarded ? 'yes' : '']];
  return lines.filter(([, value]) => value).map(([title, value]) =>
    element('div', {}, element('dt', {}, title), element('dd', {}, value)));
}

function togglePart(local) {
  const hidden = hiddenOf(readState());
  if (!hidden.delete(local)) hidden.add(local);
  go({ hide: [...hidden].join() }, { replace: true });
}

function toggleAll() {
  const all = shown.parts.map((part) => part.local).join();
  go({ hide: readState().hide ? '' : all }, { replace: true });
}

function toggleCompare() {
  const view = viewOf(readState(), shown), there = layersOf(shown);
  const other = there.find((name) => name !== view[0]) ?? 'none';
  go({ view: view.length === 2 ? view[0] : [view[0], other].join() });
}

function nextLayer() {
  const view = viewOf(readState(), shown), there = layersOf(shown);
  const last = view.length - 1;
  view[last] = there[(there.indexOf(view[last]) + 1) % there.length];
  go({ view: view.join() });
}

// Goes to the image before (-1) or after (1), on the next page too.
async function step(by) {
  const state = readState(), { image } = state;
  let found = listing ?? await store.list(queryOf(state)).catch(() => null);
  if (!found) return;
  let place = found.rows.findIndex((row) => row.name === image);
  let { page } = found;
  if (place < 0) place = by > 0 ? -1 : found.rows.length;
  place += by;
  if (place < 0 || place >= found.rows.length) {
    page += by;
    if (page < 1 || (page - 1) * found.count >= found.total) return;
    found = await store.list(queryOf({ ...state, page: String(page) }));
    listing = null;
    place = by > 0 ? 0 : found.rows.length - 1;
  }
  const row = found.rows[place];
  if (row) go({ image: row.name, page: page > 1 ? String(page) : '', hide: '' });
}
