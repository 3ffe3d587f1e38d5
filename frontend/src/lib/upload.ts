// Files from the browser: sent as one pack, known afterwards by the hash that the service answers.
import { authorization, Refused, type Problem } from './api';
import { t } from './words.svelte';

export const MOST_UPLOAD = 32 * 2 ** 20;

/** Send files to a project; the inputs that they become. Refused, or an Error for files that are too large together. */
export async function upload(files: File[], project: string): Promise<{ path: string; blob: string }[]> {
  const size = files.reduce((sum, file) => sum + file.size + 4, 0);
  if (size > MOST_UPLOAD) throw new Error(t('submit.too_large'));
  const pack: BlobPart[] = [];
  for (const file of files) {
    const length = new DataView(new ArrayBuffer(4));
    length.setUint32(0, file.size);
    pack.push(length.buffer, file);
  }
  let response: Response;
  try {
    response = await fetch(`/v1/blobs:pack?project=${encodeURIComponent(project)}`, { method: 'POST', headers: { ...authorization(), 'Content-Type': 'application/octet-stream' }, body: new Blob(pack) });
  } catch {
    throw new Refused(0, { code: 'unreachable' });
  }
  const answer = (await response.json().catch(() => ({}))) as { sha256: string[] } & Partial<Problem>;
  if (!response.ok) throw new Refused(response.status, answer);
  return files.map((file, at) => ({ path: file.name, blob: answer.sha256[at]! }));
}
