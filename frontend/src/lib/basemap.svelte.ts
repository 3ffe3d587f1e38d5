// The operator's picture behind the map, fetched once; an image, so that nothing in it runs.
import { bytes, type Schemas } from './api';

class Basemap {
  url = $state('');
  #asked = false;

  /** Fetch it, when the network says that there is one. */
  want(edges: Schemas['NetBasemap'] | null | undefined): void {
    if (!edges || this.#asked) return;
    this.#asked = true;
    bytes('/v1/network/basemap')
      .then(async (response) => (this.url = URL.createObjectURL(await response.blob())))
      .catch(() => {}); // the map does without
  }
}

export const basemap = new Basemap();
