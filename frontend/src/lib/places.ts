// The pages: where each is, what it is called, for whom, and how it is loaded.
import type { Component } from 'svelte';
import type { Word } from './words.svelte';

export interface Place {
  path: string;
  word: Word;
  shown: () => boolean;
  page: () => Promise<{ default: Component }>;
}

const always = () => true;

export const places: Place[] = [
  { path: '', word: 'place.tasks', shown: always, page: () => import('../pages/Tasks.svelte') },
  { path: 'tasks', word: 'place.tasks', shown: always, page: () => import('../pages/Tasks.svelte') },
];
