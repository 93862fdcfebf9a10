// Submits one job and waits for it: `node submit.js KIND [PAYLOAD]`, with TENURE_COORDINATOR set.
// There is no client library for Node.js: the .proto files in proto/ are all that it takes.
'use strict';

const path = require('node:path');
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');

const PROTO = process.env.TENURE_PROTO || path.join(__dirname, '..', '..', 'proto');
const definition = protoLoader.loadSync('tenure/v1/job_service.proto', {
  includeDirs: [PROTO],
  keepCase: true,
  longs: String,
  enums: String,
  defaults: true,
});
const { JobService } = grpc.loadPackageDefinition(definition).tenure.v1;

function call(client, method, request, seconds) {
  const deadline = new Date(Date.now() + seconds * 1000);
  return new Promise((resolve, reject) => {
    client[method](request, { deadline }, (error, answer) => (error ? reject(error) : resolve(answer)));
  });
}

async function main() {
  const [kind, payload = 'null'] = process.argv.slice(2);
  const address = (process.env.TENURE_COORDINATOR || '127.0.0.1:7070').split(',')[0];
  const client = new JobService(address, grpc.credentials.createInsecure());
  try {
    const { job } = await call(client, 'SubmitJob', { job: { kind, payload } }, 10);
    const { job: done, finished } = await call(client, 'WaitJob', { id: job.id }, 60);
    console.log(JSON.stringify({ id: done.id, finished, state: done.state, result: JSON.parse(done.result || 'null') }));
    process.exitCode = done.state === 'JOB_STATE_COMPLETED' ? 0 : 1;
  } finally {
    client.close();
  }
}

main().catch((error) => {
  console.error(`${grpc.status[error.code] || 'error'}: ${error.details || error.message}`);
  process.exitCode = 2;
});
