// How states look: a tone and a shape for each, so that colour is never the only sign.
export interface Look {
  tone: 'good' | 'bad' | 'warn' | 'busy' | 'calm';
  path: string;
  filled: boolean;
}

const circle = 'M5 1a4 4 0 1 1 0 8a4 4 0 1 1 0-8z';
const square = 'M1.5 1.5h7v7h-7z';
const diamond = 'M5 .8 9.2 5 5 9.2.8 5z';
const triangle = 'M5 1 9.3 9H.7z';
const play = 'M2 1 9 5 2 9z';
const tick = 'M1 5.2 4 8.4 9.2 1.8';
const cross = 'M1.5 1.5 8.5 8.5M8.5 1.5 1.5 8.5';
const bar = 'M1 5h8';
const pause = 'M3 1v8M7 1v8';

const LOOKS: Record<string, Look> = {
  blocked: { tone: 'calm', path: square, filled: false },
  held: { tone: 'warn', path: pause, filled: false },
  waiting: { tone: 'calm', path: circle, filled: false },
  placed: { tone: 'busy', path: diamond, filled: false },
  staging: { tone: 'busy', path: diamond, filled: false },
  submitting: { tone: 'busy', path: diamond, filled: true },
  queued: { tone: 'busy', path: circle, filled: false },
  running: { tone: 'busy', path: play, filled: true },
  unknown: { tone: 'warn', path: triangle, filled: false },
  collecting: { tone: 'busy', path: square, filled: true },
  succeeded: { tone: 'good', path: tick, filled: false },
  failed: { tone: 'bad', path: cross, filled: false },
  cancelled: { tone: 'calm', path: bar, filled: false },
  lost: { tone: 'bad', path: triangle, filled: true },
  active: { tone: 'good', path: circle, filled: true },
  draining: { tone: 'warn', path: pause, filled: false },
  left: { tone: 'calm', path: bar, filled: false },
  unreachable: { tone: 'bad', path: triangle, filled: true },
  up: { tone: 'good', path: circle, filled: true },
  down: { tone: 'bad', path: cross, filled: false },
  stale: { tone: 'warn', path: triangle, filled: false },
  due: { tone: 'busy', path: circle, filled: false },
  done: { tone: 'good', path: tick, filled: false },
  whole: { tone: 'good', path: circle, filled: true },
  arriving: { tone: 'busy', path: diamond, filled: false },
  moving: { tone: 'busy', path: play, filled: true },
  planned: { tone: 'busy', path: diamond, filled: false },
  leaving: { tone: 'calm', path: bar, filled: false },
};
const OTHER: Look = { tone: 'calm', path: circle, filled: false };

export function shapeOf(state: string): Look {
  return LOOKS[state] ?? OTHER;
}

export const TASK_STATES = [
  'blocked',
  'held',
  'waiting',
  'placed',
  'staging',
  'submitting',
  'queued',
  'running',
  'unknown',
  'collecting',
  'succeeded',
  'failed',
  'cancelled',
] as const;

export const ENDED: ReadonlySet<string> = new Set(['succeeded', 'failed', 'cancelled', 'lost']);
const MIRRORED: ReadonlySet<string> = new Set(['placed', 'staging', 'submitting', 'queued', 'running', 'unknown', 'collecting']);

/** The state that a task has after an event of this kind; empty when the event does not say. */
export function stateAfter(kind: string): string {
  const [subject, what = ''] = kind.split('.', 2);
  if (subject === 'task') return (TASK_STATES as readonly string[]).includes(what) ? what : '';
  return subject === 'attempt' && MIRRORED.has(what) ? what : '';
}
