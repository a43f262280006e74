// A Centrifuge client that does what it is told, one JSON object a line on standard input, and tells
// what happens to it the same way on standard output. The SDK is the official one, unmodified.
import { createInterface } from 'node:readline';
import { Centrifuge as JsonCentrifuge } from 'centrifuge';
import { Centrifuge as ProtobufCentrifuge } from 'centrifuge/build/protobuf';
import { EventSource } from 'eventsource';
import { WebSocket } from 'ws';

const clients = new Map();
const text = new TextDecoder();

const tell = (event) => process.stdout.write(JSON.stringify(event) + '\n');

// What comes is an object (JSON) or bytes (Protobuf), in which the tests always have JSON.
const plain = (data) => (data instanceof Uint8Array ? (data.length ? JSON.parse(text.decode(data)) : null) : data);
const packed = (client, data) => (client.binary ? new TextEncoder().encode(JSON.stringify(data)) : data);

const info = (given) => given && {
  client: given.client, user: given.user, connInfo: plain(given.connInfo), chanInfo: plain(given.chanInfo),
};

const told = (context) => {
  const event = {};
  for (const [name, value] of Object.entries(context)) {
    if (name === 'data') event.data = plain(value);
    else if (name === 'info') event.info = info(value);
    else if (name === 'error') event.error = { code: value.code, message: value.message, temporary: value.temporary };
    else event[name] = value;
  }
  return event;
};

const CLIENT_EVENTS = ['connecting', 'connected', 'disconnected', 'message', 'error', 'subscribed', 'subscribing',
  'unsubscribed', 'publication', 'join', 'leave'];
const SUBSCRIPTION_EVENTS = ['subscribing', 'subscribed', 'unsubscribed', 'publication', 'join', 'leave', 'error'];

function make(order) {
  const Sdk = order.binary ? ProtobufCentrifuge : JsonCentrifuge;
  const options = {
    websocket: WebSocket, eventsource: EventSource, fetch, readableStream: ReadableStream,
    minReconnectDelay: 50, maxReconnectDelay: 200, ...order.options,
  };
  if (order.tokens) {
    const tokens = [...order.tokens];
    options.getToken = async () => { tell({ client: order.client, event: 'getToken' }); return tokens.shift() ?? ''; };
  }
  const sdk = new Sdk(order.endpoint, options);
  const client = { sdk, binary: Boolean(order.binary), subscriptions: new Map() };
  for (const name of CLIENT_EVENTS) {
    sdk.on(name, (context) => tell({ client: order.client, event: name, ...told(context) }));
  }
  clients.set(order.client, client);
}

function subscribe(client, order) {
  let subscription = client.subscriptions.get(order.channel);
  if (!subscription) {
    const options = { ...order.options };
    if (order.tokens) {
      const tokens = [...order.tokens];
      options.getToken = async () => {
        tell({ client: order.client, channel: order.channel, event: 'getToken' });
        return tokens.shift() ?? '';
      };
    }
    if (options.data !== undefined) options.data = packed(client, options.data);
    subscription = client.sdk.newSubscription(order.channel, options);
    for (const name of SUBSCRIPTION_EVENTS) {
      subscription.on(name, (context) => tell({ client: order.client, channel: order.channel, event: name, ...told(context) }));
    }
    client.subscriptions.set(order.channel, subscription);
  }
  subscription.subscribe();
}

const clientsOf = (presence) => Object.fromEntries(Object.entries(presence.clients).map(([id, one]) => [id, info(one)]));

const ORDERS = {
  connect: (client) => client.sdk.connect(),
  disconnect: (client) => client.sdk.disconnect(),
  cut: (client) => { client.sdk._transport._transport.terminate(); },
  subscribe,
  unsubscribe: (client, order) => client.subscriptions.get(order.channel).unsubscribe(),
  publish: (client, order) => client.sdk.publish(order.channel, packed(client, order.data)),
  rpc: async (client, order) => ({ data: plain((await client.sdk.rpc(order.method, packed(client, order.data))).data) }),
  send: (client, order) => client.sdk.send(packed(client, order.data)),
  presence: async (client, order) => ({ clients: clientsOf(await client.sdk.presence(order.channel)) }),
  presenceStats: (client, order) => client.sdk.presenceStats(order.channel),
  history: async (client, order) => {
    const history = await client.sdk.history(order.channel, order.options);
    return { ...history, publications: history.publications.map((one) => told(one)) };
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line);
  if (order.do === 'make') { make(order); continue; }
  const client = clients.get(order.client);
  Promise.resolve()
    .then(() => ORDERS[order.do](client, order))
    .then(
      (result) => { if (order.id) tell({ id: order.id, result: result ?? {} }); },
      (error) => tell({ id: order.id, error: { code: error.code, message: error.message, temporary: error.temporary } }),
    );
}
process.exit(0);
