// The example for frontends, compiled and used: what README shows is what runs here.
import assert from "node:assert/strict";
import { EventEmitter, on } from "node:events";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { ApolloClient, ApolloLink, HttpLink, InMemoryCache, gql } from "@apollo/client";
import { GraphQLWsLink } from "@apollo/client/link/subscriptions";
import { Client, fetchExchange, subscriptionExchange } from "@urql/core";
import { cacheExchange } from "@urql/exchange-graphcache";
import { createClient } from "graphql-ws";
import WebSocket from "ws";
import { compile, generate, readExample } from "./example.mjs";
import { CANCEL, PASSWORD, RESERVE, ask, liveDrop, signIn, startServer } from "./server.mjs";

// Apollo's link looks for a browser's when a socket tells an error; Node.js has one since 22.
globalThis.WebSocket ??= WebSocket;
await compile();
const { Refused, Shop } = await import("./example/built/buy.js");
const { SignedIn } = await import("./example/built/signed-in.apollo.js");
const { keepNewest } = await import("./example/built/keep-newest.js");
const { keepNewestLink } = await import("./example/built/keep-newest.apollo.js");
const { keepNewestExchange } = await import("./example/built/keep-newest.urql.js");
const base = await startServer();
const uri = `${base}/graphql`;
const token = await signIn(base, "june");
const { id } = await liveDrop(base);
const numbers = ({ stockVersion, availableStock, heldStock }) => ({ stockVersion, availableStock, heldStock });

test("codegen refuses what the schema does not have", async () => {
  const wrong = (await readExample("buy.ts")).replace("heldStock", "heldPairs");
  await assert.rejects(generate(wrong), /Cannot query field "heldPairs" on type "Drop"/);
});

test("the example signs in, watches and buys, once, although first answers are lost", async () => {
  let asked = 0;
  const shop = new Shop(uri, {
    webSocketImpl: WebSocket,
    fetch: async (url, init) => {
      const answer = await fetch(url, init);
      if (/reserve|purchase/.test(init.body) && ++asked % 2) throw new TypeError("the answer was lost");
      return answer;
    },
  });
  const refused = (error) => error instanceof Refused && error.code === "INVALID_CREDENTIALS";
  await assert.rejects(shop.signIn("noor@sneaker-drop.example", "not the password"), refused);
  await shop.signIn("noor@sneaker-drop.example", PASSWORD);

  const pages = new EventEmitter();
  const shown = on(pages, "drop");
  const stop = shop.watch(id, (drop) => pages.emit("drop", drop));
  const [before] = (await shown.next()).value;
  assert.equal((await shop.buy(id, "US 9")).size, "US 9");
  // One hold and one purchase: two versions.
  for await (const [now] of shown) {
    if (now.stockVersion < before.stockVersion + 2) continue;
    assert.deepEqual(numbers(now), {
      stockVersion: before.stockVersion + 2,
      availableStock: before.availableStock - 1,
      heldStock: before.heldStock,
    });
    assert.equal(now.soldStock, before.soldStock + 1);
    break;
  }
  assert.equal(asked, 4);
  stop();
  shop.client.stop();
});

test("the example says that there is no such drop", async () => {
  const shop = new Shop(uri, { webSocketImpl: WebSocket });
  const told = new Promise((fail) => shop.watch("drop_none", () => {}, fail));
  assert.equal((await told).errors[0].extensions.code, "NOT_FOUND");
  shop.client.stop();
});

/** Trades refresh tokens, and writes down which. */
function trader(before = async () => {}) {
  const traded = [];
  const refresh = async (refreshToken) => {
    traded.push(refreshToken);
    await before(traded.length);
    const query = `mutation($input: RefreshInput!) { refresh(input: $input) { session { accessToken refreshToken } } }`;
    return (await ask(base, query, { input: { refreshToken } })).refresh.session ?? undefined;
  };
  return { traded, signedIn: new SignedIn(refresh) };
}

/** Tokens of a new session; with `accessToken` in place of the one that is good. */
async function tokens(name, accessToken) {
  const query = `mutation($input: LoginInput!) { login(input: $input) { session { accessToken refreshToken } } }`;
  const input = { email: `${name}@sneaker-drop.example`, password: PASSWORD };
  return { ...(await ask(base, query, { input })).login.session, ...(accessToken && { accessToken }) };
}

const VIEWER = gql`query Viewer { viewer { user { id username } } }`;

/** Asks through `signedIn` who is signed in. */
function asking(signedIn, options) {
  const link = signedIn.link().concat(new HttpLink({ uri, ...options }));
  const client = new ApolloClient({ cache: new InMemoryCache(), link });
  const asked = { query: VIEWER, fetchPolicy: "no-cache", context: { queryDeduplication: false } };
  const viewer = async () => (await client.query(asked)).data.viewer?.user.username;
  return { client, viewer };
}

const unauthenticated = (error) => error.errors[0].extensions.code === "UNAUTHENTICATED";

test("the example renews a token that has run out, once for all who find that out", async () => {
  const { traded, signedIn } = trader();
  const { client, viewer } = asking(signedIn);
  signedIn.tokens = await tokens("june", "run-out");
  assert.deepEqual(await Promise.all([viewer(), viewer(), viewer()]), ["june", "june", "june"]);
  assert.equal(traded.length, 1);
  assert.equal(await viewer(), "june");
  assert.equal(traded.length, 1);

  signedIn.tokens = { accessToken: "run-out", refreshToken: "not good either" };
  await assert.rejects(viewer(), unauthenticated);
  assert.equal(traded.length, 2);
  // Nobody is signed in any more: nothing is sent that could be refused.
  assert.equal(await viewer(), undefined);
  client.stop();
});

for (const [name, next] of [["a sign-in", "theo"], ["a logout", undefined]]) {
  test(`${name} while a token is renewed stays, and nothing is asked again as somebody else`, async () => {
    const steps = new EventEmitter();
    const { signedIn } = trader(() => new Promise((resume) => steps.once("go on", resume).emit("waits")));
    const { client, viewer } = asking(signedIn);
    signedIn.tokens = await tokens("june", "run-out");
    const waits = on(steps, "waits").next();
    const asked = viewer();
    await waits;
    signedIn.tokens = next && (await tokens(next));
    steps.emit("go on");
    await assert.rejects(asked, unauthenticated);
    assert.equal(await viewer(), next);
    client.stop();
  });
}

test("a refresh over the link that waits for it does not wait for itself", async () => {
  const shown = {};
  const context = { isRefresh: true, queryDeduplication: false };
  const signedIn = new SignedIn(() => shown.client.query({ query: VIEWER, fetchPolicy: "no-cache", context }));
  Object.assign(shown, asking(signedIn));
  signedIn.tokens = await tokens("june", "run-out");
  await assert.rejects(shown.viewer(), unauthenticated);
  shown.client.stop();
});

test("the example renews the token of a stream over HTTP", async () => {
  const { traded, signedIn } = trader();
  signedIn.tokens = await tokens("june");
  let opened = 0;
  const ranOut = `\r\n--graphql\r\ncontent-type: application/json\r\n\r\n${JSON.stringify({
    payload: null,
    errors: [{ message: "Sign in", extensions: { code: "UNAUTHENTICATED" } }],
  })}\r\n--graphql--\r\n`;
  const headers = { "content-type": 'multipart/mixed;boundary="graphql";subscriptionSpec=1.0' };
  const { client } = asking(signedIn, {
    fetch: async (url, init) => (++opened === 1 ? new Response(ranOut, { headers }) : fetch(url, init)),
  });
  const told = await new Promise((resolve) => {
    client.subscribe({ query: EVENTS, variables: { id } }).subscribe(({ data, error }) => resolve(data ?? error));
  });
  if (!told.stockUpdated) throw told;
  assert.equal(told.stockUpdated.drop.id, id);
  assert.deepEqual([opened, traded.length], [2, 1]);
  client.stop();
});

test("the example's socket comes back with a token that is good, also when it is not to be had at once", async () => {
  const { traded, signedIn } = trader(async (times) => {
    if (times === 1) throw new TypeError("no network");
  });
  signedIn.tokens = await tokens("june", "run-out");
  const url = uri.replace("http", "ws");
  const ws = createClient({ url, webSocketImpl: WebSocket, retryWait: async () => {}, ...signedIn.socket() });
  const results = ws.iterate({ query: "{ viewer { user { username } } }" });
  assert.equal((await results.next()).value.data.viewer.user.username, "june");
  assert.equal(traded.length, 2);
  await ws.dispose();
});

test("README shows the code that is tested here", async () => {
  const readme = await readFile(new URL("../../README.md", import.meta.url), "utf8");
  for (const name of ["keep-newest.ts", "keep-newest.apollo.ts", "keep-newest.urql.ts"]) {
    const shown = ["```ts", `// ${name}`, `${await readExample(name)}\`\`\``, ""].join("\n");
    assert.ok(readme.includes(shown), `README has ${name} as it is`);
  }
});

const DROP = gql`query Drop($id: ID!) {
  drop(id: $id) { id name stockVersion availableStock heldStock sizes { id size availableStock heldStock } } }`;
const EVENTS = gql`subscription Events($id: ID!) {
  stockUpdated(dropId: $id) {
    drop { id stockVersion availableStock heldStock sizes { id availableStock heldStock } } } }`;

function apollo(ws, fetch, keep) {
  const isEvent = ({ operationType }) => operationType === "subscription";
  const link = ApolloLink.split(isEvent, new GraphQLWsLink(ws), new HttpLink({ uri, fetch }));
  const client = new ApolloClient({ cache: new InMemoryCache(), link: keep ? keepNewestLink().concat(link) : link });
  const query = { query: DROP, variables: { id } };
  return {
    query: () => client.query({ ...query, fetchPolicy: "network-only" }),
    events: client.subscribe({ query: EVENTS, variables: { id } }),
    cached: () => client.readQuery(query).drop,
  };
}

function urql(ws, fetch, keep) {
  const forwardSubscription = (request) => ({
    subscribe: (sink) => ({ unsubscribe: ws.subscribe({ ...request, query: request.query ?? "" }, sink) }),
  });
  const transports = [subscriptionExchange({ forwardSubscription }), fetchExchange];
  const exchanges = [cacheExchange(), ...(keep ? [keepNewestExchange()] : []), ...transports];
  const client = new Client({ url: uri, preferGetMethod: false, fetch, exchanges });
  return {
    query: () => client.query(DROP, { id }, { requestPolicy: "network-only" }).toPromise(),
    events: { subscribe: ({ next }) => client.subscription(EVENTS, { id }).subscribe(next) },
    cached: () => client.readQuery(DROP, { id }).data.drop,
  };
}

/** What a query told and what is cached when its answer left the server before an event and arrived after it. */
async function overtaken(connect, keep) {
  const ws = createClient({ url: uri.replace("http", "ws"), webSocketImpl: WebSocket });
  const way = new EventEmitter();
  let slow = false;
  const slowFetch = async (url, init) => {
    const answer = await fetch(url, init);
    if (slow) await new Promise((arrive) => way.once("arrive", arrive).emit("left"));
    return answer;
  };
  const client = connect(ws, slowFetch, keep);
  await client.query();
  const events = on(way, "event");
  const subscription = client.events.subscribe({ next: ({ data }) => way.emit("event", data.stockUpdated.drop) });

  slow = true;
  const left = on(way, "left").next();
  const answer = client.query();
  await left;
  const { reserve } = await ask(base, RESERVE, { input: { dropId: id, size: "US 9" } }, token);
  for await (const [drop] of events) if (drop.stockVersion >= reserve.drop.stockVersion) break;
  way.emit("arrive");
  const told = (await answer).data.drop;
  const cached = client.cached();
  await ask(base, CANCEL, { input: { reservationId: reserve.reservation.id } }, token);
  subscription.unsubscribe();
  await ws.dispose();
  return { newest: reserve.drop, told, cached };
}

test("the clock sets no status back, though a start or an end makes no new version", () => {
  const keep = keepNewest();
  const status = (stockVersion, status) => keep({ drop: { id: "drop_1", stockVersion, status } }).drop.status;
  assert.deepEqual(
    [[1, "SCHEDULED"], [1, "LIVE"], [1, "SCHEDULED"], [2, "LIVE"], [1, "ENDED"], [2, "ENDED"], [2, "LIVE"]].map(
      ([version, told]) => status(version, told),
    ),
    ["SCHEDULED", "LIVE", "LIVE", "LIVE", "LIVE", "ENDED", "ENDED"],
  );
});

for (const [name, connect] of [["Apollo Client", apollo], ["urql's Graphcache", urql]]) {
  test(`an answer that an event overtook does not set ${name} back`, async () => {
    const { newest, told, cached } = await overtaken(connect, true);
    assert.deepEqual(numbers(cached), numbers(newest));
    assert.equal(cached.sizes.reduce((sum, { heldStock }) => sum + heldStock, 0), newest.heldStock);
    assert.deepEqual(told, cached);
  });

  test(`without the code in README it does set ${name} back`, async () => {
    const { newest, cached } = await overtaken(connect, false);
    assert.equal(cached.stockVersion, newest.stockVersion - 1);
    assert.equal(cached.heldStock, newest.heldStock - 1);
  });
}
