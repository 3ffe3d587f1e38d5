// One stream of events for the whole page. It resumes after the last number seen, waits longer after each failure, and hands
// events on in batches, so that a thousand a second cost one update of the screen and not a thousand.
import { authorization, type Event } from './api';

export type Listener = (events: Event[]) => void;
export type Pulse = 'off' | 'connecting' | 'live' | 'waiting';

const FLUSH_MS = 120;
const LONGEST_WAIT_MS = 15_000;

class Live {
  pulse = $state<Pulse>('off');
  #listeners = new Set<Listener>();
  #waiting: Event[] = [];
  #timer: ReturnType<typeof setTimeout> | undefined;
  #last: number | undefined;
  #abort: AbortController | undefined;
  #wait = 500;

  start(): void {
    if (this.#abort) return;
    this.#abort = new AbortController();
    void this.#run(this.#abort.signal);
  }

  stop(): void {
    this.#abort?.abort();
    this.#abort = undefined;
    this.#last = undefined;
    this.#waiting = [];
    this.pulse = 'off';
  }

  /** Be handed batches of events until the answer is called. */
  listen(listener: Listener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async #run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      this.pulse = this.pulse === 'off' ? 'connecting' : 'waiting';
      try {
        await this.#read(signal);
        this.#wait = 500;
      } catch {
        this.#wait = Math.min(this.#wait * 2, LONGEST_WAIT_MS);
      }
      if (signal.aborted) return;
      this.pulse = 'waiting';
      await new Promise((done) => setTimeout(done, this.#wait * (0.5 + Math.random() / 2)));
    }
  }

  async #read(signal: AbortSignal): Promise<void> {
    const headers: Record<string, string> = { ...authorization(), Accept: 'text/event-stream' };
    if (this.#last !== undefined) headers['Last-Event-ID'] = String(this.#last);
    const response = await fetch('/v1/events', { headers, signal, cache: 'no-store' });
    if (!response.ok || !response.body) throw new Error(String(response.status));
    this.pulse = 'live';
    this.#wait = 500;
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = '';
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      rest += value;
      let from = 0;
      for (let end = rest.indexOf('\n\n', from); end >= 0; end = rest.indexOf('\n\n', from)) {
        this.#frame(rest.slice(from, end));
        from = end + 2;
      }
      rest = rest.slice(from);
    }
  }

  #frame(frame: string): void {
    let kind = '';
    let data = '';
    for (const line of frame.split('\n')) {
      if (line.startsWith('event: ')) kind = line.slice(7);
      else if (line.startsWith('data: ')) data += line.slice(6);
    }
    if (!data || kind === 'cut') return;
    const event = JSON.parse(data) as Event;
    this.#last = event.seq;
    this.#waiting.push(event);
    this.#timer ??= setTimeout(() => this.#flush(), FLUSH_MS);
  }

  #flush(): void {
    this.#timer = undefined;
    const batch = this.#waiting;
    this.#waiting = [];
    for (const listener of [...this.#listeners]) listener(batch);
  }
}

export const live = new Live();

/** A function that runs `work` now, and at most once in `ms`, with a last run after the last call; one run at a time. */
export function calmly(work: () => Promise<unknown>, ms: number): () => void {
  let running = false;
  let again = false;
  let last = -Infinity;
  let timer: ReturnType<typeof setTimeout> | undefined;
  async function run(): Promise<void> {
    timer = undefined;
    running = true;
    again = false;
    last = performance.now();
    try {
      await work();
    } catch {
      // the page shows its own failures
    }
    running = false;
    if (again) ask();
  }
  function ask(): void {
    if (running) {
      again = true;
      return;
    }
    if (timer === undefined) timer = setTimeout(() => void run(), Math.max(0, last + ms - performance.now()));
  }
  return ask;
}
