// A time series of the last five minutes, as SVG. A gap in the measurements is a gap in the line.
import {h, setText, svg} from './dom.js';

const SECONDS = 300;
const GAP = 5;
const HEIGHT = 168;
const LEFT = 44;
const RIGHT = 8;
const TOP = 10;
const BOTTOM = 24;

// 1, 2, 5, 10, 20, ...: the first that is not below.
function niceCeiling(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1e-9)));
  for (const step of [1, 2, 5, 10]) {
    if (step * power >= value) return step * power;
  }
  return 10 * power;
}

export class TimeSeries {
  constructor({title, format}) {
    this.format = format;
    this.points = [];
    this.top = 1;
    this.pointer = null;
    this.readout = h('span', {class: 'readout num'});
    this.area = svg('path', {class: 'area'});
    this.line = svg('path', {class: 'line'});
    this.dot = svg('circle', {class: 'dot', r: 3.5, visibility: 'hidden'});
    this.cursor = svg('line', {class: 'cursor', y1: TOP, y2: HEIGHT - BOTTOM, visibility: 'hidden'});
    this.grid = [0, 0.5, 1].map((share) => ({
                                  share,
                                  line: svg('line', {class: share === 0 ? 'axis' : 'grid'}),
                                  label: svg('text', {class: 'tick', 'text-anchor': 'end', x: LEFT - 8}),
                                }));
    this.times = [300, 240, 180, 120, 60, 0].map(
        (age) => ({
          age,
          label: svg('text', {class: 'tick', y: HEIGHT - 5, 'text-anchor': age === 0 ? 'end' : 'middle'}),
        }));
    this.view =
        svg('svg', {class: 'series', height: HEIGHT, role: 'img', 'aria-label': title},
            ...this.grid.flatMap(({line, label}) => [line, label]), ...this.times.map(({label}) => label), this.area,
            this.line, this.cursor, this.dot);
    this.view.addEventListener('pointermove', (event) => this.point(event));
    this.view.addEventListener('pointerleave', () => this.point(null));
    this.root = h('figure', {class: 'chart'}, h('figcaption', {}, h('span', {text: title}), this.readout), this.view);
    this.width = 0;
    new ResizeObserver(([entry]) => {
      this.width = Math.floor(entry.contentRect.width);
      this.draw();
    }).observe(this.view.parentElement);
  }

  set(points) {
    this.points = points;
    this.draw();
  }

  point(event) {
    this.pointer = event === null ? null : event.clientX - this.view.getBoundingClientRect().left;
    this.draw();
  }

  // The scale grows at once and shrinks only when it is four times too large: it does not twitch.
  scale() {
    const most = Math.max(0, ...this.points.map((point) => point.value));
    const wanted = niceCeiling(Math.max(most * 1.1, 1));
    if (wanted > this.top || wanted * 4 <= this.top) this.top = wanted;
  }

  draw() {
    if (this.width === 0) return;
    this.scale();
    const now = this.points.length > 0 ? this.points[this.points.length - 1].at : Date.now() / 1000;
    const x = (at) => LEFT + (1 - (now - at) / SECONDS) * (this.width - LEFT - RIGHT);
    const y = (value) => HEIGHT - BOTTOM - (value / this.top) * (HEIGHT - TOP - BOTTOM);
    this.view.setAttribute('viewBox', `0 0 ${this.width} ${HEIGHT}`);
    this.view.setAttribute('width', this.width);
    for (const {share, line, label} of this.grid) {
      const at = y(share * this.top);
      for (const [name, value] of Object.entries({x1: LEFT, x2: this.width - RIGHT, y1: at, y2: at}))
        line.setAttribute(name, value);
      label.setAttribute('y', at + 4);
      setText(label, this.format(share * this.top));
    }
    for (const {age, label} of this.times) {
      label.setAttribute('x', x(now - age));
      label.setAttribute('visibility', this.width < 420 && age % 120 === 60 ? 'hidden' : 'visible');
      setText(label, age === 0 ? 'now' : `−${age / 60} min`);
    }
    this.drawLine(x, y);
    this.drawReadout(x, y, now);
  }

  drawLine(x, y) {
    const pieces = [];
    let last = null;
    for (const point of this.points) {
      if (x(point.at) < LEFT) continue;
      if (last === null || point.at - last > GAP) pieces.push([]);
      pieces[pieces.length - 1].push(point);
      last = point.at;
    }
    const at = (point) => `${x(point.at).toFixed(1)},${y(point.value).toFixed(1)}`;
    const lines = pieces.map((piece) => `M${piece.map(at).join('L')}`);
    const areas = pieces.map((piece, i) => {
      const [first, end] = [piece[0], piece[piece.length - 1]];
      return `${lines[i]}L${x(end.at).toFixed(1)},${y(0)}L${x(first.at).toFixed(1)},${y(0)}Z`;
    });
    this.line.setAttribute('d', lines.join(''));
    this.area.setAttribute('d', areas.join(''));
  }

  // Of the moment under the pointer, else of the last one.
  drawReadout(x, y, now) {
    let shown = this.points[this.points.length - 1];
    if (this.pointer !== null && shown) {
      for (const point of this.points) {
        if (Math.abs(x(point.at) - this.pointer) < Math.abs(x(shown.at) - this.pointer)) shown = point;
      }
    }
    const age = shown ? Math.round(now - shown.at) : 0;
    const when = this.pointer !== null && age > 0 ? `, ${age} s ago` : '';
    setText(this.readout, shown ? `${this.format(shown.value)}${when}` : '');
    this.dot.setAttribute('visibility', shown ? 'visible' : 'hidden');
    this.cursor.setAttribute('visibility', shown && this.pointer !== null ? 'visible' : 'hidden');
    if (!shown) return;
    this.dot.setAttribute('cx', x(shown.at));
    this.dot.setAttribute('cy', y(shown.value));
    this.cursor.setAttribute('x1', x(shown.at));
    this.cursor.setAttribute('x2', x(shown.at));
  }
}
