// Where nodes stand on the schematic map: at their coordinates where these are declared, otherwise laid out by their links,
// the same way each time.
export interface Spot {
  name: string;
  kind: string;
  x: number;
  y: number;
}

interface Node {
  name: string;
  kind: string;
  longitude?: number | null;
  latitude?: number | null;
}

export function layOut(nodes: Node[], edges: { source: string; target: string }[], wide: number, tall: number): Spot[] {
  const margin = 46;
  const known = nodes.filter((node) => node.longitude != null && node.latitude != null);
  if (known.length === nodes.length && nodes.length > 1) return byPlace(nodes, wide, tall, margin);
  const sorted = [...nodes].sort((a, b) => a.kind.localeCompare(b.kind) || a.name.localeCompare(b.name));
  const at = sorted.map((_, index) => {
    const angle = (index / Math.max(1, sorted.length)) * 2 * Math.PI - Math.PI / 2;
    return { x: Math.cos(angle), y: Math.sin(angle) };
  });
  const index = new Map(sorted.map((node, i) => [node.name, i]));
  const pairs = edges.map((edge) => [index.get(edge.source), index.get(edge.target)] as const).filter((pair): pair is readonly [number, number] => pair[0] !== undefined && pair[1] !== undefined && pair[0] !== pair[1]);
  if (pairs.length) settle(at, pairs);
  const xs = at.map((spot) => spot.x);
  const ys = at.map((spot) => spot.y);
  return sorted.map((node, i) => ({ name: node.name, kind: node.kind, x: scaled(at[i]!.x, xs, margin, wide), y: scaled(at[i]!.y, ys, margin, tall) }));
}

function byPlace(nodes: Node[], wide: number, tall: number, margin: number): Spot[] {
  const xs = nodes.map((node) => node.longitude!);
  const ys = nodes.map((node) => -node.latitude!);
  return nodes.map((node) => ({ name: node.name, kind: node.kind, x: scaled(node.longitude!, xs, margin, wide), y: scaled(-node.latitude!, ys, margin, tall) }));
}

function scaled(value: number, all: number[], margin: number, size: number): number {
  const least = Math.min(...all);
  const most = Math.max(...all);
  return most - least < 1e-9 ? size / 2 : margin + ((value - least) / (most - least)) * (size - 2 * margin);
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
