// Who is signed in. The token is kept in this tab only, or on this device when the person asks for it.
// A sign-in of another kind (OIDC) ends in `enter` with the token that the service gave.
import { api, got, Refused, useToken, type Schemas } from './api';
import { live } from './live.svelte';

const KEY = 'isthmus.token';

function stored(): string {
  return sessionStorage.getItem(KEY) ?? localStorage.getItem(KEY) ?? '';
}

class Session {
  me = $state<Schemas['Me'] | null>(null);
  ready = $state(false);
  ended = $state(false);

  get admin(): boolean {
    return this.me?.is_admin === true && this.me.scopes.includes('admin');
  }

  /** Whether the token is good for this; that of an administrator is good for all. */
  has(scope: Schemas['Scope']): boolean {
    return this.me?.scopes.some((one) => one === scope || one === 'admin') === true;
  }

  get submits(): boolean {
    return this.has('tasks:write');
  }

  get projects(): string[] {
    return Object.keys(this.me?.projects ?? {}).sort();
  }

  operates(site: string): boolean {
    return this.admin || this.me?.sites.includes(site) === true;
  }

  /** Whether this person may change that task, as the API decides too. */
  changes(task: { project: string; user: string }): boolean {
    if (!this.submits || !this.me) return false;
    return this.admin || task.user === this.me.user || this.me.projects[task.project] === 'manager';
  }

  async resume(): Promise<void> {
    const token = stored();
    if (token) {
      try {
        await this.enter(token, localStorage.getItem(KEY) !== null);
      } catch {
        // signed out by the client when the token is no longer good
      }
    }
    this.ready = true;
  }

  /** Sign in; Refused when the token is not good. */
  async enter(token: string, keep: boolean): Promise<void> {
    useToken(token, () => {});
    let me: Schemas['Me'];
    try {
      me = await got(api.GET('/v1/me'));
    } catch (error) {
      if (error instanceof Refused && error.status === 401) this.leave();
      throw error;
    }
    useToken(token, () => this.leave(true));
    sessionStorage.setItem(KEY, token);
    if (keep) localStorage.setItem(KEY, token);
    else localStorage.removeItem(KEY);
    this.ended = false;
    this.me = me;
    live.start();
  }

  leave(ended = false): void {
    sessionStorage.removeItem(KEY);
    localStorage.removeItem(KEY);
    useToken('', () => {});
    live.stop();
    this.ended = ended && this.me !== null;
    this.me = null;
  }
}

export const session = new Session();
