// Interval plots: per metric and arm one bar round zero. The band in the middle is what is too small to matter; colour
// says whether the difference is good, and a dashed bar that nothing is known yet. An arrow: the bound is beyond the
// edge.
import {h, svg} from './dom.js';
import * as format from './format.js';

const WIDTH = 320;
const HEIGHT = 30;
const PAD = 12;
const MIDDLE = HEIGHT / 2;

export const METRIC_NAMES = {
  time_to_first_token: 'Time to first token',
  inter_token: 'Time per token',
  end_to_end: 'Whole answer',
  completion_tokens: 'Answer length',
  error_rate: 'Error rate',
  feedback: 'Feedback',
  p95_time_to_first_token: 'Time to first token, p95',
};

const isNumber = (value) => typeof value === 'number' && Number.isFinite(value);
const unitOf = (metric) => (metric.kind === 'ratio' ? '%' : 'points');

function kindOf(metric) {
  if (metric.decision === 'too_early') return 'early';
  if (metric.decision === 'undecided') return 'open';
  if (metric.decision === 'same') return 'same';
  return metric.meaning === 'better' ? 'good' : metric.meaning === 'worse' ? 'bad' : 'same';
}

const DECISIONS = {
  too_early: 'too early',
  undecided: 'undecided',
  same: 'the same'
};

export function decisionBadge(metric) {
  const text =
      DECISIONS[metric.decision] ?? `${metric.decision}${metric.meaning === 'neither' ? '' : `, ${metric.meaning}`}`;
  const kinds = {early: 'quiet', open: 'quiet', same: 'info', good: 'good', bad: 'bad'};
  return {text, kind: kinds[kindOf(metric)]};
}

export function intervalText(metric) {
  if (metric.decision === 'too_early') return 'not enough requests yet';
  const low = isNumber(metric.low) ? format.signed(metric.low, '').trim() : '−∞';
  const high = isNumber(metric.high) ? format.signed(metric.high, '').trim() : '∞';
  return `${format.signed(metric.effect, unitOf(metric))}  (${low} to ${high})`;
}

// So wide that the intervals of a metric's arms are to be seen, and the band that matters too.
export function domainOf(metrics, smallest) {
  const ends = metrics.filter((metric) => metric.decision !== 'too_early')
                   .flatMap((metric) => [metric.low, metric.high, metric.effect])
                   .filter(isNumber)
                   .map(Math.abs);
  return Math.min(2, Math.max(smallest * 2.5, ...ends.map((end) => Math.min(end, 1.5) * 1.1)));
}

export function intervalPlot(metric, smallest, domain) {
  const x = (value) => WIDTH / 2 + Math.max(-1, Math.min(1, value / domain)) * (WIDTH / 2 - PAD);
  const band =
      svg('rect', {class: 'band', x: x(-smallest), y: 4, width: x(smallest) - x(-smallest), height: HEIGHT - 8, rx: 3});
  const zero = svg('line', {class: 'zero', x1: x(0), x2: x(0), y1: 1, y2: HEIGHT - 1});
  const text = `${METRIC_NAMES[metric.metric] ?? metric.metric}, arm ${metric.arm}: ${decisionBadge(metric).text}, ${
      intervalText(metric)}`;
  const plot = svg(
      'svg', {class: `interval ${kindOf(metric)}`, viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: 'img', 'aria-label': text},
      band, zero);
  if (metric.decision === 'too_early') {
    plot.append(svg('line', {class: 'early', x1: PAD, x2: WIDTH - PAD, y1: MIDDLE, y2: MIDDLE}));
    return plot;
  }
  const low = isNumber(metric.low) ? metric.low : -Infinity;
  const high = isNumber(metric.high) ? metric.high : Infinity;
  plot.append(svg('rect', {
    class: 'range',
    x: x(low),
    y: MIDDLE - 5,
    width: Math.max(2, x(high) - x(low)),
    height: 10,
    rx: low < -domain || high > domain ? 0 : 5
  }));
  if (low < -domain)
    plot.append(svg('path', {class: 'arrow', d: `M${PAD} ${MIDDLE - 8}L${PAD - 9} ${MIDDLE}L${PAD} ${MIDDLE + 8}Z`}));
  if (high > domain)
    plot.append(svg('path', {
      class: 'arrow',
      d: `M${WIDTH - PAD} ${MIDDLE - 8}L${WIDTH - PAD + 9} ${MIDDLE}L${WIDTH - PAD} ${MIDDLE + 8}Z`
    }));
  if (isNumber(metric.effect)) plot.append(svg('circle', {class: 'effect', cx: x(metric.effect), cy: MIDDLE, r: 4.5}));
  return plot;
}

// The ends of the scale, under the plots of one metric.
export function scaleLine(metric, domain) {
  const end = (value) => format.signed(value, unitOf(metric));
  return h(
      'div', {class: 'scale num', 'aria-hidden': 'true'}, h('span', {text: end(-domain)}), h('span', {text: '0'}),
      h('span', {text: end(domain)}));
}
