// Who is signed in. The token is kept in this tab only, or on this device when the person asks for it.
// A sign-in through an identity provider comes back with a code in the address, which is redeemed for a token at once.
import { api, got, Refused, useToken, type Schemas } from './api';
import { ahead } from './early';
import { live } from './live.svelte';

const KEY = 'isthmus.token';

function stored(): string {
  return sessionStorage.getItem(KEY) ?? localStorage.getItem(KEY) ?? '';
}

class Session {
  me = $state<Schemas['Me'] | null>(null);
  ready = $state(false);
  ended = $state(false);
  /** The kind of what went wrong with a sign-in through an identity provider. */
  failed = $state('');

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

  /** Sign in again with the token that is kept; `asks` are asked for at the same time. */
  async resume(asks: string[]): Promise<void> {
    const back = /^#sign-in-(code|failed)=([\w-]+)$/.exec(window.location.hash);
    if (back) {
      window.history.replaceState(null, '', '#/'); // neither stays in the address or the history
      window.dispatchEvent(new HashChangeEvent('hashchange'));
      try {
        if (back[1] === 'failed') this.failed = back[2]!;
        else await this.enter((await got(api.POST('/v1/sign-in:redeem', { body: { code: back[2]! } }))).token, false);
      } catch {
        this.failed = 'not_completed';
      }
      this.ready = true;
      return;
    }
    const token = stored();
    if (token) {
      for (const path of ['/v1/me', ...asks]) ahead(path, { Authorization: `Bearer ${token}` });
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
