// Outside judges of schema.graphql, which need no server.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { CriticalityLevel, diff } from "@graphql-inspector/core";
import { ESLint } from "eslint";
import { buildSchema } from "graphql";

const root = new URL("../../", import.meta.url).pathname;
const schema = await readFile(`${root}schema.graphql`, "utf8");
const released = await readFile(new URL("released.graphql", import.meta.url), "utf8");

/** The schema with one thing in it changed. */
function changed(from, to) {
  assert.equal(schema.split(from).length, 2, `schema.graphql has this once: ${from}`);
  return schema.replace(from, to);
}

async function lint(text) {
  const eslint = new ESLint({ cwd: root, overrideConfigFile: "tests/clients/eslint.config.mjs" });
  const [{ messages }] = await eslint.lintText(text, { filePath: "schema.graphql" });
  return messages.map(({ line, ruleId, message }) => `schema.graphql:${line} ${ruleId}: ${message}`);
}

test("graphql-eslint finds nothing wrong with the schema", async () => {
  assert.deepEqual(await lint(schema), []);
});

test("graphql-eslint wants a description of everything", async () => {
  const found = await lint(changed('"""\n\tMay reserve and purchase.\n\t"""', ""));
  assert.match(found.join(), /^schema.graphql:\d+ @graphql-eslint\/require-description: .*"BUYER"/);
});

/** What breaks clients of the last release. */
async function breaking(text) {
  const changes = await diff(buildSchema(released), buildSchema(text));
  const breaks = changes.filter(({ criticality }) => criticality.level === CriticalityLevel.Breaking);
  return breaks.map(({ message }) => message);
}

// With each release, and never otherwise, the contract becomes the schema of that release, in tests/clients:
//   contract=$(head -1 released.graphql; cat ../../schema.graphql) && echo "$contract" > released.graphql
test("what works with the last release goes on working", async () => {
  assert.deepEqual(await breaking(schema), []);
});

for (const [name, from, to] of [
  ["a field that is gone", "\ttotalCount: Int!", "\tcount: Int!"],
  ["a field that may be null now", "\trole: Role!", "\trole: Role"],
  ["an argument that is required now", "\t\tstatuses: [ReservationStatus!]", "\t\tstatuses: [ReservationStatus!]!"],
  ["an input that is required now", "\tsize: String\n", "\tsize: String!\n"],
  ["a value that is gone", "\tBUYER\n", "\tCUSTOMER\n"],
]) {
  test(`graphql-inspector stops ${name}`, async () => assert.equal((await breaking(changed(from, to))).length, 1));
}

test("graphql-inspector lets the schema grow", async () => {
  assert.deepEqual(await breaking(changed("\tBUYER\n", "\tBUYER\n\tCLERK\n")), []);
});
