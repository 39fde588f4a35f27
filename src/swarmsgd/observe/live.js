const find = id => document.getElementById(id);
const token = new URLSearchParams(location.search).get('token');
const asked = (path, values) => {
  const query = new URLSearchParams(values);
  if (token) query.set('token', token);
  return `${path}?${query}`;
};
const nodes = new Map();
let source, paused = false, now = 0, waiting = null;
const SHARE = 1 / 50;  // of the time goes into drawing at most: a live run may be on this machine
const undrawn = new Map();
let rests = 0, deaths = '';

function place(piece) {
  let part = nodes.get(piece.key);
  if (piece.kind === 'figure') {
    if (!part) {
      part = document.createElement('div');
      part.className = 'cell';
      part.append(Object.assign(document.createElement('div'), {className: 'plot'}));
      nodes.set(piece.key, part);
    }
    return;
  }
  if (!part) {
    part = document.createElement('div');
    nodes.set(piece.key, part);
  }
  const open = part.querySelector('details')?.open;
  part.innerHTML = piece.text;
  if (open) part.querySelector('details').open = true;
}
function drawn(part, text) {
  const plot = part.firstChild, figure = JSON.parse(text);
  plot.style.height = `${figure.layout.height}px`;
  const first = !plot.figure;
  draw(plot, figure).then(() => {
    if (first) plot.on('plotly_click', event => {
      const data = event.points[0].customdata;
      if (data) detail(data[0]);
    });
  });
}
function inSight(part) {
  const box = part.getBoundingClientRect();
  return box.bottom > 0 && box.top < innerHeight;
}
function drawSome(all) {
  const begin = performance.now(), resting = begin < rests;
  for (const [key, text] of undrawn) {
    const part = nodes.get(key), known = part?.firstChild.figure;
    if (part && known && !all && (resting || !inSight(part))) continue;
    undrawn.delete(key);
    if (part) drawn(part, text);
  }
  const share = find('speed').value ? 1 / 2 : SHARE;
  if (!resting) rests = performance.now() + (performance.now() - begin) / share;
}
function apply(state) {
  now = state.t;
  state.pieces.forEach(place);
  const kinds = {figure: find('figures'), html: find('tables')};
  const kept = new Set(state.order);
  for (const [key, part] of nodes) if (!kept.has(key)) { part.remove(); nodes.delete(key); }
  const next = {figure: 0, html: 0};
  for (const key of state.order) {
    const part = nodes.get(key);
    if (!part) continue;
    if (key === 'headline') {
      if (!part.parentNode) find('headline').append(part);
      continue;
    }
    const kind = part.className === 'cell' ? 'figure' : 'html';
    const there = kinds[kind].children[next[kind]++] ?? null;
    if (there !== part) kinds[kind].insertBefore(part, there);
  }
  for (const piece of state.pieces) if (piece.kind === 'figure') undrawn.set(piece.key, piece.text);
  const died = find('headline').textContent.match(/Nodes that died: [^.]*/)?.[0] ?? '';
  drawSome(state.over || died !== deaths);
  deaths = died;
  const seconds = t => `${t.toFixed(t < 100 ? 1 : 0)} s`;
  const late = now - state.figures_t > 3 ? `, plots of ${seconds(state.figures_t)}` : '';
  const clock = `${seconds(now)} of the run${late}`;
  find('state').textContent = state.over ? `${clock}, the end` : clock;
}
function connect(from = 0) {
  source?.close();
  nodes.forEach(part => part.remove());
  nodes.clear();
  undrawn.clear();
  rests = 0;
  const speed = find('speed').value;
  source = new EventSource(asked('/events', speed ? {speed, from} : {}));
  source.onmessage = message => {
    const state = JSON.parse(message.data);
    if (state.over) source.close();
    if (paused) waiting = merged(waiting, state); else apply(state);
  };
  source.onerror = () => {
    if (source.readyState === EventSource.CLOSED) return;
    find('state').textContent = 'nothing comes in: has the command ended?';
  };
}
function merged(before, after) {
  if (!before) return after;
  const pieces = new Map([...before.pieces, ...after.pieces].map(piece => [piece.key, piece]));
  return {...after, pieces: [...pieces.values()]};
}
find('pause').addEventListener('click', () => {
  paused = !paused;
  find('pause').setAttribute('aria-pressed', paused);
  find('pause').textContent = paused ? 'go on' : 'pause';
  const replay = find('speed').value;
  if (paused && replay) source.close();
  if (!paused && replay) connect(now);
  if (!paused && waiting) apply(waiting);
  waiting = null;
});
find('speed').addEventListener('change', () => connect());
async function detail(node) {
  const answer = await fetch(asked('/node', {id: node}));
  const inner = find('detail').lastElementChild;
  inner.innerHTML = await answer.text();
  find('detail').showModal();
  inner.querySelectorAll('.plot').forEach(plot =>
    draw(plot, JSON.parse(plot.nextElementSibling.textContent)));
}
addEventListener('scroll', () => drawSome(false), {passive: true});
find('close').addEventListener('click', () => find('detail').close());
find('tables').addEventListener('click', event => {
  const row = event.target.closest('tbody tr');
  const title = row?.closest('section')?.querySelector('h2')?.textContent;
  if (title === 'Nodes') detail(row.querySelector('th').textContent);
});
connect();
