import assert from "node:assert/strict";
import { after, test } from "node:test";
import { chromium } from "playwright-core";
import { liveDrop, reserveAndCancel, signIn, startServer } from "./server.mjs";

const base = await startServer();
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"],
});
after(() => browser.close());

test("GraphiQL explores the API in a browser that may reach nothing else", async () => {
  const page = await browser.newPage({ viewport: { width: 1400, height: 850 } });
  const foreign = [];
  const problems = [];
  page.on("request", (request) => {
    if (!request.url().startsWith(base) && !request.url().startsWith("data:")) foreign.push(request.url());
  });
  page.on("console", (message) => message.type() === "error" && problems.push(message.text()));
  page.on("pageerror", (error) => problems.push(String(error)));

  await page.goto(`${base}/`);
  const results = page.locator(".result-window");
  const run = page.locator(".graphiql-execute-button");
  const tab = (name) => page.locator(".graphiql-tab-button", { hasText: name }).click();
  await run.click();
  await results.getByText("drops", { exact: false }).first().waitFor();

  await tab("SignUp");
  // A document with two operations makes the button a menu, once GraphiQL has read it.
  await page.locator(".graphiql-execute-button[aria-haspopup]").click();
  await page.locator("[role=menuitem]", { hasText: "SignUp" }).click();
  await page.locator("#who", { hasText: "visitor" }).waitFor();

  await tab("Watch");
  await page.locator(".graphiql-execute-button:not([aria-haspopup])").click();
  await results.getByText("stockUpdated", { exact: false }).first().waitFor();
  const version = async () => Number(/"version": (\d+)/.exec(await results.innerText())?.[1]);
  const first = await version();
  // The page watches the newest live drop, which is the demo's.
  await reserveAndCancel(base, await signIn(base, "june"), (await liveDrop(base)).id);
  await page.waitForFunction(
    (before) => Number(/"version": (\d+)/.exec(document.querySelector(".result-window").innerText)?.[1]) >= before + 2,
    first,
  );

  await tab("Reserve");
  await run.click();
  await results.getByText("ACTIVE", { exact: false }).first().waitFor();
  assert.deepEqual(foreign, []);
  assert.deepEqual(problems, []);
});
