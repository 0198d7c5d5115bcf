// Signs in and stays so, watches a drop and buys a pair of it: Apollo Client, with documents typed by graphql-codegen.
import { ApolloClient, CombinedGraphQLErrors, HttpLink, InMemoryCache } from "@apollo/client";
import type { OperationVariables, TypedDocumentNode } from "@apollo/client";
import { GraphQLWsLink } from "@apollo/client/link/subscriptions";
import { OperationTypeNode } from "graphql";
import { createClient } from "graphql-ws";
import { graphql } from "./gql/index.js";
import type { StockFragment } from "./gql/graphql.js";
import { keepNewestLink } from "./keep-newest.apollo.js";
import { SignedIn } from "./signed-in.apollo.js";

// Everything that shows a drop selects this, so that each answer and each event brings the whole page up to date.
graphql(`
  fragment Stock on Drop {
    id
    stockVersion
    status
    availableStock
    heldStock
    soldStock
    sizes { id size availableStock }
  }
`);

const SignIn = graphql(`
  mutation SignIn($input: LoginInput!) {
    login(input: $input) {
      session { accessToken refreshToken viewer { id user { id username } } }
      userErrors { code message }
    }
  }
`);

const Refresh = graphql(`
  mutation Refresh($input: RefreshInput!) {
    refresh(input: $input) {
      session { accessToken refreshToken }
      userErrors { code }
    }
  }
`);

const Page = graphql(`query Page($dropId: ID!) { drop(id: $dropId) { name price { amount currency } ...Stock } }`);

const Watch = graphql(`subscription Watch($dropId: ID!) { stockUpdated(dropId: $dropId) { drop { ...Stock } } }`);

const Reserve = graphql(`
  mutation Reserve($input: ReserveInput!) {
    reserve(input: $input) {
      reservation { id pairNumber expiresAt }
      drop { ...Stock }
      serverTime
      userErrors { code message }
    }
  }
`);

const Purchase = graphql(`
  mutation Purchase($input: PurchaseInput!) {
    purchase(input: $input) {
      purchase { id size pairNumber purchasedAt price { amount currency } }
      drop { ...Stock }
      userErrors { code message }
    }
  }
`);

/** An expected refusal: branch on `code`. */
export class Refused<Code extends string> extends Error {
  constructor(readonly code: Code, message: string) {
    super(message);
  }
}

/** A mutation did what was asked if and only if `userErrors` is empty. */
function check<Code extends string>(userErrors: { code: Code; message: string }[]) {
  const [first] = userErrors;
  if (first) throw new Refused(first.code, first.message);
}

/** Tries again while nobody knows what became of it: only for what is the same however often it is asked. */
async function settled<Answer>(ask: () => Promise<Answer>): Promise<Answer> {
  for (let tries = 1; ; tries++) {
    try {
      return await ask();
    } catch (error) {
      if (error instanceof Refused || tries === 5) throw error;
      const told = CombinedGraphQLErrors.is(error) ? error.errors[0]?.extensions : { code: "UNAVAILABLE" };
      if (told?.["code"] !== "UNAVAILABLE" && told?.["code"] !== "OVERLOADED") throw error;
      await new Promise((resume) => setTimeout(resume, Number(told["retryAfterMs"] ?? 200 * tries)));
    }
  }
}

export class Shop {
  readonly client: ApolloClient;
  // Lives as long as the page. Whoever keeps the refresh token for longer makes it a prize for injected scripts.
  readonly signedIn = new SignedIn(async (refreshToken) => {
    const { refresh } = await this.#do(Refresh, { input: { refreshToken } }, { isRefresh: true });
    return refresh.session ?? undefined;
  });

  constructor(uri: string, options: { fetch?: typeof fetch; webSocketImpl?: unknown } = {}) {
    // The stock is public: the socket needs no token.
    const ws = createClient({ url: uri.replace("http", "ws"), webSocketImpl: options.webSocketImpl });
    this.client = new ApolloClient({
      cache: new InMemoryCache(),
      link: keepNewestLink().split(
        ({ operationType }) => operationType === OperationTypeNode.SUBSCRIPTION,
        new GraphQLWsLink(ws),
        this.signedIn.link().concat(new HttpLink({ uri, fetch: options.fetch ?? fetch })),
      ),
    });
  }

  async signIn(email: string, password: string) {
    const { login } = await this.#do(SignIn, { input: { email, password } });
    check(login.userErrors);
    this.signedIn.tokens = login.session ?? undefined;
  }

  /** Shows the stock now and after each change, until what it returns is called. */
  watch(dropId: string, show: (drop: StockFragment) => void, fail: (error: unknown) => void = console.error) {
    const page = this.client.watchQuery({ query: Page, variables: { dropId } }).subscribe(({ data, dataState }) => {
      if (dataState === "complete" && data.drop) show(data.drop);
    });
    // Events change the cache, and the cache tells the page. Of a drop that is not there the socket says so.
    const events = this.client.subscribe({ query: Watch, variables: { dropId } }).subscribe(({ error }) => {
      if (error) fail(error);
    });
    return () => [page, events].forEach((each) => each.unsubscribe());
  }

  /** What one click on "buy" does. */
  async buy(dropId: string, size: string) {
    // One key per click, the same on each retry: the retry gets the first reservation.
    const wanted = { dropId, size, idempotencyKey: crypto.randomUUID() };
    const { reserve } = await settled(() => this.#do(Reserve, { input: wanted }));
    check(reserve.userErrors);
    const hold = { reservationId: reserve.reservation?.id ?? "" };
    const { purchase } = await settled(() => this.#do(Purchase, { input: hold }));
    check(purchase.userErrors);
    return purchase.purchase;
  }

  async #do<Data, Variables extends OperationVariables>(
    mutation: TypedDocumentNode<Data, Variables>,
    variables: NoInfer<Variables>,
    context = {},
  ) {
    const { data } = await this.client.mutate<Data>({ mutation, variables, context });
    return data as Data;
  }
}
