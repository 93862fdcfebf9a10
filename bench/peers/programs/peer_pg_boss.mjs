// pg-boss in batches of 500, fetched one after the other while they come back full, and woken by NOTIFY.
const QUEUE = "noop";
const BATCH = 500;
const LEFT = "SELECT NOT EXISTS (SELECT FROM pgboss.job WHERE state < 'completed') AS empty";

export const peer = (require) => {
  const { PgBoss } = require("pg-boss");
  const { Pool } = require("pg");
  const start = async (connectionString, options) => {
    const boss = new PgBoss({ connectionString, ...options });
    boss.on("error", (error) => console.error(error));
    await boss.start();
    return boss;
  };
  return {
    async prepare(place) {
      const boss = await start(place, {});
      await boss.createQueue(QUEUE, { notify: true });
      await boss.stop({ graceful: false });
    },
    async work(place, began) {
      const boss = await start(place, { useListenNotify: true });
      const options = { batchSize: BATCH, burstWhenBatchFull: true, pollingIntervalSeconds: 0.5 };
      await boss.work(QUEUE, options, async (jobs) => {
        for (const job of jobs) began(job.data?.payload);
      });
    },
    async submitter(place, connections) {
      const boss = await start(place, { max: connections, supervise: false, schedule: false });
      const pool = new Pool({ connectionString: place, max: 1 });
      return {
        submit: (payload) => boss.send(QUEUE, { payload }),
        submitBulk: (jobs) => boss.insert(QUEUE, Array.from({ length: jobs }, () => ({ data: {} }))),
        isEmpty: async () => (await pool.query(LEFT)).rows[0].empty,
      };
    },
  };
};
