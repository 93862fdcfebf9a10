// speak.mjs PEER prepare|work|submit: a Node peer behind the JSON of tenure.bench.peers.program.
// The twin of speak.py, whose words on stamps and places hold here too. PEER_HOME is where its packages are.
import { createRequire } from "node:module";
import { writeSync } from "node:fs";
import readline from "node:readline";

const POLL_MS = 10;
const now = () => Number(process.hrtime.bigint());
const tell = (answer) => writeSync(1, JSON.stringify(answer) + "\n");
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const began = (payload) => {
  if (payload) tell({ began_ns: now() });
};

async function singles(submitter, { in_flight, jobs, seconds }) {
  let submitted = 0;
  const began_ns = now();
  const more = () => (seconds ? (now() - began_ns) / 1e9 < seconds : submitted < jobs);
  const oneAfterTheOther = async () => {
    while (more()) {
      submitted += 1;
      await submitter.submit("");
    }
  };
  await Promise.all(Array.from({ length: in_flight }, oneAfterTheOther));
  return { jobs: submitted, began_ns, ended_ns: now() };
}

async function bulk(submitter, { batch, jobs, seconds }) {
  let submitted = 0;
  const began_ns = now();
  while (seconds ? (now() - began_ns) / 1e9 < seconds : submitted < jobs) {
    const size = jobs ? Math.min(batch, jobs - submitted) : batch;
    await submitter.submitBulk(size);
    submitted += size;
  }
  return { jobs: submitted, began_ns, ended_ns: now() };
}

async function carryOut(submitter, order) {
  switch (order.do) {
    case "connect":
      return { is_empty: await submitter.isEmpty() };
    case "singles":
      return singles(submitter, order);
    case "bulk":
      return bulk(submitter, order);
    case "stamp": {
      const called_ns = now();
      await submitter.submit("stamp");
      return { called_ns };
    }
    case "wait_until_empty":
      while (!(await submitter.isEmpty())) await sleep(POLL_MS);
      return { empty_ns: now() };
    default:
      throw new Error(`unknown order ${JSON.stringify(order)}`);
  }
}

const [name, part] = process.argv.slice(2);
const peer = (await import(`./${name}.mjs`)).peer(createRequire(process.env.PEER_HOME + "/"));
const place = process.env.PEER_PLACE;
const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();

if (part === "prepare") {
  await peer.prepare(place);
} else if (part === "work") {
  tell({ ready: true });
  if (!(await lines.next()).done) {
    await peer.work(place, began);
    while (!(await lines.next()).done);
  }
} else {
  let submitter;
  for (let line = await lines.next(); !line.done; line = await lines.next()) {
    const order = JSON.parse(line.value);
    submitter ??= await peer.submitter(place, order.in_flight ?? 1);
    tell(await carryOut(submitter, order));
  }
}
process.exit(0);
