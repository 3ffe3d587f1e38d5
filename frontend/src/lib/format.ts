// Figures for people. Times are in the zone of the browser, which the page names.
import { words } from './words.svelte';

export const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;

export function time(text: string | number | null | undefined): string {
  if (text === null || text === undefined || text === '') return '–';
  return new Intl.DateTimeFormat(words.language, { dateStyle: 'medium', timeStyle: 'medium', hourCycle: 'h23' }).format(new Date(text));
}

export function moment(text: string | number): string {
  return new Intl.DateTimeFormat(words.language, {
    month: 'short',
    day: 'numeric',
    hour: '2-digit',
    minute: '2-digit',
    hourCycle: 'h23',
  }).format(new Date(text));
}

export function zoneOffset(): string {
  const minutes = -new Date().getTimezoneOffset();
  const sign = minutes < 0 ? '-' : '+';
  const part = (value: number) => String(Math.floor(Math.abs(value))).padStart(2, '0');
  return `UTC${sign}${part(minutes / 60)}:${part(minutes % 60)}`;
}

/** Two figures that count, never as a power of ten. */
export function twoFigures(value: number): string {
  return String(Number(value.toPrecision(2)));
}

/** 90 -> 1m30s; two units at most. */
export function duration(seconds: number | null | undefined): string {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return '–';
  if (seconds < 0) return `-${duration(-seconds)}`;
  if (seconds < 1) return seconds === 0 ? '0s' : seconds < 0.001 ? `${twoFigures(seconds * 1e6)}µs` : `${Math.round(seconds * 1000)}ms`;
  if (seconds < 10) return `${Number(seconds.toFixed(1))}s`;
  const whole = Math.round(seconds);
  const units: [string, number][] = [
    ['d', 86_400],
    ['h', 3600],
    ['m', 60],
    ['s', 1],
  ];
  const at = units.findIndex(([, size]) => whole >= size);
  const [name, size] = units[at]!;
  const next = units[at + 1];
  const count = Math.floor(whole / size);
  const rest = next ? Math.floor((whole % size) / next[1]) : 0;
  return `${count}${name}${next && rest ? `${rest}${next[0]}` : ''}`;
}

/** A duration of work or of waiting, where less than a millisecond is none. */
export function spent(seconds: number | null | undefined): string {
  return seconds !== null && seconds !== undefined && Math.abs(seconds) < 0.001 ? '0s' : duration(seconds);
}

export function bytesText(value: number | null | undefined): string {
  if (value === null || value === undefined) return '–';
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let size = value;
  let unit = 0;
  while (size >= 1024 && unit < units.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? size : size.toPrecision(3)} ${units[unit]}`;
}

export function rate(bytesPerSecond: number | null | undefined): string {
  if (bytesPerSecond === null || bytesPerSecond === undefined) return '–';
  const units = ['bit/s', 'kbit/s', 'Mbit/s', 'Gbit/s', 'Tbit/s'];
  let size = bytesPerSecond * 8;
  let unit = 0;
  while (size >= 1000 && unit < units.length - 1) {
    size /= 1000;
    unit += 1;
  }
  return `${Number(size.toPrecision(3))} ${units[unit]}`;
}

export function count(value: number | null | undefined): string {
  return value === null || value === undefined ? '–' : new Intl.NumberFormat(words.language).format(value);
}

export function compact(value: number | null | undefined): string {
  if (value === null || value === undefined) return '–';
  return new Intl.NumberFormat(words.language, { notation: 'compact', maximumFractionDigits: 1 }).format(value);
}

export function money(text: string | number | null | undefined): string {
  if (text === null || text === undefined) return '–';
  return new Intl.NumberFormat(words.language, { maximumFractionDigits: 4, minimumFractionDigits: 2 }).format(Number(text));
}

export function part(value: number): string {
  return new Intl.NumberFormat(words.language, { style: 'percent', maximumFractionDigits: 0 }).format(value);
}

/** The age of a moment, as seconds before now. */
export function age(text: string | null | undefined, now: number): string {
  return text ? duration(Math.round(Math.max(0, (now - new Date(text).getTime()) / 1000))) : '–';
}
