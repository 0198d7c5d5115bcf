import assert from "node:assert/strict";
import { test } from "node:test";
import { auditServer } from "graphql-http";
import { startServer } from "./server.mjs";

const base = await startServer();

test("graphql-http's audit passes in full", async () => {
  const results = await auditServer({ url: `${base}/graphql` });
  const failed = results.filter((result) => result.status !== "ok");
  assert.equal(results.length, 61);
  assert.deepEqual(failed.map((result) => `${result.id} ${result.name}: ${result.reason}`), []);
});
