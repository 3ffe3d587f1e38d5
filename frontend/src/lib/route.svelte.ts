// Where one is: everything is in the part of the address behind #, so that each view and each filter is a link.
class Route {
  #hash = $state(window.location.hash);

  constructor() {
    window.addEventListener('hashchange', () => (this.#hash = window.location.hash));
  }

  #parts = $derived.by(() => {
    const [path = '', query = ''] = this.#hash.replace(/^#\/?/, '').split('?', 2);
    return { path: path.split('/').filter(Boolean).map(decode), query: new URLSearchParams(query) };
  });

  get path(): string[] {
    return this.#parts.path;
  }

  get query(): URLSearchParams {
    return this.#parts.query;
  }

  /** Change parts of the query in place; an empty value takes one out. */
  set(values: Record<string, string | string[]>): void {
    const query = new URLSearchParams(this.query);
    for (const [name, value] of Object.entries(values)) {
      query.delete(name);
      for (const item of Array.isArray(value) ? value : [value]) if (item) query.append(name, item);
    }
    const address = link(this.path, query);
    history.replaceState(null, '', address);
    this.#hash = window.location.hash;
  }
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export function link(path: string[], query?: URLSearchParams | Record<string, string>): string {
  const text = new URLSearchParams(query ?? {}).toString();
  return `#/${path.map(encodeURIComponent).join('/')}${text ? `?${text}` : ''}`;
}

export function go(path: string[], query?: Record<string, string>): void {
  window.location.hash = link(path, query);
}

export const route = new Route();
