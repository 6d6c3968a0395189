// What is known of the daemon: the last state and the changes since. It draws nothing.
// Look-ups by name are Maps, since a port may be called `__proto__`.

const NO_RATE = { rx_bps: 0, tx_bps: 0, rx_pps: 0, tx_pps: 0 };
const KEPT_EVENTS = 200;

/** The key of the ports without a network. No network has an empty name. */
export const DETACHED = "";

/** Fills in what a port may leave out. */
function cleanPort(port, old) {
  return {
    ...port,
    network: port.network ?? null,
    state: port.state ?? "up",
    addresses: port.addresses ?? [],
    drops: port.drops ?? [],
    trunks: port.trunks ?? [],
    storms: port.storms ?? [],
    rate: { ...NO_RATE, ...(port.rate ?? old?.rate) },
  };
}

/** Fills in what a network may leave out. */
function cleanNetwork(network, old) {
  return {
    ...network,
    subnets: network.subnets ?? [],
    vlans: network.vlans ?? [],
    forwards: network.forwards ?? [],
    mirrors: network.mirrors ?? [],
    host_addresses: network.host_addresses ?? [],
    edge: network.edge ?? old?.edge ?? [0, 0],
  };
}

/** What decides where a port is drawn. */
const placeKey = (port) =>
  JSON.stringify([port.network, port.slot, port.vlan_mode, port.tag, port.trunks]);

/** What decides how the line of a network is drawn. */
const lineKey = ({ mode, vlans, gateway, host_addresses: own }) =>
  JSON.stringify([mode, vlans, Boolean(gateway), own.length]);

export const homeOf = (port) => port.network ?? DETACHED;

export class Model {
  /** Whether a state has come. */
  ready = false;
  networks = new Map();
  ports = new Map();
  /** Network to its ports: name to port. */
  members = new Map();
  reasons = new Map();
  attention = [];
  events = [];
  workers = [];
  version = "";
  host = "";
  write = false;
  uptime = 0;
  /** Why the daemon does not answer the web process; `null` if it does. */
  silence = null;

  /** Takes a whole state. */
  load(view) {
    const oldPorts = this.ports;
    const oldNetworks = this.networks;
    this.ports = new Map();
    this.networks = new Map();
    this.members = new Map();
    for (const network of view.networks ?? []) {
      this.#putNetwork(cleanNetwork(network, oldNetworks.get(network.name)));
    }
    for (const port of view.ports ?? []) this.#putPort(cleanPort(port, oldPorts.get(port.name)));
    this.#putReasons(view.reasons);
    this.attention = view.attention ?? [];
    this.events = (view.events ?? []).slice(-KEPT_EVENTS);
    this.workers = view.workers ?? [];
    this.version = view.version ?? "";
    this.host = view.host ?? "";
    this.write = view.write === true;
    this.uptime = view.uptime_s ?? 0;
    this.silence = view.lost_contact ?? null;
    this.ready = true;
    return {
      full: true, ports: new Set(this.ports.keys()), networks: new Set(this.networks.keys()),
      moved: new Set(), rates: [], edges: [], events: null, attention: true,
    };
  }

  /** Takes a change; returns what it touched. `moved` are the networks to lay out again. */
  apply(change) {
    const touched = {
      full: false, ports: new Set(), networks: new Set(), moved: new Set(),
      rates: [], edges: [], events: change.events ?? [], attention: change.attention != null,
    };
    this.uptime = change.uptime_s ?? this.uptime;
    this.workers = change.workers ?? this.workers;
    this.silence = change.lost_contact ?? null;
    this.#putReasons(change.reasons);
    if (change.attention) this.attention = change.attention;
    if (touched.events.length) {
      this.events = this.events.concat(touched.events).slice(-KEPT_EVENTS);
    }
    for (const name of change.removed_ports ?? []) this.#dropPort(name, touched);
    for (const name of change.removed_networks ?? []) {
      this.networks.delete(name);
      touched.networks.add(name);
      touched.moved.add(name);
    }
    for (const given of change.networks ?? []) {
      const old = this.networks.get(given.name);
      const network = cleanNetwork(given, old);
      this.#putNetwork(network);
      touched.networks.add(network.name);
      if (!old || lineKey(old) !== lineKey(network)) touched.moved.add(network.name);
    }
    for (const given of change.ports ?? []) {
      const old = this.ports.get(given.name);
      const port = cleanPort(given, old);
      this.#putPort(port);
      touched.ports.add(port.name);
      if (old && placeKey(old) === placeKey(port)) continue;
      if (old) touched.moved.add(homeOf(old));
      touched.moved.add(homeOf(port));
    }
    this.#rates(change, touched);
    return touched;
  }

  #rates(change, touched) {
    for (const [name, rx_bps, tx_bps, rx_pps, tx_pps] of change.rates ?? []) {
      const port = this.ports.get(name);
      if (!port) continue;
      port.rate = { rx_bps, tx_bps, rx_pps, tx_pps };
      touched.rates.push(port);
    }
    for (const [name, to, from] of change.edges ?? []) {
      const network = this.networks.get(name);
      if (!network) continue;
      network.edge = [to, from];
      touched.edges.push(network);
    }
  }

  #putNetwork(network) {
    this.networks.set(network.name, network);
    if (!this.members.has(network.name)) this.members.set(network.name, new Map());
  }

  #putPort(port) {
    const old = this.ports.get(port.name);
    if (old && homeOf(old) !== homeOf(port)) this.members.get(homeOf(old))?.delete(port.name);
    this.ports.set(port.name, port);
    let home = this.members.get(homeOf(port));
    if (!home) this.members.set(homeOf(port), (home = new Map()));
    home.set(port.name, port);
  }

  #dropPort(name, touched) {
    const old = this.ports.get(name);
    if (!old) return;
    this.ports.delete(name);
    this.members.get(homeOf(old))?.delete(name);
    touched.ports.add(name);
    touched.moved.add(homeOf(old));
  }

  #putReasons(reasons) {
    for (const [name, remedy] of Object.entries(reasons ?? {})) this.reasons.set(name, remedy);
  }

  /** The ports of a network, in no order. */
  membersOf(name) {
    return [...(this.members.get(name)?.values() ?? [])];
  }

  /** The ports of a network, in the order of their slots. */
  portsOf(name) {
    return this.membersOf(name).sort((a, b) => (a.slot ?? 1e9) - (b.slot ?? 1e9));
  }

  /** The networks, and a place for the ports without one if there are any. */
  homes() {
    const homes = [...this.networks.keys()];
    if (this.members.get(DETACHED)?.size) homes.push(DETACHED);
    return homes;
  }
}
