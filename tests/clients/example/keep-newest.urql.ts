import { mapExchange } from "@urql/core";
import { keepNewest } from "./keep-newest.js";

/** Between the cache and what fetches or subscribes: `[cacheExchange(..), keepNewestExchange(), fetchExchange]`. */
export function keepNewestExchange() {
  const keep = keepNewest();
  return mapExchange({ onResult: (result) => ({ ...result, data: keep(result.data) }) });
}
