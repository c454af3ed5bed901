// The other half: what shepherd takes the place of.
const { fork } = require('node:child_process');
const os = require('node:os');

const server = require('node:net').createServer().listen(3000, () => {
  for (let i = 0; i < os.availableParallelism(); i++) {
    fork(`${__dirname}/worker.js`).send('server', server);
  }
});
