// The backend of the HTTP to gRPC benchmark.  node grpc_backend.mjs PORT
import grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { fileURLToPath } from 'node:url';

const file = fileURLToPath(new URL('bench_call.proto', import.meta.url));
const { bench } = grpc.loadPackageDefinition(loadSync(file, { keepCase: true, longs: String, defaults: true }));
const player = {
  name: 'Alice', stack: '2500', seat: 4, tags: ['nlhe', '6max', 'fast'], balance: { currency: 'EUR', amount: '1234.50' },
  labels: { country: 'DE', vip: 'gold' }, note: 'x'.repeat(64),
};

const server = new grpc.Server();
server.addService(bench.call.Players.service, {
  Get: ({ request }, answer) => answer(null, { player_id: request.player_id, ...player }),
});
server.bindAsync(`127.0.0.1:${process.argv[2]}`, grpc.ServerCredentials.createInsecure(), (error) => {
  if (error) throw error;
});
