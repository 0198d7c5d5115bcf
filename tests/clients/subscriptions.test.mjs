import assert from "node:assert/strict";
import { test } from "node:test";
import { createClient as createSse } from "graphql-sse";
import { createClient as createWs } from "graphql-ws";
import WebSocket from "ws";
import { WATCH, liveDrop, reserveAndCancel, signIn, startServer } from "./server.mjs";

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
