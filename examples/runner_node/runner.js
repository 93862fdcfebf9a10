// A runner in Node.js, without any library: TENURE_RUNNER_URL=… TENURE_TOKEN=… node runner.js [POOL]
// It handles one kind, `node-echo`, as a model for others: see `handlers`. The wire is that of /openapi.json.
//
// What every runner must do:
//   - renew its session, and the lease of each attempt, about three times within their time to live;
//   - trust a lease only until the *sending* of the last answered renewal + its time to live, less a margin: then the
//     handler must have been stopped, since somebody else may run the job;
//   - report an end until it is answered, and keep the lease alive until then;
//   - drop the result when the answer is `lost`, and report again when it is `locked`;
//   - not begin an attempt whose start was answered too late to be trusted.
'use strict';

const os = require('node:os');

const urls = (process.env.TENURE_RUNNER_URL || 'http://127.0.0.1:7071').split(',');
const pool = process.argv[2] || 'default';
const capacity = Number(process.env.CAPACITY || 8);
const margin = (ttl) => ttl * 0.05 + Math.min(ttl * 0.1, 1) + 0.1; // drift + stopping + late timers, in seconds

const handlers = {
  async 'node-echo'(payload, { signal, progress }) {
    await progress(0.5, 'half way');
    await new Promise((resolve, reject) => {
      const timer = setTimeout(resolve, (payload?.seconds || 0) * 1000);
      signal.addEventListener('abort', () => { clearTimeout(timer); reject(new Error('stopped')); });
    });
    return { echo: payload, by: `node ${process.version}` };
  },
};

const now = () => performance.now() / 1000;
const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));
const running = new Map(); // fence -> { attempt, ttl, renewedAt, trustedUntil, abort, cause }
let session = null; // { token, ttl, renewedAt }
let starting = 0; // calls of start that are not answered
let stopping = false;

class Refused extends Error {
  constructor(status, error) {
    super(`${error.status}: ${error.message}`);
    this.status = status;
  }
}

// Posts once. What is not answered goes to the next coordinator when it is asked again.
async function post(path, body, seconds = 10) {
  const sent = now();
  let response;
  try {
    response = await fetch(`${urls[0]}/v1/runner/${path}`, {
      method: 'POST',
      body: JSON.stringify(body),
      headers: {
        'content-type': 'application/json',
        ...(process.env.TENURE_TOKEN ? { authorization: `Bearer ${process.env.TENURE_TOKEN}` } : {}),
      },
      signal: AbortSignal.timeout(seconds * 1000),
    });
  } catch (error) {
    urls.push(urls.shift());
    throw error;
  }
  const answer = await response.json().catch(() => ({ error: { status: response.status, message: 'no JSON' } }));
  if (response.status >= 502) urls.push(urls.shift());
  if (answer.error) throw new Refused(response.status, answer.error);
  return { answer, sent };
}

async function openSession() {
  const runner = { name: 'node', pools: [pool], kinds: Object.keys(handlers), capacity, host: os.hostname() };
  const { answer, sent } = await post('session', { runner: { ...runner, draining: stopping }, session: session?.token || '' });
  session = { token: answer.session, ttl: answer.ttl_s, renewedAt: sent };
  console.log(`runner ${answer.runner} is there`);
}

// One request renews everything, as soon as the first is due: an attempt with a short time to live may come any time.
async function renewForever() {
  for (;;) {
    const held = [...running.values()];
    const due = Math.min(...[session, ...held].map((one) => one.renewedAt + one.ttl / 4));
    if (now() < due) {
      await sleep(Math.min(due - now(), 0.1));
      continue;
    }
    const tokens = [session.token, ...held.map((one) => one.attempt.attempt_token)];
    try {
      const { answer, sent } = await post('renew', { tokens }, Math.min(...[session, ...held].map((one) => one.ttl)) / 4);
      const [ofSession, ...ofHeld] = answer.leases;
      if (ofSession.ttl_s === 0) await openSession();
      else if (ofSession.ttl_s) session.renewedAt = sent;
      if (ofSession.token) session.token = ofSession.token; // the signing key is being replaced: show this from now on
      ofHeld.forEach(({ ttl_s: ttl, stop, token }, index) => {
        const one = held[index];
        if (token) one.attempt.attempt_token = token;
        if (ttl === 0 || stop === 'lost') end(one, 'lost');
        else if (stop === 'held') end(one, 'released');
        else if (ttl) Object.assign(one, { renewedAt: sent, trustedUntil: sent + ttl - margin(ttl) });
      });
    } catch (error) {
      console.error(`not renewed: ${error.message}`);
      await sleep(0.1);
    }
  }
}

function watchTrust() {
  for (const one of running.values()) if (now() > one.trustedUntil) end(one, 'lost');
}

function end(one, cause) {
  if (one.cause) return;
  one.cause = cause;
  one.abort.abort();
}

async function execute(attempt, sent) {
  const late = now() >= sent + attempt.ttl_s - margin(attempt.ttl_s);
  const one = {
    attempt,
    ttl: attempt.ttl_s,
    renewedAt: sent,
    trustedUntil: sent + attempt.ttl_s - margin(attempt.ttl_s),
    abort: new AbortController(),
  };
  running.set(attempt.fence, one);
  const deadline = attempt.timeout_s ? setTimeout(() => end(one, 'timed_out'), attempt.timeout_s * 1000) : null;
  const report = {};
  try {
    const progress = (fraction, message) => post('progress', { attempt_token: attempt.attempt_token, fraction, message });
    if (late) end(one, 'lost');
    one.abort.signal.throwIfAborted();
    const result = await handlers[attempt.kind](attempt.payload, { signal: one.abort.signal, progress, attempt });
    Object.assign(report, { outcome: 'completed', result: result ?? null });
  } catch (error) {
    const outcome = { lost: 'released', released: 'released', canceled: 'canceled', timed_out: 'timed_out' }[one.cause];
    Object.assign(report, { outcome: outcome || 'failed', error: { type: error.name, message: error.message } });
  }
  clearTimeout(deadline);
  for (let pause = 0.1; ; pause = Math.min(2 * pause, 5)) {
    try {
      const { answer } = await post('finish', { reports: [{ ...report, attempt_token: attempt.attempt_token }] });
      if (answer.reports[0].verdict !== 'locked') break;
      await sleep(pause);
    } catch (error) {
      // A refusal is final: the report is malformed, or the attempt is not ours any more.
      if (error instanceof Refused && error.status < 500 && error.status !== 429) break;
      await sleep(pause);
    }
  }
  running.delete(attempt.fence);
}

async function claimForever() {
  while (!stopping) {
    try {
      const { answer } = await post('claim', { session: session.token, wait_s: 20 }, 30);
      for (const { job_id: id, fence } of answer.cancels) {
        const one = running.get(fence);
        if (one && one.attempt.job_id === id) end(one, 'canceled');
      }
      if (!answer.claims.length) continue;
      const tokens = answer.claims.map(({ claim }) => claim);
      if (stopping) {
        await post('release', { tokens });
        continue;
      }
      starting += 1;
      try {
        const { answer: started, sent } = await post('start', { claims: tokens });
        for (const attempt of started.attempts) execute(attempt, sent);
      } finally {
        starting -= 1;
      }
    } catch (error) {
      console.error(`not claimed: ${error.message}`);
      await sleep(0.5);
    }
  }
}

async function main() {
  await openSession();
  setInterval(watchTrust, 50);
  process.on('SIGTERM', async () => {
    stopping = true;
    await openSession().catch(() => {}); // says that it drains
    while (running.size || starting) await sleep(0.05);
    await post('close', { session: session.token }).catch(() => {});
    process.exit(0);
  });
  renewForever();
  await claimForever();
}

main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
