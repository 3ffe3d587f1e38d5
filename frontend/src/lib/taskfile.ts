// The forms that people write in a task file (memory: 8G, time: 2h, command as a text), as the specification that the API takes.
// The same as `isthmus submit FILE` for all that does not name a file of the person's own machine.
export type Document = Record<string, unknown>;

export class Unreadable extends Error {
  constructor(
    readonly field: string,
    message: string,
  ) {
    super(message);
  }
}

const SIZES: Record<string, number> = { '': 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30, t: 2 ** 40, p: 2 ** 50 };

export function size(value: unknown, field: string): number {
  if (typeof value === 'number') return value;
  const found = /^\s*([0-9.]+)\s*([kmgtp]?)(?:i?b)?\s*$/i.exec(String(value));
  const number = found ? Number(found[1]) * SIZES[found[2]!.toLowerCase()]! : NaN;
  if (!Number.isFinite(number)) throw new Unreadable(field, '8G, 512M');
  return Math.round(number);
}

const SECONDS: Record<string, number> = { d: 86_400, h: 3600, m: 60, s: 1 };

export function seconds(value: unknown, field: string): number {
  if (typeof value === 'number') return value;
  const text = String(value).trim();
  if (/^\d+$/.test(text)) return Number(text);
  const clock = /^(?:(\d+)-)?(\d+):(\d\d)(?::(\d\d))?$/.exec(text);
  if (clock) {
    const [, days, first, second, third] = clock;
    const base = Number(days ?? 0) * 86_400;
    return third === undefined ? base + Number(first) * 60 + Number(second) : base + Number(first) * 3600 + Number(second) * 60 + Number(third);
  }
  const parts = [...text.matchAll(/(\d+(?:\.\d+)?)\s*([dhms])/gi)];
  if (!parts.length || parts.map((part) => part[0]).join('').length !== text.replace(/\s+(?=[\d])/g, '').length) throw new Unreadable(field, '90, 15m, 2h30m, 1-12:00:00');
  return Math.round(parts.reduce((sum, part) => sum + Number(part[1]) * SECONDS[part[2]!.toLowerCase()]!, 0));
}

function list(value: unknown): string[] {
  return Array.isArray(value) ? value.map(String) : String(value).split(',').map((one) => one.trim()).filter(Boolean);
}

function texts(value: unknown): Record<string, string> {
  if (value === null || typeof value !== 'object' || Array.isArray(value)) throw new Unreadable('env', 'NAME: value');
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, String(item ?? '')]));
}

function command(value: unknown): string[] {
  return Array.isArray(value) ? value.map(String) : ['/bin/sh', '-c', String(value)];
}

function gpus(value: unknown): Document {
  if (typeof value === 'number') return { count: value };
  if (typeof value === 'object' && value !== null) {
    const { memory, ...rest } = value as Document;
    return memory === undefined ? rest : { ...rest, memory_bytes: size(memory, 'gpus.memory') };
  }
  const [kind, number] = String(value).includes(':') ? String(value).split(':', 2) : ['', String(value)];
  if (!/^\d+$/.test(number ?? '')) throw new Unreadable('gpus', '2, a100:2');
  return kind ? { kind, count: Number(number) } : { count: Number(number) };
}

function array(value: unknown): Document {
  if (typeof value === 'number') return { size: value };
  if (typeof value === 'object' && value !== null) return value as Document;
  const text = String(value);
  if (/^\d+$/.test(text)) return { size: Number(text) };
  const range = /^(\d+)-(\d+)$/.exec(text);
  if (!range) throw new Unreadable('array', '100, 0-99');
  const [from, to] = [Number(range[1]), Number(range[2])];
  const count = to - from + 1;
  return from === 0 ? { size: count } : { size: count, values: { ISTHMUS_ARRAY_VALUE: Array.from({ length: Math.max(0, count) }, (_, index) => String(from + index)) } };
}

function input(value: unknown): Document {
  if (typeof value === 'object' && value !== null) {
    if ('file' in value) throw new Unreadable('inputs', 'isthmus submit');
    return value as Document;
  }
  const text = String(value);
  const data = /^data:([^=]+?)(?:=(.+))?$/.exec(text);
  if (data) return { data: data[1], path: data[2] ?? data[1]!.split(':').pop()!.split('/').pop()!.split('@')[0] };
  const url = /^((?:https?|s3):\/\/[^\s]+?)(?::([^:/][^:]*))?$/.exec(text);
  if (url) return { url: url[1], path: url[2] ?? url[1]!.split('?')[0]!.split('/').pop() };
  const site = /^site:\/\/([^/]+)(\/[^:]*)(?::(.+))?$/.exec(text);
  if (site) return { site_path: `${site[1]}:${site[2]}`, path: site[3] ?? site[2]!.split('/').pop() };
  throw new Unreadable('inputs', 'isthmus submit');
}

/** The entries of a list, of one value, or of a mapping by path. */
function paired(value: unknown, join: (path: string, other: string) => string): unknown[] {
  if (Array.isArray(value)) return value;
  if (typeof value !== 'object' || value === null) return [value];
  return Object.entries(value).map(([path, other]) => join(path, String(other ?? '')));
}

function output(value: unknown): Document {
  if (typeof value === 'object' && value !== null) return value as Document;
  const [path = '', to] = String(value).split(/=(.*)/s, 2);
  const made: Document = path.endsWith('/') ? { path: path.replace(/\/+$/, ''), directory: true } : { path };
  return to?.startsWith('data:') ? { ...made, data: to.slice(5) } : to && to.includes('://') ? { ...made, url: to } : made;
}

type Reader = (value: unknown) => unknown;
const as = (name: string): Reader => (value) => size(value, name);
const HUMAN: Record<string, [string[], Reader]> = {
  cpus: [['demand', 'cpus'], (value) => value],
  memory: [['demand', 'memory_bytes'], as('memory')],
  time: [['demand', 'walltime_seconds'], (value) => seconds(value, 'time')],
  nodes: [['demand', 'nodes'], (value) => value],
  tasks_per_node: [['demand', 'tasks_per_node'], (value) => value],
  gpus: [['demand', 'accelerators'], gpus],
  disk: [['demand', 'disk_bytes'], as('disk')],
  licences: [['demand', 'licences'], (value) => value],
  licenses: [['demand', 'licences'], (value) => value],
  goal: [['objective', 'goal'], String],
  weights: [['objective', 'weights'], (value) => value],
  deadline: [['objective', 'deadline'], (value) => {
    const moment = new Date(String(value));
    if (Number.isNaN(moment.getTime())) throw new Unreadable('deadline', '2026-11-26T18:00');
    return moment.toISOString();
  }],
  budget: [['objective', 'budget'], String],
  sites: [['constraints', 'sites_allow'], list],
  not_sites: [['constraints', 'sites_deny'], list],
  pools: [['constraints', 'pools_allow'], list],
  regions: [['constraints', 'regions_allow'], list],
  not_regions: [['constraints', 'regions_deny'], list],
  trust: [['constraints', 'trust'], String],
  apart: [['constraints', 'apart'], String],
  retries: [['max_attempts'], (value) => Number(value) + 1],
  after: [['depends_on'], (value) => list(value).map((one) => { const [task, condition] = one.split(':', 2); return condition ? { task, condition } : { task }; })],
  array: [['array'], array],
  over: [['together', 'parts'], (value) => value],
  together: [['together', 'name'], String],
  together_hold: [['together', 'hold_seconds'], (value) => seconds(value, 'together_hold')],
  env: [['env'], texts],
  secrets: [['secrets'], texts],
  tags: [['tags'], texts],
  site_options: [['backend_parameters'], texts],
  command: [['command'], command],
  script: [['command'], (value) => ['/bin/sh', '-e', '-c', String(value)]],
  inputs: [['inputs'], (value) => paired(value, (path, from) => (from.startsWith('data:') ? `${from}=${path}` : `${from}:${path}`)).map(input)],
  outputs: [['outputs'], (value) => paired(value, (path, to) => (to ? `${path}=${to}` : path)).map(output)],
};

/** The specification of a document; Unreadable names the key that cannot be read. `workdir` and local files need the command line. */
export function specOf(document: Document): Document {
  const spec: Document = {};
  for (const [key, value] of Object.entries(document)) {
    if (value === null || value === undefined || key === 'project') continue;
    const name = key.replaceAll('-', '_');
    if (name === 'workdir') throw new Unreadable('workdir', 'isthmus submit');
    const human = HUMAN[name];
    if (!human) {
      const before = spec[name];
      spec[name] = typeof value === 'object' && !Array.isArray(value) && before ? { ...(value as Document), ...(before as Document) } : value;
      continue;
    }
    const [place, read] = human;
    const [first, second] = place;
    if (second === undefined) spec[first!] = read(value);
    else spec[first!] = { ...(spec[first!] as Document | undefined), [second]: read(value) };
  }
  return spec;
}

const quote = (text: string) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`);
const FLAGS: Record<string, string> = {
  name: '--name', cpus: '--cpus', memory: '--memory', nodes: '--nodes', tasks_per_node: '--tasks-per-node', gpus: '--gpus', disk: '--disk', time: '--time', image: '--image', deadline: '--deadline', budget: '--budget', goal: '--goal', priority: '--priority', retries: '--retries', array: '--array', trust: '--trust',
};
const LISTS: Record<string, string> = { sites: '--site', not_sites: '--not-site', pools: '--pool', regions: '--region', not_regions: '--not-region', after: '--after', inputs: '--in', outputs: '--out' };
const MAPS: Record<string, string> = { env: '--env', tags: '--tag', secrets: '--secret' };
const SWITCHES: Record<string, string> = { hold: '--hold', retry_on_exit: '--retry-on-exit' };

/** The command line that submits the same; where flags do not say it all, one with the file on its standard input. */
export function commandLine(document: Document, yaml: string, project: string): string {
  const parts = ['isthmus submit'];
  if (project && project !== 'default') parts.push(`--project ${quote(project)}`);
  let tail = '';
  for (const [key, value] of Object.entries(document)) {
    if (value === null || value === undefined || key === 'project') continue;
    const plain = typeof value === 'string' || typeof value === 'number';
    if (key === 'command') tail = (typeof value === 'string' ? ['/bin/sh', '-c', value] : (value as unknown[]).map(String)).map(quote).join(' ');
    else if (FLAGS[key] && plain) parts.push(`${FLAGS[key]} ${quote(String(value))}`);
    else if (LISTS[key] && list(value).every((one) => !one.includes('[object'))) for (const one of list(value)) parts.push(`${LISTS[key]} ${quote(one)}`);
    else if (MAPS[key] && typeof value === 'object') for (const [name, item] of Object.entries(value)) parts.push(`${MAPS[key]} ${quote(`${name}=${String(item)}`)}`);
    else if (SWITCHES[key] && value === true) parts.push(SWITCHES[key]!);
    else if (value !== false) return `cat > task.yaml <<'EOF'\n${yaml.trimEnd()}\nEOF\n${parts[0]}${project && project !== 'default' ? ` --project ${quote(project)}` : ''} task.yaml`;
  }
  return `${parts.join(' ')}${tail ? ` -- ${tail}` : ''}`;
}

function python(value: unknown): string {
  if (value === true) return 'True';
  if (value === false) return 'False';
  if (value === null || value === undefined) return 'None';
  if (Array.isArray(value)) return `[${value.map(python).join(', ')}]`;
  if (typeof value === 'object') return `{${Object.entries(value).map(([key, item]) => `${JSON.stringify(key)}: ${python(item)}`).join(', ')}}`;
  return JSON.stringify(value);
}

/** The same as Python. */
export function pythonCode(document: Document, project: string): string {
  const { command: what, project: _, ...rest } = document;
  const words = [...(what === undefined ? [] : [python(what)]), ...Object.entries(rest).filter(([, value]) => value !== null && value !== undefined).map(([key, value]) => `${key}=${python(value)}`)];
  return `from isthmus import Client\n\nwith Client(${project && project !== 'default' ? `project=${python(project)}` : ''}) as client:\n    task = client.submit(${words.join(', ')})\n    print(task.result())\n`;
}
