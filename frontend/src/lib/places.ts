// The pages: where each is, what it is called, for whom, and how it is loaded.
import type { Component } from 'svelte';
import { session } from './session.svelte';
import type { Word } from './words.svelte';

export interface Place {
  path: string;
  word: Word;
  shown: () => boolean;
  page: () => Promise<{ default: Component }>;
  asks?: string[]; // what it asks the service first when it is opened without a filter
}

const always = () => true;

export const places: Place[] = [
  { path: '', word: 'place.overview', shown: always, page: () => import('../pages/Overview.svelte'), asks: ['/v1/sites?limit=1000', '/v1/network', '/v1/network/reservations', '/v1/tasks:counts', '/v1/tasks:holding'] },
  { path: 'tasks', word: 'place.tasks', shown: always, page: () => import('../pages/Tasks.svelte'), asks: ['/v1/tasks?limit=250'] },
  { path: 'submit', word: 'place.submit', shown: () => session.submits, page: () => import('../pages/Submit.svelte') },
  { path: 'sites', word: 'place.sites', shown: always, page: () => import('../pages/Sites.svelte') },
  { path: 'network', word: 'place.network', shown: always, page: () => import('../pages/Network.svelte') },
  { path: 'data', word: 'place.data', shown: always, page: () => import('../pages/Data.svelte') },
  { path: 'twin', word: 'place.twin', shown: always, page: () => import('../pages/Twin.svelte') },
];
