// A program of Node's cluster as one writes it: alone it is a primary with a worker for each processor,
// and below shepherd each worker is one of shepherd's, with nothing changed:
//
//     shepherd run -n 4 -p 8000 -- node app.js
const cluster = require('node:cluster');
const http = require('node:http');
const os = require('node:os');

if (cluster.isPrimary) {
  for (let i = 0; i < os.availableParallelism(); i++) cluster.fork();
  cluster.on('exit', (worker) => console.log(`worker ${worker.process.pid} has exited`));
} else {
  http
    .createServer((request, response) => {
      response.setHeader('Content-Type', 'text/plain; charset=utf-8');
      response.end(`${process.env.VERSION ?? 'v1'} ${process.pid} 你好，世界\n`);
    })
    .listen(8000, () => console.log(`worker ${process.pid} listens`));
}
