// Graphile Worker with the preset of its performance page: 24 jobs at once, a local queue of 500, batched completions.
const NOOP = "noop";

export const peer = (require) => {
  const { Logger, makeWorkerUtils, run } = require("graphile-worker");
  const { Pool } = require("pg");
  const logger = new Logger(() => () => {});
  const preset = (connectionString) => ({
    worker: {
      connectionString,
      concurrentJobs: 24,
      maxPoolSize: 25,
      localQueue: { size: 500 },
      completeJobBatchDelay: 0,
      failJobBatchDelay: 0,
      logger,
    },
  });
  return {
    async prepare(place) {
      const utils = await makeWorkerUtils({ connectionString: place, logger });
      await utils.migrate();
      await utils.release();
    },
    async work(place, began) {
      await run({ preset: preset(place), taskList: { [NOOP]: async ({ payload }) => began(payload) } });
    },
    async submitter(place, connections) {
      const pgPool = new Pool({ connectionString: place, max: connections });
      pgPool.on("error", (error) => console.error(error));
      const utils = await makeWorkerUtils({ pgPool, logger });
      return {
        submit: (payload) => utils.addJob(NOOP, { payload }),
        submitBulk: (jobs) => utils.addJobs(Array.from({ length: jobs }, () => ({ identifier: NOOP, payload: {} }))),
        isEmpty: async () =>
          (await pgPool.query("SELECT NOT EXISTS (SELECT FROM graphile_worker._private_jobs) AS empty")).rows[0].empty,
      };
    },
  };
};
