import { ApolloLink } from "@apollo/client";
import { map } from "rxjs";
import { keepNewest } from "./keep-newest.js";

/** Before every link that fetches or subscribes: `keepNewestLink().split(isSubscription, ws, http)`. */
export function keepNewestLink() {
  const keep = keepNewest();
  return new ApolloLink((operation, forward) =>
    forward(operation).pipe(map((result) => (result.data ? { ...result, data: keep(result.data) } : result))),
  );
}
