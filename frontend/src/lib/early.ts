// What the first page will ask for, asked for while its files and the token's answer are still on their way.
const asked = new Map<string, Promise<Response>>();
const KEPT_MS = 5000;

export function ahead(path: string, headers: Record<string, string>): void {
  const url = `${window.location.origin}${path}`;
  const answer = fetch(url, { headers });
  answer.catch(() => {}); // whoever wants it asks again
  asked.set(url, answer);
  setTimeout(() => asked.delete(url), KEPT_MS);
}

/** fetch, by the answer that is on its way when there is one. */
export function fetched(request: Request): Promise<Response> {
  const early = request.method === 'GET' ? asked.get(request.url) : undefined;
  if (!early) return fetch(request);
  asked.delete(request.url);
  return early.catch(() => fetch(request));
}
