// Numbers, times and sizes as people read them.

const whole = new Intl.NumberFormat('en-US', {maximumFractionDigits: 0});

export const NONE = '–';

const isNumber = (value) => typeof value === 'number' && Number.isFinite(value);

export function count(value) { return isNumber(value) ? whole.format(value) : NONE; }

// 0.4, 12.3, 345, 12,345
export function rate(value) {
  if (!isNumber(value)) return NONE;
  if (value === 0) return '0';
  return value >= 99.95 ? whole.format(value) : value.toFixed(1);
}

export function bytes(value) {
  if (!isNumber(value)) return NONE;
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let size = value;
  let unit = 0;
  while (size >= 1000 && unit < units.length - 1) {
    size /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2;
  return `${size.toFixed(digits)} ${units[unit]}`;
}

// Of a latency: 0.42 ms, 12.3 ms, 345 ms, 1.23 s
export function latency(seconds) {
  if (!isNumber(seconds)) return NONE;
  const ms = seconds * 1000;
  if (ms < 9.995) return `${ms.toFixed(2)} ms`;
  if (ms < 99.95) return `${ms.toFixed(1)} ms`;
  if (ms < 999.5) return `${ms.toFixed(0)} ms`;
  return seconds < 99.95 ? `${seconds.toFixed(2)} s` : `${seconds.toFixed(0)} s`;
}

// Of a wait or an age: 45 s, 12 min, 3 h 5 min, 2 d
export function span(seconds) {
  if (!isNumber(seconds)) return NONE;
  const s = Math.max(0, Math.round(seconds));
  if (s < 90) return `${s} s`;
  const minutes = Math.round(s / 60);
  if (minutes < 90) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 === 0 ? `${hours} h` : `${hours} h ${minutes % 60} min`;
  return `${Math.round(hours / 24)} d`;
}

export function ago(epochSeconds) {
  if (!isNumber(epochSeconds)) return 'never';
  const seconds = Date.now() / 1000 - epochSeconds;
  return seconds < 5 ? 'just now' : `${span(seconds)} ago`;
}

export function clock(epochSeconds) {
  if (!isNumber(epochSeconds)) return NONE;
  return new Date(epochSeconds * 1000).toLocaleTimeString('en-GB');
}

export function percent(share, digits = 0) {
  if (!isNumber(share)) return NONE;
  const text = (share * 100).toFixed(digits);
  return share > 0 && Number(text) === 0 ? `<${10 ** -digits} %` : `${text} %`;
}

// +12 %, −3.4 %, of an effect
export function signed(share, unit = '%') {
  if (!isNumber(share)) return NONE;
  const value = share * 100;
  const size = Math.abs(value);
  const text = size >= 9.95 || size === 0 ? size.toFixed(0) : size >= 0.995 ? size.toFixed(1) : size.toFixed(2);
  const sign = Number(text) === 0 ? '' : value < 0 ? '−' : '+';
  return `${sign}${text} ${unit}`;
}

export function plural(n, one, many = `${one}s`) { return `${count(n)} ${n === 1 ? one : many}`; }
