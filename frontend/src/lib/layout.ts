// Where nodes stand on the schematic map: at their coordinates where these are declared, the others beside those that they are
// joined to; without coordinates laid out by their links, the same way each time.
export interface Spot {
  name: string;
  kind: string;
  x: number;
  y: number;
}

/** The degrees at the edges of a picture in an equirectangular projection. */
export interface Edges {
  west: number;
  south: number;
  east: number;
  north: number;
}

export interface Box {
  x: number;
  y: number;
  width: number;
  height: number;
}

interface Node {
  name: string;
  kind: string;
  longitude?: number | null;
  latitude?: number | null;
}

const MARGIN = 46;
type Pair = { source: string; target: string };

/** The spots of the nodes, and where a picture with these edges lies behind them. */
export function layOut(nodes: Node[], edges: Pair[], wide: number, tall: number, picture: Edges | null = null): { spots: Spot[]; box: Box | null } {
  const known = nodes.filter((node) => node.longitude != null && node.latitude != null);
  if (known.length > 1 || (known.length === 1 && picture)) return byPlace(nodes, known, edges, wide, tall, picture);
  const sorted = [...nodes].sort((a, b) => a.kind.localeCompare(b.kind) || a.name.localeCompare(b.name));
  const at = sorted.map((_, index) => {
    const angle = (index / Math.max(1, sorted.length)) * 2 * Math.PI - Math.PI / 2;
    return { x: Math.cos(angle), y: Math.sin(angle) };
  });
  const index = new Map(sorted.map((node, i) => [node.name, i]));
  const pairs = edges.map((edge) => [index.get(edge.source), index.get(edge.target)] as const).filter((pair): pair is readonly [number, number] => pair[0] !== undefined && pair[1] !== undefined && pair[0] !== pair[1]);
  if (pairs.length) settle(at, pairs);
  const [across, down] = [scale(at.map((spot) => spot.x), wide), scale(at.map((spot) => spot.y), tall)];
  return { spots: sorted.map((node, i) => ({ name: node.name, kind: node.kind, x: across(at[i]!.x), y: down(at[i]!.y) })), box: null };
}

function byPlace(nodes: Node[], known: Node[], edges: Pair[], wide: number, tall: number, picture: Edges | null): { spots: Spot[]; box: Box | null } {
  let across = scale(known.map((node) => node.longitude!), wide);
  let down = scale(known.map((node) => -node.latitude!), tall);
  if (picture) {
    // A degree of latitude is as long everywhere, one of longitude shorter by its latitude.
    const [west, east] = span(known.map((node) => node.longitude!));
    const [south, north] = span(known.map((node) => node.latitude!));
    const short = Math.max(0.2, Math.cos((((north + south) / 2) * Math.PI) / 180));
    const unit = Math.min((wide - 2 * MARGIN) / Math.max(2, (east - west) * short), (tall - 2 * MARGIN) / Math.max(2, north - south));
    across = (value) => wide / 2 + (value - (west + east) / 2) * short * unit;
    down = (value) => tall / 2 + (value + (south + north) / 2) * unit;
  }
  const found = new Map<string, Spot>(known.map((node) => [node.name, { name: node.name, kind: node.kind, x: across(node.longitude!), y: down(-node.latitude!) }]));
  let left = nodes.filter((node) => !found.has(node.name));
  for (let round = 0; left.length && round < nodes.length; round += 1) {
    const beside = left.map((node) => {
      const near = edges.filter((edge) => edge.source === node.name || edge.target === node.name).map((edge) => found.get(edge.source === node.name ? edge.target : edge.source));
      return { node, near: [...new Set(near.filter((spot): spot is Spot => spot !== undefined))] };
    });
    for (const { node, near } of beside) {
      if (near.length === 0) continue;
      const mean = (axis: 'x' | 'y') => near.reduce((sum, spot) => sum + spot[axis], 0) / near.length;
      found.set(node.name, { name: node.name, kind: node.kind, x: within(mean('x') + (near.length > 1 ? 0 : 60), wide), y: within(mean('y') + (near.length > 1 ? 0 : 40), tall) });
    }
    left = left.filter((node) => !found.has(node.name));
    if (beside.every(({ near }) => near.length === 0)) break;
  }
  left.forEach((node, at) => found.set(node.name, { name: node.name, kind: node.kind, x: MARGIN + ((at + 0.5) / left.length) * (wide - 2 * MARGIN), y: tall - MARGIN }));
  const box = picture && { x: across(picture.west), y: down(-picture.north), width: across(picture.east) - across(picture.west), height: down(-picture.south) - down(-picture.north) };
  return { spots: nodes.map((node) => found.get(node.name)!), box };
}

const within = (value: number, size: number) => Math.max(MARGIN, Math.min(size - MARGIN, value));

function span(all: number[]): [number, number] {
  return [Math.min(...all), Math.max(...all)];
}

function scale(all: number[], size: number): (value: number) => number {
  const [least, most] = span(all);
  return (value) => (most - least < 1e-9 ? size / 2 : MARGIN + ((value - least) / (most - least)) * (size - 2 * MARGIN));
}

function settle(at: { x: number; y: number }[], pairs: (readonly [number, number])[]): void {
  const count = at.length;
  if (count > 200) return;
  const want = 1.6 / Math.sqrt(count);
  for (let round = 0; round < 150; round += 1) {
    const heat = 0.12 * (1 - round / 150);
    const push = at.map(() => ({ x: 0, y: 0 }));
    for (let i = 0; i < count; i += 1)
      for (let j = i + 1; j < count; j += 1) {
        const dx = at[i]!.x - at[j]!.x;
        const dy = at[i]!.y - at[j]!.y;
        const far = Math.max(0.01, Math.hypot(dx, dy));
        const force = (want * want) / (far * far);
        push[i]!.x += dx * force;
        push[i]!.y += dy * force;
        push[j]!.x -= dx * force;
        push[j]!.y -= dy * force;
      }
    for (const [i, j] of pairs) {
      const dx = at[i]!.x - at[j]!.x;
      const dy = at[i]!.y - at[j]!.y;
      const pull = Math.hypot(dx, dy) / want;
      push[i]!.x -= dx * pull;
      push[i]!.y -= dy * pull;
      push[j]!.x += dx * pull;
      push[j]!.y += dy * pull;
    }
    for (let i = 0; i < count; i += 1) {
      const far = Math.max(1e-6, Math.hypot(push[i]!.x, push[i]!.y));
      const step = Math.min(far, heat) / far;
      at[i]!.x += push[i]!.x * step;
      at[i]!.y += push[i]!.y * step;
    }
  }
}
