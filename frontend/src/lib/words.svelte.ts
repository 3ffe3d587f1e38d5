// The words of the page in the person's language, one catalogue for each; the types see to it that each is complete.
import { en } from '../words/en';
import { zh } from '../words/zh';

export type Word = keyof typeof en;
export type Language = 'en' | 'zh-CN';
const KEY = 'isthmus.language';
const CATALOGUES: Record<Language, Record<Word, string>> = { en, 'zh-CN': zh };

function first(): Language {
  const kept = localStorage.getItem(KEY);
  if (kept === 'en' || kept === 'zh-CN') return kept;
  return navigator.languages.some((language) => language.toLowerCase().startsWith('zh')) &&
    !navigator.languages[0]?.toLowerCase().startsWith('en')
    ? 'zh-CN'
    : 'en';
}

class Words {
  language = $state<Language>(first());

  choose(language: Language): void {
    this.language = language;
    localStorage.setItem(KEY, language);
    document.documentElement.lang = language;
  }
}

export const words = new Words();
document.documentElement.lang = words.language;

/** A message, with {names} filled in. */
export function t(word: Word, values: Record<string, string | number> = {}): string {
  return CATALOGUES[words.language][word].replace(/\{(\w+)\}/g, (all, name: string) => String(values[name] ?? all));
}

/** The word of a value of the API, such as a state; the value itself where there is none. */
export function named(group: string, value: string): string {
  const word = `${group}.${value}`;
  return word in en ? t(word as Word) : value.replaceAll('_', ' ');
}
