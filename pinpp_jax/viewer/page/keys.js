// The keyboard.

const TYPING = 'input:not([type=checkbox]):not([type=range]), textarea, select';

function moveFocus(key) {
  const links = [...byId('tiles').querySelectorAll('a')];
  const here = links.indexOf(document.activeElement);
  if (!links.length) return false;
  if (here < 0) return links[0].focus(), true;
  const top = (node) => node.getBoundingClientRect().top;
  const columns = links.filter((node) => Math.abs(top(node) - top(links[0])) < 2).length;
  const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[key];
  const next = links[here + by];
  if (next) next.focus();
  return true;
}

function fade(by) {
  const next = Math.min(100, Math.max(0, opacityOf(readState()) + by));
  go({ opacity: String(next), parts: '' }, { replace: true });
}

const ANYWHERE = {
  o: () => go({ parts: overlayOf(readState()) ? 'off' : '' }, { replace: true }),
  '[': () => fade(-10),
  ']': () => fade(10),
  '?': () => byId('help').showModal(),
};
const IN_GRID = {
  n: () => document.querySelector('#pages a[rel=next]')?.click(),
  p: () => document.querySelector('#pages a[rel=previous]')?.click(),
  s: () => go({ statistics: readState().statistics === 'on' ? '' : 'on' }, { replace: true }),
  '/': () => byId('filters').elements.find.focus(),
};
const IN_IMAGE = {
  Escape: () => byId('back').click(),
  ArrowLeft: () => step(-1),
  ArrowRight: () => step(1),
  a: toggleAll,
  c: toggleCompare,
  l: nextLayer,
};

document.addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || byId('help').open) return;
  if (event.target.matches(TYPING)) {
    if (event.key === 'Escape') event.target.blur();
    return;
  }
  const one = !byId('one').hidden;
  if (event.key.startsWith('Arrow') && event.target.matches('[type=range]')) return;
  let act = ANYWHERE[event.key] ?? (one ? IN_IMAGE : IN_GRID)[event.key];
  const leaving = event.key === 'Escape' || event.key.startsWith('Arrow');
  if (one && !shown && !leaving) return; // There is nothing to act on yet.
  if (one && /^[1-9]$/.test(event.key) && Number(event.key) <= shown.parts.length) {
    act = () => togglePart(Number(event.key));
  }
  if (!one && event.key.startsWith('Arrow')) act = () => moveFocus(event.key);
  if (!act) return;
  event.preventDefault();
  act();
});
