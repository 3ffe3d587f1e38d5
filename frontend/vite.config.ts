import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vite';

// Names by content and nothing of the machine that builds, so that the same sources give the same files.
export default defineConfig({
  base: './',
  plugins: [svelte()],
  build: {
    outDir: process.env.CONSOLE_OUT ?? '../src/isthmus/console/static',
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: 'es2022',
    sourcemap: false,
    // What pages share is one file beside the first: fewer calls before something is seen.
    rolldownOptions: { output: { codeSplitting: { groups: [{ name: 'shared', test: /src\/(parts\/(Bones|Confirm|Copy|Fault|State|Figure|Rows)|lib|words)/, minShareCount: 2 }] } } },
  },
  server: { proxy: { '/v1': process.env.ISTHMUS_URL ?? 'http://127.0.0.1:8800' } },
});
