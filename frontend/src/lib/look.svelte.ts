// Light or dark: as the device says, until the person chooses.
const KEY = 'isthmus.theme';

class Look {
  dark = $state(false);

  constructor() {
    const wish = window.matchMedia('(prefers-color-scheme: dark)');
    const kept = localStorage.getItem(KEY);
    this.dark = kept ? kept === 'dark' : wish.matches;
    if (kept) document.documentElement.dataset.theme = kept;
    wish.addEventListener('change', () => {
      if (!localStorage.getItem(KEY)) this.dark = wish.matches;
    });
  }

  turn(): void {
    this.dark = !this.dark;
    const theme = this.dark ? 'dark' : 'light';
    localStorage.setItem(KEY, theme);
    document.documentElement.dataset.theme = theme;
  }
}

export const look = new Look();
