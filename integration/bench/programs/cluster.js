'use strict';
// node:cluster as its documentation shows it: a primary that forks workers, forks again when one
// exits, and on SIGHUP rolls them over: start a new one, wait until it listens, stop an old one.
//
//     node cluster.js WORKERS PROGRAM [ARGUMENT]...

const cluster = require('node:cluster');

const [count, exec, ...args] = process.argv.slice(2);
const workers = Number(count);
let stopping = false;
const retiring = new Set();

cluster.setupPrimary({ exec, args });

function fork() {
  const worker = cluster.fork();
  return new Promise((resolve) => worker.once('listening', () => resolve(worker)));
}

function stop(worker) {
  retiring.add(worker.id);
  worker.process.kill('SIGTERM');
}

cluster.on('exit', (worker) => {
  if (stopping) {
    if (Object.keys(cluster.workers).length === 0) process.exit(0);
  } else if (!retiring.delete(worker.id)) {
    fork();
  }
});

process.on('SIGHUP', async () => {
  for (const old of Object.values(cluster.workers)) {
    await fork();
    stop(old);
  }
});

process.on('SIGTERM', () => {
  stopping = true;
  Object.values(cluster.workers).forEach(stop);
});

Promise.all(Array.from({ length: workers }, fork)).then(() => {
  console.log(`${workers} ${workers === 1 ? 'worker' : 'workers'} ready`);
});
