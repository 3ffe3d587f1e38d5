// The typed client of the service's own OpenAPI document. Every answer that is no success becomes a Refused with its problem.
import createClient, { type Middleware } from 'openapi-fetch';
import { fetched } from './early';
import type { components, paths } from '../api/schema';

export type Schemas = components['schemas'];
export type Problem = Schemas['Problem'];
export type TaskRow = Schemas['TaskRow'];
export type Task = Schemas['Task'];
export type Site = Schemas['Site'];
export type Attempt = Schemas['Attempt'];
export type Receipt = Schemas['Receipt'];
export type Candidate = Schemas['Candidate'];
export type Event = Schemas['Event'];
export type Usage = Schemas['Usage'];
export type TaskState = Schemas['TaskState'];
export type Output = Schemas['isthmus__api__answers__Output'];

export class Refused extends Error {
  constructor(
    readonly status: number,
    readonly problem: Partial<Problem>,
  ) {
    super(problem.detail ?? problem.title ?? `HTTP ${status}`);
  }
}

let token = '';
let onStranger: () => void = () => {};

export function useToken(value: string, stranger: () => void): void {
  token = value;
  onStranger = stranger;
}

export function authorization(): Record<string, string> {
  return token ? { Authorization: `Bearer ${token}` } : {};
}

const signed: Middleware = {
  onRequest({ request }) {
    if (token) request.headers.set('Authorization', `Bearer ${token}`);
    return request;
  },
  onResponse({ response }) {
    if (response.status === 401) onStranger();
    return undefined;
  },
};

export const api = createClient<paths>({ baseUrl: window.location.origin, fetch: fetched });
api.use(signed);

interface Answer<T> {
  data?: T;
  error?: unknown;
  response: Response;
}

/** The content of an answer; Refused when it is none. */
export async function got<T>(call: Promise<Answer<T>>): Promise<T> {
  let answer: Answer<T>;
  try {
    answer = await call;
  } catch (error) {
    if (error instanceof DOMException && error.name === 'AbortError') throw error;
    throw new Refused(0, { code: 'unreachable' });
  }
  if (!answer.response.ok) throw new Refused(answer.response.status, (answer.error ?? {}) as Partial<Problem>);
  return answer.data as T;
}

/** Bytes of a path of the API, with the headers of the answer. */
export async function bytes(path: string, signal?: AbortSignal): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(path, { headers: authorization(), signal });
  } catch (error) {
    if (error instanceof DOMException && error.name === 'AbortError') throw error;
    throw new Refused(0, { code: 'unreachable' });
  }
  if (response.status === 401) onStranger();
  if (!response.ok) {
    let problem: Partial<Problem> = {};
    try {
      problem = (await response.json()) as Partial<Problem>;
    } catch {
      // not every gateway on the way speaks JSON
    }
    throw new Refused(response.status, problem);
  }
  return response;
}

/** Save what a path of the API answers as a file. */
export async function download(path: string, name: string): Promise<void> {
  const response = await bytes(path);
  save(await response.blob(), name);
}

export function save(content: Blob, name: string): void {
  const url = URL.createObjectURL(content);
  const link = document.createElement('a');
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
