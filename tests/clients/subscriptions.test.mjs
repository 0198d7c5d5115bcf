import assert from "node:assert/strict";
import { test } from "node:test";
import { ApolloClient, HttpLink, InMemoryCache, gql } from "@apollo/client";
import { createClient as createSse } from "graphql-sse";
import { createClient as createWs } from "graphql-ws";
import WebSocket from "ws";
import { WATCH, liveDrop, reserveAndCancel, signIn, startOne, startServer } from "./server.mjs";

const base = await startServer();
const token = await signIn(base, "june");
const ws = { url: `${base.replace("http", "ws")}/graphql`, webSocketImpl: WebSocket };

/** The first versions that a client sees while the stock changes. */
async function versions(results, dropId) {
  const seen = [];
  for await (const { data } of results) {
    seen.push(data.stockUpdated.version);
    if (seen.length === 1) await reserveAndCancel(base, token, dropId);
    // Bursts may be folded into one: the last state always arrives.
    if (seen.at(-1) >= seen[0] + 2) return seen;
  }
  throw new Error("the subscription ended");
}

for (const [name, client] of [
  ["graphql-ws", createWs(ws)],
  ["graphql-sse", createSse({ url: `${base}/graphql` })],
]) {
  test(`${name} sees the state at once and then what changes`, async () => {
    const { id, stockVersion } = await liveDrop(base);
    const seen = await versions(client.iterate({ query: WATCH, variables: { dropId: id } }), id);
    assert.equal(seen[0], stockVersion);
    assert.deepEqual(seen, [...seen].sort((a, b) => a - b));
    await client.dispose();
  });

  test(`${name} is told of a drop that is not there`, async () => {
    const again = name === "graphql-ws" ? createWs(ws) : createSse({ url: `${base}/graphql` });
    const told = new Promise((resolve, reject) => {
      again.subscribe({ query: WATCH, variables: { dropId: "x" } }, {
        next: ({ errors }) => resolve(errors),
        error: resolve,
        complete: () => reject(new Error("no error came")),
      });
    });
    assert.equal((await told)[0].extensions.code, "NOT_FOUND");
    await again.dispose();
  });
}

for (const [name, connect] of [
  ["graphql-ws", (base) => createWs({ url: `${base.replace("http", "ws")}/graphql`, webSocketImpl: WebSocket })],
  ["graphql-sse", (base) => createSse({ url: `${base}/graphql` })],
]) {
  test(`${name} goes on watching when a server stops and another takes its place`, async () => {
    const server = await startOne();
    const { id, stockVersion } = await liveDrop(server.base);
    const client = connect(server.base);
    const results = client.iterate({ query: WATCH, variables: { dropId: id } });
    assert.equal((await results.next()).value.data.stockUpdated.version, stockVersion);
    await server.stop();
    await server.startAgain();
    const { done, value } = await results.next();
    assert.ok(!done, "it took the end of the server for the end of the drop");
    assert.equal(value.data.stockUpdated.version, stockVersion);
    await client.dispose();
  });
}

test("Apollo's HttpLink fails when a server stops, and does not take that for the end", async () => {
  const server = await startOne();
  const { id } = await liveDrop(server.base);
  const link = new HttpLink({ uri: `${server.base}/graphql` });
  const client = new ApolloClient({ cache: new InMemoryCache(), link });
  const told = [];
  const ended = new Promise((resolve) => {
    const first = ({ data, error }) => {
      told.push(error ? "error" : data.stockUpdated.drop.id);
      if (told.length === 1) server.stop();
    };
    const watched = client.subscribe({ query: gql(WATCH), variables: { dropId: id } });
    watched.subscribe({ next: first, complete: resolve });
  });
  await ended;
  assert.deepEqual(told, [id, "error"]);
  client.stop();
});

test("graphql-ws asks for fresh parameters when the server forbids", async () => {
  let asked = 0;
  const client = createWs({
    ...ws,
    retryAttempts: 2,
    retryWait: async () => {},
    connectionParams: () => ({ authorization: `Bearer ${++asked === 1 ? "run-out" : token}` }),
  });
  const results = client.iterate({ query: "{ viewer { user { username } } }" });
  assert.equal((await results.next()).value.data.viewer.user.username, "june");
  assert.equal(asked, 2);
  await client.dispose();
});
