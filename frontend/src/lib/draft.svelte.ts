// What the page for submitting starts with, when one comes to it from a task.
import type { Schemas } from './api';

type Spec = Schemas['Task']['spec'];

export const draft: { spec: Record<string, unknown> | null; project: string } = { spec: null, project: '' };

function filled(value: unknown): boolean {
  if (value === null || value === undefined || value === '' || value === false) return false;
  if (Array.isArray(value)) return value.length > 0;
  return typeof value !== 'object' || Object.keys(value).length > 0;
}

/** A specification without what it only says by default. */
export function trimmed(value: Record<string, unknown>): Record<string, unknown> {
  const kept: Record<string, unknown> = {};
  for (const [key, item] of Object.entries(value)) {
    const inner = item !== null && typeof item === 'object' && !Array.isArray(item) ? trimmed(item as Record<string, unknown>) : item;
    if (filled(inner)) kept[key] = inner;
  }
  return kept;
}

export function clone(spec: Spec, project: string): void {
  draft.spec = trimmed(spec as unknown as Record<string, unknown>);
  draft.project = project;
}
