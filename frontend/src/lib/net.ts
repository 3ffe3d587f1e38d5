// The network as the API knows it, for the map and for tables.
import type { Schemas } from './api';
import { duration, rate } from './format';
import { t } from './words.svelte';

export type Network = Schemas['Network'];
export type Link = Schemas['NetLinkNow'];
export type Measured = Schemas['NetMeasured'];
export type NetFigure = Schemas['NetFigure'];
export type Holder = Schemas['NetHolder'];
export type Calendar = Schemas['NetCalendar'];

/** How much of a direction is taken, 0 to 1; null where it is not measured. */
export function loadOf(link: Link): number | null {
  const capacity = link.capacity_bits_per_second;
  const free = link.available_bits_per_second;
  return capacity && free ? Math.min(1, Math.max(0, 1 - free.value / capacity)) : null;
}

export function labelOf(link: Link): string {
  const parts = [`${link.source} → ${link.target}`];
  if (!link.up) parts.push(t('net.down'));
  if (link.delay_seconds) parts.push(duration(link.delay_seconds.value));
  if (link.available_bits_per_second) parts.push(t('net.free', { rate: rate(link.available_bits_per_second.value / 8) }));
  return parts.join(', ');
}

/** The single steps of a transfer's path, each from node to node. */
export function hops(one: { source: string; target: string; links: string[] }, links: Link[]): { source: string; target: string }[] {
  const found: { source: string; target: string }[] = [];
  let at = one.source;
  for (const name of one.links) {
    const next = links.find((link) => link.link === name && link.source === at);
    if (!next) break;
    found.push({ source: at, target: next.target });
    at = next.target;
  }
  return found.length ? found : [{ source: one.source, target: one.target }];
}
