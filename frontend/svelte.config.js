import { vitePreprocess } from '@sveltejs/vite-plugin-svelte';

export default { preprocess: vitePreprocess(), compilerOptions: { runes: true, warningFilter: (one) => one.code !== "a11y_no_noninteractive_tabindex" } };
