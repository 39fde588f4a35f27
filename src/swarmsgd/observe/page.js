const dark = matchMedia('(prefers-color-scheme: dark)');
const NEUTRAL = {'#1b1f24': '#e3e7ec', '#000000': '#f4f6f8', '#5a6370': '#9aa4b2',
  '#e6e9ed': '#2b323b', 'white': '#14171b'};
// A colour that was chosen for a white page, as it is seen on a dark one.
function onDark(text) {
  const known = NEUTRAL[text.toLowerCase()];
  if (known) return known;
  const hex = text.match(/^#([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})$/i);
  const rgb = text.match(/^rgba\((\d+),(\d+),(\d+),([\d.]+)\)$/);
  if (!hex && !rgb) return text;
  let parts = hex ? hex.slice(1).map(part => parseInt(part, 16)) : rgb.slice(1, 4).map(Number);
  const light = ([r, g, b]) => 0.2126 * r + 0.7152 * g + 0.0722 * b;
  while (light(parts) < 118) parts = parts.map(part => part + 0.08 * (255 - part));
  parts = parts.map(Math.round);
  return rgb ? `rgba(${parts},${Math.min(1, 1.4 * rgb[4])})`
    : '#' + parts.map(part => part.toString(16).padStart(2, '0')).join('');
}
function seen(value) {
  if (!dark.matches) return value;
  if (typeof value === 'string') {
    return value.startsWith('<') ? value.replace(/#[0-9a-f]{6}/gi, onDark) : onDark(value);
  }
  if (Array.isArray(value)) return typeof value[0] === 'number' ? value : value.map(seen);
  if (value && typeof value === 'object')
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, seen(inner)]));
  return value;
}
function wrapped(text, letters) {
  let line = 0;
  return text.split(' ').map(word => {
    const onto = line && line + 1 + word.length <= letters;
    const before = line === 0 ? '' : onto ? ' ' : '<br>';
    line = onto ? line + 1 + word.length : word.length;
    return before + word;
  }).join('');
}
// A narrow plot has room for less: smaller margins and titles that are broken into lines.
function fitted(layout, width) {
  if (width >= 480) return layout;
  const [title, below] = layout.title.text.split('<br>');
  const letters = Math.floor((width - 16) / 6.8);
  const broken = below ? below.replace(/>([^<]*)</, (_, text) => '>' + wrapped(text, letters) + '<') : '';
  const lines = broken.split('<br>').length - 1;
  return {...layout, title: {...layout.title, font: {...layout.title.font, size: 14},
      text: below ? `${title}<br>${broken}` : title},
    margin: {...layout.margin, l: Math.min(layout.margin.l, 52), t: layout.margin.t + 16 * lines}};
}
// A file for a paper: the figure on white, whatever the page looks like.
const file = (format, icon) => ({
  name: format, title: `${format.toUpperCase()} for a paper`, icon,
  click: plot => {
    const {data, layout} = plot.figure;
    const filename = layout.title.text.match(/<b>([^<]*)/)[1].replace(/\W+/g, '-').toLowerCase();
    const size = {width: Math.max(480, plot.clientWidth), height: layout.height};
    return Plotly.downloadImage({data, layout}, {format, filename, scale: 3, ...size});
  },
});
const CONFIG = {
  displaylogo: false,
  modeBarButtons: [[file('svg', Plotly.Icons.disk), file('png', Plotly.Icons.camera)],
    ['zoom2d', 'pan2d', 'resetScale2d']],
};
// Also when others come to stand beside a plot: plotly itself looks at the window alone.
const widths = new ResizeObserver(entries => entries.forEach(({target}) => {
  if (target.clientWidth && target.clientWidth !== target.drawnWidth) {
    target.drawnWidth = target.clientWidth;
    Plotly.Plots.resize(target);
  }
}));
function draw(plot, figure) {
  if (!plot.figure) {
    plot.drawnWidth = plot.clientWidth;
    widths.observe(plot);
  }
  plot.figure = figure;
  const layout = fitted(seen(figure.layout), plot.clientWidth);
  return Plotly.react(plot, seen(figure.data), layout, CONFIG);
}
const plots = [...document.querySelectorAll('.plot')];
plots.forEach(plot => draw(plot, JSON.parse(plot.nextElementSibling.textContent)));
dark.addEventListener('change', () => {
  document.querySelectorAll('.plot').forEach(plot => plot.figure && draw(plot, plot.figure));
  shade();
});
function shade() {
  document.querySelectorAll('.legend line').forEach(line => {
    line.dataset.light ??= line.getAttribute('stroke');
    line.setAttribute('stroke', seen(line.dataset.light));
  });
}
shade();
const buttons = [...document.querySelectorAll('.legend button[data-group]')];
const isOn = button => button.getAttribute('aria-pressed') === 'true';
function show(wanted) {
  buttons.forEach(button => button.setAttribute('aria-pressed', wanted(button)));
  const off = new Set(buttons.filter(b => !isOn(b)).map(b => b.dataset.group));
  plots.forEach(plot => {
    if (plot.data.length)
      Plotly.restyle(plot, {visible: plot.data.map(trace => !off.has(trace.legendgroup))});
  });
}
buttons.forEach(button => {
  button.addEventListener('click', () => show(b => b === button ? !isOn(b) : isOn(b)));
  button.addEventListener('dblclick', () => {
    const alone = buttons.every(b => isOn(b) === (b === button));
    show(b => alone || b === button);
  });
});
