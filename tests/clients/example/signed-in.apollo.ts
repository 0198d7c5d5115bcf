import { CombinedGraphQLErrors } from "@apollo/client";
import { SetContextLink } from "@apollo/client/link/context";
import { ErrorLink } from "@apollo/client/link/error";
import { from, mergeMap } from "rxjs";

export type Tokens = { accessToken: string; refreshToken: string };

/** Sends the access token along, and gets the next one where it has run out: once, however many find that out. */
export class SignedIn {
  #tokens: Tokens | undefined;
  #renewal: Promise<void> | undefined;

  /** `refresh` trades a refresh token for the next tokens, or for none where the session is over. */
  constructor(readonly refresh: (refreshToken: string) => Promise<Tokens | undefined>) {}

  /** What a sign-up or sign-in told, or nothing more after a logout. */
  set tokens(tokens: Tokens | undefined) {
    this.#tokens = tokens;
  }

  /** Before the link that fetches: `signedIn.link().concat(new HttpLink({ uri }))`. */
  link() {
    const again = new ErrorLink(({ error, operation, forward }) => {
      const codes = CombinedGraphQLErrors.is(error) ? error.errors.map(({ extensions }) => extensions?.["code"]) : [];
      if (!this.#tokens || !codes.includes("UNAUTHENTICATED")) return;
      return from(this.#renew(operation.getContext()["headers"]?.authorization)).pipe(mergeMap(() => forward(operation)));
    });
    const send = new SetContextLink(({ headers }) => ({ headers: { ...headers, ...this.#header() } }));
    return again.concat(send);
  }

  /** For sockets that do more than watch: `createClient({ url, ...signedIn.socket() })`. */
  socket() {
    let sent: string | undefined;
    return {
      connectionParams: async () => {
        await this.#renewal;
        const header = this.#header();
        sent = header.authorization;
        return header;
      },
      // graphql-ws connects again by itself, a second later.
      on: { closed: (event: unknown) => void ((event as CloseEvent).code === 4403 && this.#renew(sent)) },
    };
  }

  #header(): { authorization?: string } {
    return this.#tokens ? { authorization: `Bearer ${this.#tokens.accessToken}` } : {};
  }

  /** Unless the token that was sent is not the newest any more. */
  async #renew(sent: string | undefined) {
    const tokens = this.#tokens;
    if (!tokens || sent !== this.#header().authorization) return;
    this.#renewal ??= this.refresh(tokens.refreshToken)
      .then((next) => void (this.#tokens = next))
      .finally(() => (this.#renewal = undefined));
    await this.#renewal;
  }
}
