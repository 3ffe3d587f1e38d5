// The pages: where each is, what it is called, for whom, and how it is loaded.
import type { Component } from 'svelte';
import { session } from './session.svelte';
import type { Word } from './words.svelte';

export interface Place {
  path: string;
  word: Word;
  shown: () => boolean;
  page: () => Promise<{ default: Component }>;
}

const always = () => true;

export const places: Place[] = [
  { path: '', word: 'place.overview', shown: always, page: () => import('../pages/Overview.svelte') },
  { path: 'tasks', word: 'place.tasks', shown: always, page: () => import('../pages/Tasks.svelte') },
  { path: 'submit', word: 'place.submit', shown: () => session.submits, page: () => import('../pages/Submit.svelte') },
  { path: 'sites', word: 'place.sites', shown: always, page: () => import('../pages/Sites.svelte') },
  { path: 'network', word: 'place.network', shown: always, page: () => import('../pages/Network.svelte') },
  { path: 'data', word: 'place.data', shown: always, page: () => import('../pages/Data.svelte') },
  { path: 'twin', word: 'place.twin', shown: always, page: () => import('../pages/Twin.svelte') },
];
