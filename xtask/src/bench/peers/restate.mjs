// How many durable steps a second Restate journals: a handler of many steps, 64 callers.
import * as restate from "@restatedev/restate-sdk";

// Node 20 does not have what the SDK uses.
Promise.withResolvers ??= () => {
  const made = {};
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
  return made;
};

const STEPS = 50;
const CLIENTS = 64;
const SECONDS = 8;

const chain = restate.service({
  name: "chain",
  handlers: {
    run: async (ctx) => {
      let n = 0;
      for (let step = 0; step < STEPS; step++) {
        n = await ctx.run(() => n + 1);
      }
      return n;
    },
  },
});

await restate.serve({ services: [chain], port: 9082 });
const json = { "content-type": "application/json" };
const body = JSON.stringify({ uri: "http://127.0.0.1:9082", use_http_11: false });
const registered = await fetch("http://127.0.0.1:9070/deployments", { method: "POST", headers: json, body });
if (!registered.ok) {
  throw new Error(await registered.text());
}
const began = performance.now();
let done = 0;
const client = async () => {
  while (performance.now() - began < SECONDS * 1000) {
    const answer = await fetch("http://127.0.0.1:8080/chain/run", { method: "POST" });
    if (!answer.ok || (await answer.json()) !== STEPS) {
      throw new Error("a chain was not whole");
    }
    done += STEPS;
  }
};
await Promise.all(Array.from({ length: CLIENTS }, client));
console.log(JSON.stringify({ steps_per_s: done / ((performance.now() - began) / 1000) }));
process.exit(0);
