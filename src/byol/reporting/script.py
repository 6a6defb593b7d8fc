"""The little that moves: the pointer on the charts, copy buttons, light and dark. The page is whole without it."""

SCRIPT = """
'use strict';
const NS = 'http://www.w3.org/2000/svg';
function text(v) {
  if (Number.isInteger(v)) return v.toLocaleString('en');
  return Math.abs(v) >= 1000 ? Math.round(v).toLocaleString('en') : String(+v.toPrecision(4));
}
const charts = [...document.querySelectorAll('[data-chart]')].map(figure => {
  const d = JSON.parse(figure.dataset.chart), pointer = figure.querySelector('.pointer'), out = figure.querySelector('output');
  const dots = d.lines.map(line => {
    const dot = pointer.appendChild(document.createElementNS(NS, 'circle'));
    dot.setAttribute('r', 3);
    dot.setAttribute('class', 'dot k' + line.colour);
    return dot;
  });
  return {d, pointer, dots, out, last: [...out.childNodes], svg: figure.querySelector('svg'), group: figure.closest('.charts')};
});
function near(list, v) {
  let a = 0, b = list.length - 1;
  while (b - a > 1) {
    const middle = (a + b) >> 1;
    if (list[middle] < v) a = middle; else b = middle;
  }
  return v - list[a] < list[b] - v ? a : b;
}
function place(v, s, log) {
  const f = log ? Math.log10 : x => x;
  return s[2] + (f(v) - f(s[0])) / (f(s[1]) - f(s[0])) * (s[3] - s[2]);
}
function show(c, epoch) {
  const found = c.d.lines.map(l => ({l, n: near(l.epoch, epoch)}));
  const off = ({l, n}) => Math.abs(l.epoch[n] - epoch);
  const {l: line, n: nearest} = found.reduce((a, b) => off(b) < off(a) ? b : a);
  const spans = found.map(({l, n}, i) => {
    const ended = epoch > l.epoch.at(-1) + 0.02 * c.d.x[1], span = document.createElement('span');
    c.dots[i].setAttribute('cx', place(l.epoch[n], c.d.x));
    c.dots[i].setAttribute('cy', place(l.value[n], c.d.y, c.d.log));
    c.dots[i].setAttribute('visibility', ended ? 'hidden' : 'inherit');
    span.className = 'c' + l.colour;
    span.textContent = l.label + (ended ? '–' : text(l.value[n]));
    span.title = l.name;
    return span;
  });
  const x = place(line.epoch[nearest], c.d.x), hair = c.pointer.querySelector('.hair');
  hair.setAttribute('x1', x);
  hair.setAttribute('x2', x);
  c.pointer.querySelectorAll('.foot').forEach(t => {
    t.setAttribute('x', x);
    t.textContent = t.classList.contains('second') ? text(line.step[nearest]) : text(+line.epoch[nearest].toFixed(2));
  });
  c.out.replaceChildren(...spans);
  c.pointer.setAttribute('visibility', 'visible');
}
function hide(c) {
  c.out.replaceChildren(...c.last);
  c.pointer.setAttribute('visibility', 'hidden');
}
for (const c of charts) {
  const all = charts.filter(o => o.group === c.group);
  const epochs = c.d.lines.flatMap(l => l.epoch).sort((a, b) => a - b);
  let at = epochs.length - 1;
  c.svg.addEventListener('pointermove', e => {
    const box = c.svg.getBoundingClientRect(), s = c.d.x;
    const px = (e.clientX - box.left) / box.width * c.svg.viewBox.baseVal.width;
    const epoch = s[0] + (px - s[2]) / (s[3] - s[2]) * (s[1] - s[0]);
    at = near(epochs, epoch);
    all.forEach(o => show(o, epoch));
  });
  for (const leave of ['pointerleave', 'blur']) c.svg.addEventListener(leave, () => all.forEach(hide));
  c.svg.addEventListener('keydown', e => {
    const move = {ArrowLeft: -1, ArrowRight: 1}[e.key];
    if (!move) return;
    e.preventDefault();
    at = Math.min(epochs.length - 1, Math.max(0, at + move));
    all.forEach(o => show(o, epochs[at]));
  });
}
for (const button of document.querySelectorAll('.copy')) {
  const code = button.parentNode.querySelector('code');
  button.hidden = false;
  button.addEventListener('click', async () => {
    getSelection().selectAllChildren(code);
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = 'Copied';
    } catch {
      button.textContent = 'Selected';
    }
    setTimeout(() => { button.textContent = 'Copy'; }, 1500);
  });
}
const theme = document.querySelector('.theme'), root = document.documentElement;
theme.hidden = false;
theme.addEventListener('click', () => {
  const dark = root.dataset.theme ? root.dataset.theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
  root.dataset.theme = dark ? 'light' : 'dark';
});
const player = new Audio(), pictures = [...document.querySelectorAll('[data-hear]')];
let playing = null;
function quiet() {
  player.pause();
  if (playing) playing.classList.remove('playing');
  playing = null;
}
function hear(picture) {
  const again = playing === picture;
  quiet();
  if (again) return;
  const page = picture.closest('article') || document;
  player.src = page.querySelector(`audio[data-clip="${picture.dataset.hear}"]`).src;
  playing = picture;
  picture.classList.add('playing');
  player.play().catch(() => { if (playing === picture) quiet(); });
}
player.addEventListener('ended', quiet);
function beside(picture, dx, dy) {
  const middle = e => { const b = e.getBoundingClientRect(); return [b.left + b.width / 2, b.top + b.height / 2]; };
  const [x, y] = middle(picture), others = [...picture.closest('.map, .cards').querySelectorAll('[data-hear]')];
  const far = others.filter(o => o !== picture && o.getClientRects().length).map(o => {
    const [u, v] = middle(o), ahead = (u - x) * dx + (v - y) * dy, aside = Math.abs((u - x) * dy) + Math.abs((v - y) * dx);
    return [ahead < 1 || aside > 2 * ahead ? Infinity : ahead + 2 * aside, o];
  });
  const [best, found] = far.reduce((a, b) => b[0] < a[0] ? b : a, [Infinity, null]);
  return best < Infinity ? found : null;
}
for (const picture of pictures) {
  const group = picture.closest('.map, .cards');
  picture.setAttribute('role', 'button');
  picture.tabIndex = picture === group.querySelector('img[data-hear], .framed[data-hear]') ? 0 : -1;
  picture.addEventListener('click', () => hear(picture));
  picture.addEventListener('keydown', e => {
    const step = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[e.key];
    const next = step && beside(picture, ...step);
    if (step || e.key === 'Enter' || e.key === ' ') e.preventDefault();
    if (e.key === 'Enter' || e.key === ' ') hear(picture);
    if (next) {
      picture.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    }
  });
}
let closed = [];
addEventListener('beforeprint', () => {
  closed = [...document.querySelectorAll('details:not([open])')];
  closed.forEach(d => { d.open = true; });
});
addEventListener('afterprint', () => closed.forEach(d => { d.open = false; }));
""".strip()
