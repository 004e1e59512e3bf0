// Where images come from: the server, or the page itself if it was published.

async function ask(address, fields = {}) {
  const words = new URLSearchParams(fields).toString();
  const answer = await fetch(words ? `${address}?${words}` : address);
  if (!answer.ok) throw new Error((await answer.text()).trim());
  return answer.json();
}

const liveStore = {
  list: (query) => ask('/api/images', query),
  statistics: (query) => ask('/api/statistics', query),
  detail: (row) => ask(`/api/image/${row.id}`),
  async find(name) {
    const { id } = await ask('/api/place', { name });
    return id === null ? null : { id };
  },
  photograph: (row) => `/image/${row.id}`,
  thumbnail: (row) => `/thumbnail/${row.id}`,
  parts(row, query) {
    const { part, concept } = query;
    const words = new URLSearchParams(part ? { part } : concept ? { concept } : {});
    return `/parts/${row.id}?${words}`.replace(/\?$/, '');
  },
};

// Which share of an image a part covers: what was predicted, or else is true.
const shareOf = (part) => (part.predicted ?? part.true) || 0;

function stillStore(images) {
  const partOf = (image, local) => ABOUT.classes[image.label].parts[local - 1];
  const seen = (image, wanted) => image.parts.some((part) =>
    shareOf(part) > 0 && wanted(partOf(image, part.local)));
  const fits = (query) => (image) => {
    const { wnid, name } = ABOUT.classes[image.label];
    const words = (query.find ?? '').toLowerCase();
    const sure = image.confidence;
    const low = Number(query.low ?? 0), high = Number(query.high ?? 1);
    return (!query.class || wnid === query.class)
      && (!query.split || image.split === query.split)
      && (!query.source || image.source === query.source)
      && (!query.discarded || image.discarded === (query.discarded === 'yes'))
      && ((low <= 0 && high >= 1) || (sure !== null && low <= sure && sure <= high))
      && (!query.part || seen(image, (part) => part.id === Number(query.part)))
      && (!query.concept || seen(image, (part) => part.concept === query.concept))
      && (image.name.toLowerCase().includes(words) || name.toLowerCase().includes(words));
  };
  const select = (query) => {
    const found = images.filter(fits(query));
    const last = (value) => value ?? Infinity;
    if (!query.order) return found;
    return found.sort((a, b) => last(a[query.order]) - last(b[query.order]));
  };
  return {
    async list(query) {
      const found = select(query), count = 60, page = Number(query.page ?? 1);
      const rows = found.slice((page - 1) * count, page * count);
      return { total: found.length, done: images.length, images: images.length,
        page, count, rows };
    },
    statistics: async (query) => countParts(select(query), query, images.length),
    detail: async (row) => row,
    find: async (name) => images.find((image) => image.name === name) ?? null,
    photograph: (row) => row.files.image,
    thumbnail: (row) => row.files.thumbnail,
    parts: (row) => row.files.parts,
  };
}

// Returns what the server's statistics are, of images that are in the page.
function countParts(images, query, all) {
  const lines = new Map();
  for (const image of images) {
    const shares = new Map();
    for (const part of image.parts) {
      const named = ABOUT.classes[image.label].parts[part.local - 1];
      const key = query.class ? named.name : named.concept;
      if (!key) continue;
      const line = query.class
        ? { name: key, part: named.id, colour: named.colour }
        : { name: key, concept: key };
      if (!lines.has(key)) lines.set(key, { ...line, shares: [] });
      shares.set(key, (shares.get(key) ?? 0) + shareOf(part));
    }
    for (const [key, share] of shares) if (share > 0) lines.get(key).shares.push(share);
  }
  const rows = [...lines.values()].map(({ shares, ...line }) => {
    shares.sort((a, b) => a - b);
    const half = shares.length / 2;
    const median = (shares[Math.ceil(half) - 1] + shares[Math.floor(half)]) / 2;
    return { ...line, images: shares.length, median: shares.length ? median : null };
  });
  const seen = query.class ? rows : rows.filter((row) => row.images);
  if (!query.class) seen.sort((a, b) => b.images - a.images);
  return { done: all, images: all, counted: images.length, rows: seen };
}

const store = PAGE.images ? stillStore(PAGE.images) : liveStore;
