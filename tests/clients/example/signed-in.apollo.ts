import { CombinedGraphQLErrors, CombinedProtocolErrors } from "@apollo/client";
import { SetContextLink } from "@apollo/client/link/context";
import { ErrorLink } from "@apollo/client/link/error";
import { from, mergeMap } from "rxjs";

export type Tokens = { accessToken: string; refreshToken: string };
type Session = { tokens: Tokens; renewal?: Promise<void> | undefined };
type Context = { headers?: Header; session?: Session; isRefresh?: boolean };
type Header = { authorization?: string };

/** Sends the access token along, and gets the next one where it has run out: once, however many find that out. */
export class SignedIn {
  #session: Session | undefined;

  /**
   * `refresh` trades a refresh token for the next tokens, or for none where the session is over. Where it goes through
   * `link()` itself it has `context: { isRefresh: true }`, or it would wait for itself.
   */
  constructor(readonly refresh: (refreshToken: string) => Promise<Tokens | undefined>) {}

  /** What a sign-up or sign-in told, or nothing more after a logout. */
  set tokens(tokens: Tokens | undefined) {
    this.#session = tokens && { tokens };
  }

  /** Before the link that fetches: `signedIn.link().concat(new HttpLink({ uri }))`. */
  link() {
    const again = new ErrorLink(({ error, operation, forward }) => {
      const { session, headers, isRefresh } = operation.getContext() as Context;
      if (!session || isRefresh || !isUnauthenticated(error)) return;
      const renewed = this.#renew(session, headers?.authorization).then(() => {
        // Somebody else may be signed in by now, or nobody: it was not theirs to ask.
        if (this.#session !== session) throw error;
      });
      return from(renewed).pipe(mergeMap(() => forward(operation)));
    });
    const send = new SetContextLink(({ headers }) => {
      return { headers: { ...headers, ...header(this.#session) }, session: this.#session };
    });
    return again.concat(send);
  }

  /** For sockets that do more than watch: `createClient({ url, ...signedIn.socket() })`. */
  socket() {
    let session: Session | undefined;
    let sent: Header = {};
    return {
      connectionParams: async () => {
        await this.#session?.renewal?.catch(() => {});
        session = this.#session;
        sent = header(session);
        return sent;
      },
      // graphql-ws connects again by itself. Where no token was to be had it is closed again, and tried again.
      on: {
        closed: (event: unknown) => {
          if (session && (event as CloseEvent).code === 4403) this.#renew(session, sent.authorization).catch(() => {});
        },
      },
    };
  }

  /** Unless the token that was sent is not the newest any more. */
  async #renew(session: Session, sent: string | undefined) {
    if (sent !== header(session).authorization) return;
    session.renewal ??= this.refresh(session.tokens.refreshToken)
      .then((next) => {
        if (next) session.tokens = next;
        else if (this.#session === session) this.#session = undefined;
      })
      .finally(() => (session.renewal = undefined));
    await session.renewal;
  }
}

function header(session: Session | undefined): Header {
  return session ? { authorization: `Bearer ${session.tokens.accessToken}` } : {};
}

/** Also of a stream over HTTP whose token has run out. */
function isUnauthenticated(error: unknown) {
  const known = CombinedGraphQLErrors.is(error) || CombinedProtocolErrors.is(error);
  return known && error.errors.some(({ extensions }) => extensions?.["code"] === "UNAUTHENTICATED");
}
