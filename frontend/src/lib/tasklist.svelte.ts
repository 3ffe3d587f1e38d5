// The list of tasks: pages from the server, one after another as one scrolls, kept right by events. A change of state is written
// into its row at once; only tasks that the list does not know yet cost a call, at most one a second.
import { api, got, type Event, type TaskRow, type TaskState } from './api';
import { calmly, live } from './live.svelte';
import { ENDED, stateAfter } from './states';

export interface Filter {
  state: string[];
  site: string;
  user: string;
  name: string;
  project: string;
  array_id: string;
  tag: string[];
  since: string;
}

const PAGE = 250;

export class TaskList {
  rows = $state.raw<TaskRow[]>([]);
  more = $state(true);
  busy = $state(false);
  error = $state.raw<unknown>(null);
  fresh = $state(0); // tasks that came since one scrolled down
  #cursor: string | null = null;
  #where = new Map<string, number>();
  #filter: Filter;
  #abort = new AbortController();
  #stop: () => void;
  #look: () => void;
  #ask = new Set<string>();
  top = true; // whether the first rows are in view; only then new ones are put before them

  constructor(filter: Filter) {
    this.#filter = filter;
    this.#look = calmly(() => this.#refresh(), 1000);
    this.#stop = live.listen((events) => this.#take(events));
    void this.next();
  }

  close(): void {
    this.#stop();
    this.#abort.abort();
  }

  get #query() {
    const { state, site, user, name, project, array_id, tag, since } = this.#filter;
    return {
      ...(state.length ? { state: state as TaskState[] } : {}),
      ...(tag.length ? { tag } : {}),
      ...(since ? { since } : {}),
      ...Object.fromEntries(Object.entries({ site, user, name, project, array_id }).filter(([, value]) => value)),
    };
  }

  /** Read the next page. */
  async next(): Promise<void> {
    if (this.busy || !this.more) return;
    this.busy = true;
    this.error = null;
    try {
      const query = { ...this.#query, limit: PAGE, ...(this.#cursor ? { cursor: this.#cursor } : {}) };
      const page = await got(api.GET('/v1/tasks', { params: { query }, signal: this.#abort.signal }));
      this.#cursor = page.next_cursor;
      this.more = page.next_cursor !== null;
      this.#set([...this.rows, ...page.items.filter((row) => !this.#where.has(row.id))]);
    } catch (error) {
      this.error = error;
      this.more = false;
    }
    this.busy = false;
  }

  again(): void {
    this.more = true;
    void this.next();
  }

  /** Show the tasks that came meanwhile. */
  up(): void {
    this.top = true;
    this.fresh = 0;
    this.#look();
  }

  #set(rows: TaskRow[]): void {
    this.rows = rows;
    this.#where = new Map(rows.map((row, index) => [row.id, index]));
  }

  #take(events: Event[]): void {
    let rows: TaskRow[] | undefined;
    const oldest = this.more ? (this.rows.at(-1)?.id ?? '') : ''; // what is older comes with a later page
    for (const event of events) {
      if (!event.task_id) continue;
      const at = this.#where.get(event.task_id);
      if (at === undefined) {
        if (event.task_id > oldest) this.#ask.add(event.task_id);
        continue;
      }
      const state = stateAfter(event.kind);
      const row = (rows ?? this.rows)[at]!;
      if (!state || (ENDED.has(row.state) && !event.kind.startsWith('task.'))) continue;
      rows ??= [...this.rows];
      rows[at] = {
        ...row,
        state: state as TaskState,
        site: event.site || row.site,
        updated_at: event.at,
        ended_at: ENDED.has(state) ? event.at : row.ended_at,
      };
    }
    if (rows) {
      const wanted = this.#filter.state;
      this.#set(wanted.length ? rows.filter((row) => wanted.includes(row.state)) : rows);
    }
    if (this.#ask.size) this.#look();
  }

  async #refresh(): Promise<void> {
    if (this.busy || this.#ask.size === 0) return;
    if (!this.top) {
      this.fresh += this.#ask.size;
      this.#ask.clear();
      return;
    }
    this.#ask.clear();
    const page = await got(api.GET('/v1/tasks', { params: { query: { ...this.#query, limit: PAGE } }, signal: this.#abort.signal }));
    const last = page.items.at(-1)?.id ?? '';
    // Newest first: what is newer than the page's last row is the page's; what follows stays as it was.
    const rest = page.next_cursor === null ? [] : this.rows.filter((row) => row.id < last);
    if (page.next_cursor === null || rest.length === 0) {
      this.#cursor = page.next_cursor;
      this.more = page.next_cursor !== null;
    }
    this.#set([...page.items, ...rest]);
  }
}
