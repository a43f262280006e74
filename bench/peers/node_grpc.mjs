// JSON over HTTP in, a unary gRPC call out, JSON back: node:http and grpc-js, nothing else.
//   node node_grpc.mjs PORT BACKEND-PORT
import http from 'node:http';
import grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { fileURLToPath } from 'node:url';

const [port, backend] = process.argv.slice(2);
const file = fileURLToPath(new URL('bench_call.proto', import.meta.url));
const { bench } = grpc.loadPackageDefinition(loadSync(file, { longs: String }));
const players = new bench.call.Players(`127.0.0.1:${backend}`, grpc.credentials.createInsecure());

const server = http.createServer((request, response) => {
  const playerId = request.url.slice(request.url.lastIndexOf('/') + 1);
  players.Get({ playerId }, { deadline: Date.now() + 5000 }, (error, player) => {
    if (error) {
      response.writeHead(502);
      response.end();
      return;
    }
    const body = JSON.stringify(player);
    response.writeHead(200, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) });
    response.end(body);
  });
});
server.keepAliveTimeout = 75000;
server.listen({ port: Number(port), host: '127.0.0.1', backlog: 4096 });
