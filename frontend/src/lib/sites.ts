// Sites in figures: how full, what waits, what it costs.
import type { Schemas, Site } from './api';

export type Pool = Schemas['Pool'];

export function stateOf(site: Site): string {
  return site.state === 'active' && !site.reachable ? 'unreachable' : site.state;
}

export function toneOf(site: Site): string {
  const state = stateOf(site);
  return state === 'active' ? 'good' : state === 'unreachable' ? 'bad' : state === 'draining' ? 'warn' : 'calm';
}

export const cpusOf = (pool: Pool) => (pool.nodes ?? 1) * (pool.cpus_per_node ?? 1);

/** Processors in all and free; free is null where the site does not say. */
export function capacity(site: Site): { cpus: number; free: number | null; queued: number } {
  let free: number | null = null;
  let cpus = 0;
  let queued = 0;
  for (const pool of site.pools) {
    if (pool.up === false) continue;
    cpus += cpusOf(pool);
    queued += pool.queued_jobs ?? 0;
    if (pool.free_cpus != null) free = (free ?? 0) + pool.free_cpus;
  }
  return { cpus, free, queued };
}

export function loadOf(site: Site): number | null {
  const { cpus, free } = capacity(site);
  return free === null || cpus === 0 ? null : Math.min(1, Math.max(0, 1 - free / cpus));
}

/** Seconds until a pool has worked off what it runs and what waits in its queue, as far as the site says. */
export function backlog(pool: Pool): number {
  return ((pool.queued_cpu_seconds ?? 0) + (pool.running_cpu_seconds_left ?? 0)) / Math.max(1, cpusOf(pool));
}

export function priceOf(site: Site, pool: string, name: string): string | undefined {
  return site.prices[pool]?.[name] ?? site.prices['*']?.[name];
}
