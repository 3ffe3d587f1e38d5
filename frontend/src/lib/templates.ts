// What a new task may start from.
import type { Document } from './taskfile';

export const TEMPLATES = {
  plain: { name: 'hello', command: 'echo hello from $(hostname)', cpus: 1, memory: '512M', time: '10m' },
  sweep: { name: 'sweep', command: 'echo "rate $RATE"', cpus: 1, memory: '1G', time: '1h', array: { size: 4, values: { RATE: ['0.1', '0.03', '0.01', '0.003'] } } },
  mpi: { name: 'mpi', command: 'srun ./simulate', nodes: 4, tasks_per_node: 32, cpus: 1, memory: '64G', time: '4h' },
  gpu: { name: 'train', command: 'python train.py --epochs 10', cpus: 8, memory: '64G', gpus: 1, time: '12h', outputs: ['model/'], retries: 2 },
  container: { name: 'in a container', command: ['python3', '-c', 'print(6 * 7)'], image: 'python:3.12-slim', cpus: 1, memory: '1G', time: '10m' },
} satisfies Record<string, Document>;

export type Template = keyof typeof TEMPLATES;
