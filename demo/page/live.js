// The connection, and what the strip at the top shows of it.
const $ = (id) => document.getElementById(id);

// Networks that break are what recovery is for: while this is set no socket gets through.
let cutUntil = 0;
let socket = null;

class CuttableSocket extends WebSocket {
  constructor(...given) {
    if (Date.now() < cutUntil) given[0] = given[0].replace(/\/ws$/, '/cut');
    super(...given);
    socket = this;
  }
}

export class Live {
  constructor(token) {
    const origin = location.origin;
    const { protocol, host } = location;
    this.missed = 0;
    this.watched = null;
    this.sdk = new Centrifuge(
      [
        { transport: 'websocket', endpoint: `${protocol === 'https:' ? 'wss:' : 'ws:'}//${host}/ws` },
        { transport: 'http_stream', endpoint: `${origin}/ws/stream` },
        { transport: 'sse', endpoint: `${origin}/ws/sse` },
      ],
      { token, websocket: CuttableSocket, emulationEndpoint: `${origin}/ws/emulation`, minReconnectDelay: 300, maxReconnectDelay: 2000 },
    );
    this.sdk.on('connecting', () => this.show('connecting', 'connecting …'));
    this.sdk.on('connected', ({ transport }) => { this.show('connected', `connected by ${transport}`); this.measure(); });
    this.sdk.on('disconnected', ({ reason }) => this.show('disconnected', `not connected: ${reason}`));
    $('cut').onclick = () => this.cut(4000);
    setInterval(() => this.measure(), 5000);
    this.sdk.connect();
  }

  show(state, text) {
    $('strip').dataset.state = state;
    $('state').textContent = text;
    $('cut').disabled = state !== 'connected';
  }

  cut(forMs) {
    cutUntil = Date.now() + forMs;
    this.missed = 0;
    $('missed').textContent = '';
    socket?.close(4000, 'cut');
  }

  async measure() {
    if (this.sdk.state !== 'connected') return;
    const began = performance.now();
    try {
      await this.sdk.rpc('echo', {});
      $('latency').textContent = `${(performance.now() - began).toFixed(1)} ms`;
    } catch { $('latency').textContent = '–'; }
  }

  // Subscribe: `state` is called with the channel's state, `change` with each publication after it.
  subscribe(channel, { state, change, people, watched }) {
    const subscription = this.sdk.newSubscription(channel, { joinLeave: Boolean(people) });
    subscription.on('subscribed', (context) => {
      if (context.wasRecovering) {
        this.recovering = context.recovered;
        $('missed').textContent = context.recovered ? `recovered, ${this.missed} missed` : 'state taken anew';
      }
      if (context.data && state) state(context.data);
      if (watched) this.position(context.streamPosition?.offset);
      if (people) this.people(subscription, people);
    });
    subscription.on('publication', (context) => {
      change?.(context.data, context.info);
      if (watched) this.position(context.offset);
      if (Date.now() - cutUntil < 10000 && cutUntil) {
        this.missed += 1;
        if (this.recovering) $('missed').textContent = `recovered, ${this.missed} missed`;
      }
    });
    if (people) {
      subscription.on('join', () => this.people(subscription, people));
      subscription.on('leave', () => this.people(subscription, people));
    }
    subscription.subscribe();
    return subscription;
  }

  position(offset) { if (offset !== undefined) $('offset').textContent = offset; }

  async people(subscription, show) {
    try {
      const { clients } = await subscription.presence();
      show([...new Map(Object.values(clients).map((one) => [one.user, one.connInfo?.name ?? one.user])).values()].sort());
    } catch { /* the subscription ended meanwhile */ }
  }

  drop(subscription) {
    subscription.unsubscribe();
    this.sdk.removeSubscription(subscription);
  }

  async call(method, data) {
    return (await this.sdk.rpc(method, data)).data;
  }
}
