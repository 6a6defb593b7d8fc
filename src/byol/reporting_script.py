"""The little that moves: the pointer on the charts, copy buttons, light and dark. The page is whole without it."""

SCRIPT = """
'use strict';
const NS = 'http://www.w3.org/2000/svg';
const text = v => v === undefined ? '' : Number.isInteger(v) ? v.toLocaleString('en') : Math.abs(v) >= 1000 ? Math.round(v).toLocaleString('en') : String(+v.toPrecision(4));
const charts = [...document.querySelectorAll('[data-chart]')].map(figure => {
  const d = JSON.parse(figure.dataset.chart), pointer = figure.querySelector('.pointer');
  const dots = d.lines.map(l => pointer.appendChild(Object.assign(document.createElementNS(NS, 'circle'), {})));
  dots.forEach((c, i) => { c.setAttribute('r', 3); c.setAttribute('class', 'dot k' + d.lines[i].colour); });
  const out = figure.querySelector('output');
  return {figure, d, pointer, dots, out, last: [...out.childNodes], svg: figure.querySelector('svg'), group: figure.closest('.charts')};
});
const near = (list, v) => { let a = 0, b = list.length - 1; while (b - a > 1) { const m = (a + b) >> 1; list[m] < v ? a = m : b = m; } return v - list[a] < list[b] - v ? a : b; };
const place = (v, s, log) => { const f = log ? Math.log10 : x => x; return s[2] + (f(v) - f(s[0])) / (f(s[1]) - f(s[0])) * (s[3] - s[2]); };
function show(c, epoch) {
  let at = null;
  const spans = c.d.lines.map((l, i) => {
    const n = near(l.epoch, epoch), span = document.createElement('span'), x = place(l.epoch[n], c.d.x), y = place(l.value[n], c.d.y, c.d.log);
    at = at || {x, epoch: l.epoch[n], step: l.step[n]};
    c.dots[i].setAttribute('cx', x); c.dots[i].setAttribute('cy', y);
    span.className = 'c' + l.colour; span.textContent = l.label + text(l.value[n]); span.title = l.name;
    return span;
  });
  const hair = c.pointer.querySelector('.hair'), feet = c.pointer.querySelectorAll('.foot');
  hair.setAttribute('x1', at.x); hair.setAttribute('x2', at.x);
  feet.forEach((t, i) => { t.setAttribute('x', at.x); t.textContent = feet.length > 1 && i === 0 ? text(at.step) : text(+at.epoch.toFixed(2)); });
  c.out.replaceChildren(...spans);
  c.pointer.setAttribute('visibility', 'visible');
}
function hide(c) { c.out.replaceChildren(...c.last); c.pointer.setAttribute('visibility', 'hidden'); }
for (const c of charts) {
  const all = charts.filter(o => o.group === c.group);
  const epochs = c.d.lines.flatMap(l => l.epoch).sort((a, b) => a - b);
  let at = epochs.length - 1;
  c.svg.addEventListener('pointermove', e => {
    const box = c.svg.getBoundingClientRect(), px = (e.clientX - box.left) / box.width * c.svg.viewBox.baseVal.width, s = c.d.x;
    const epoch = s[0] + (px - s[2]) / (s[3] - s[2]) * (s[1] - s[0]);
    at = near(epochs, epoch); all.forEach(o => show(o, epoch));
  });
  for (const leave of ['pointerleave', 'blur']) c.svg.addEventListener(leave, () => all.forEach(hide));
  c.svg.addEventListener('keydown', e => {
    const move = {ArrowLeft: -1, ArrowRight: 1}[e.key];
    if (!move) return;
    e.preventDefault(); at = Math.min(epochs.length - 1, Math.max(0, at + move)); all.forEach(o => show(o, epochs[at]));
  });
}
for (const button of document.querySelectorAll('.copy')) {
  const code = button.parentNode.querySelector('code');
  button.hidden = false;
  button.addEventListener('click', async () => {
    getSelection().selectAllChildren(code);
    try { await navigator.clipboard.writeText(code.textContent); button.textContent = 'Copied'; } catch { button.textContent = 'Selected'; }
    setTimeout(() => { button.textContent = 'Copy'; }, 1500);
  });
}
const theme = document.querySelector('.theme'), root = document.documentElement;
theme.hidden = false;
theme.addEventListener('click', () => {
  const dark = root.dataset.theme ? root.dataset.theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
  root.dataset.theme = dark ? 'light' : 'dark';
});
let closed = [];
addEventListener('beforeprint', () => { closed = [...document.querySelectorAll('details:not([open])')]; closed.forEach(d => { d.open = true; }); });
addEventListener('afterprint', () => closed.forEach(d => { d.open = false; }));
""".strip()
