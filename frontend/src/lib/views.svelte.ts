// Views of the list of tasks that the person kept, in this browser.
export interface View {
  name: string;
  query: string;
}

const KEY = 'isthmus.views';

function stored(): View[] {
  try {
    const found: unknown = JSON.parse(localStorage.getItem(KEY) ?? '[]');
    return Array.isArray(found) ? (found as View[]).filter((view) => typeof view.name === 'string' && typeof view.query === 'string') : [];
  } catch {
    return [];
  }
}

class Views {
  all = $state<View[]>(stored());

  keep(name: string, query: string): void {
    this.all = [...this.all.filter((view) => view.query !== query), { name: name.slice(0, 60), query }];
    this.#write();
  }

  drop(query: string): void {
    this.all = this.all.filter((view) => view.query !== query);
    this.#write();
  }

  #write(): void {
    localStorage.setItem(KEY, JSON.stringify(this.all));
  }
}

export const views = new Views();
