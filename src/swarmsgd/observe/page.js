const plots = [...document.querySelectorAll('.plot')];
const drawn = plots.map(plot => {
  const figure = JSON.parse(plot.nextElementSibling.textContent);
  return Plotly.newPlot(plot, figure.data, figure.layout, {
    responsive: true, displaylogo: false,
    modeBarButtons: [['toImage', 'zoom2d', 'pan2d', 'resetScale2d']],
    toImageButtonOptions: {format: 'svg'},
  });
});
const buttons = [...document.querySelectorAll('.legend button')];
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
