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

  // A document with several operations makes the button a menu, once GraphiQL has read it.
  const choose = async (name, operation) => {
    await tab(name);
    await page.locator(".graphiql-execute-button[aria-haspopup]").click();
    await page.getByRole("menuitem", { name: operation, exact: true }).click();
  };
  await choose("SignUp", "SignUp");
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

  await choose("SignUp", "SignInAsAdmin");
  await page.locator("#who", { hasText: "(admin)" }).waitFor();
  await choose("CreateDrop", "CreateDrop");
  await results.getByText("Tour Runner", { exact: false }).first().waitFor();
  assert.deepEqual(foreign, []);
  assert.deepEqual(problems, []);
});

test("GraphiQL says that a token is invalid, and forgets drops that are not there", async () => {
  const page = await browser.newPage({ viewport: { width: 1400, height: 850 }, colorScheme: "dark" });
  const results = page.locator(".result-window");
  const watch = async () => {
    await page.locator(".graphiql-tab-button", { hasText: "Watch" }).click();
    await page.locator(".graphiql-execute-button:not([aria-haspopup])").click();
  };
  await page.goto(`${base}/graphiql`);
  await page.fill("#token", "run-out");
  await page.locator("h1").click();
  await page.locator("#who", { hasText: "invalid token" }).waitFor();
  await watch();
  await results.getByText("The socket was closed with 4403: the access token is invalid or expired").waitFor();

  await page.locator("#sign-out").click();
  const { id } = await liveDrop(base);
  // One with the id in its text, and the one that GraphiQL opens first.
  await page.locator(".graphiql-tab-add").click();
  await page.locator(".graphiql-query-editor .CodeMirror").click();
  await page.keyboard.press("ControlOrMeta+A");
  await page.keyboard.insertText(`query Inline { drop(id: "${id}") { heldStock } }`);
  const tabs = page.locator(".graphiql-tab");
  await tabs.nth(6).waitFor();
  // Tabs are kept a moment after they were changed.
  await page.waitForFunction((id) => {
    const kept = ["tabState", "query"].map((key) => localStorage.getItem(`graphiql:${key}`) ?? "");
    return kept.every((text) => text.includes(id)) && kept[0].includes("Inline");
  }, id);
  await page.addInitScript(([id, gone]) => {
    for (const [key, value] of Object.entries(localStorage)) localStorage.setItem(key, value.replaceAll(id, gone));
  }, [id, `drop_${"A".repeat(22)}`]);
  await page.reload();
  await watch();
  await results.getByText("availableStock", { exact: false }).first().waitFor();
  await page.locator(".graphiql-tab-button", { hasText: "Inline" }).click();
  await page.locator(".graphiql-execute-button:not([aria-haspopup])").click();
  await results.getByText("heldStock", { exact: false }).first().waitFor();
  assert.equal(await tabs.count(), 7);

  const [page_, header] = await page.evaluate(() => [document.body, document.querySelector("h1")].map(
    (element) => getComputedStyle(element)[element === document.body ? "backgroundColor" : "color"]));
  const light = (colour) => colour.match(/\d+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0) / 3;
  assert.ok(light(page_) < 80 && light(header) > 180, `${header} on ${page_}`);
});
