// What a source of Latchkey said, kept as long as it is surely true: docs/feed.md has the rules.
import { uptime } from "node:os";
import type { ClientDuplexStream } from "@grpc/grpc-js";

// Milliseconds on a clock that nobody sets and that goes on while the machine is suspended.
// On Linux that is the uptime, which is told in steps of 10 ms and so may be one behind.
const clock = process.platform === "linux" ? () => uptime() * 1000 : () => performance.now();
const behind = 11;

const openTimeout = 5000;
const maxAttempts = 8; // of a load that is overtaken by changes
const maxEntries = 100_000;
const maxSeen = 4096; // tags that a load under way remembers

/** Nothing is known, so the answer is neither yes nor no. */
export class Unavailable extends Error {}

/** A fact with the tags under which its changes are announced. */
export interface Fact<V> {
  value: V;
  tags: string[];
}

/** A kept fact. Whoever has waited for anything since he got it looks at `valid` again. */
export class Entry<V> {
  dropped = false;
  constructor(private readonly lease: Lease<V>, readonly key: string, readonly value: V, readonly tags: string[]) {}
  get valid(): boolean {
    return this.lease.held && !this.dropped;
  }
}

interface Flight<V> {
  seen: Set<string>; // tags that were invalidated since the load began
  epoch: AbortSignal;
  entry?: Promise<Entry<V>>;
}

interface WatchResponse {
  pong: string;
  leaseDuration: { seconds: string; nanos: number } | null;
  sequence: string;
  tags: string[];
  everything: boolean;
  term: string;
}

export type WatchStream = ClientDuplexStream<object, WatchResponse>;

export interface LeaseOptions<V> {
  source: "identity" | "permissions";
  subscriber: string;
  open: () => WatchStream;
  /** Asks the source for a fact; `epoch` is aborted when the answer would be worthless. */
  load: (key: string, epoch: AbortSignal) => Promise<Fact<V>>;
  /** What the lease is counted on. Tests set it. */
  clock?: () => number;
}

/** The lease of one source and the facts that are usable while it is held. */
export class Lease<V> {
  private readonly now: () => number;
  private until = 0;
  private term = "0";
  private failures = 0;
  private epoch = new AbortController();
  private readonly entries = new Map<string, Entry<V>>();
  private readonly tagged = new Map<string, Set<Entry<V>>>();
  private readonly flights = new Map<string, Flight<V>>();
  private end: (release: boolean) => void = () => {};

  constructor(private readonly options: LeaseOptions<V>) {
    this.now = options.clock ?? clock;
    this.watch();
  }

  /** No timer decides this, only the clock: a process that was frozen finds its lease run out. */
  get held(): boolean {
    return this.now() + behind < this.until;
  }

  /** Returns the fact of a key, from memory or from the source. */
  async get(key: string): Promise<Entry<V>> {
    for (let i = 0; i < maxAttempts && this.held; i++) {
      const kept = this.entries.get(key);
      if (kept?.valid) return kept;
      const loaded = await this.fly(key);
      if (loaded.valid) return loaded;
    }
    throw new Unavailable(`what ${this.options.source} said may be out of date`);
  }

  /** Forgets a fact. */
  drop(entry: Entry<V>): void {
    entry.dropped = true;
    if (this.entries.get(entry.key) === entry) this.entries.delete(entry.key);
    for (const tag of entry.tags) {
      const set = this.tagged.get(tag);
      if (set?.delete(entry) && set.size === 0) this.tagged.delete(tag);
    }
  }

  /** Gives the lease back, so that no write waits for it. */
  close(): void {
    this.end(true);
  }

  private fly(key: string): Promise<Entry<V>> {
    let flight = this.flights.get(key);
    if (flight?.entry) return flight.entry;
    flight = { seen: new Set(), epoch: this.epoch.signal };
    this.flights.set(key, flight);
    return (flight.entry = this.bring(key, flight));
  }

  // Loads a fact, again as long as something that arrived meanwhile may have made the answer untrue.
  private async bring(key: string, flight: Flight<V>): Promise<Entry<V>> {
    try {
      for (let i = 0; i < maxAttempts && this.held; i++) {
        flight.seen.clear();
        flight.epoch = this.epoch.signal;
        try {
          const { value, tags } = await this.options.load(key, flight.epoch);
          const overtaken = flight.epoch.aborted || flight.seen.size > maxSeen || tags.some((tag) => flight.seen.has(tag));
          if (!overtaken) return this.keep(key, value, tags);
        } catch (err) {
          if (!flight.epoch.aborted) throw err;
        }
      }
      throw new Unavailable(`what ${this.options.source} says changes faster than it can be read`);
    } finally {
      this.flights.delete(key);
    }
  }

  private keep(key: string, value: V, tags: string[]): Entry<V> {
    const entry = new Entry(this, key, value, tags);
    if (this.entries.size >= maxEntries) this.drop(this.entries.values().next().value!); // the oldest
    this.entries.set(key, entry);
    for (const tag of tags) {
      const set = this.tagged.get(tag) ?? new Set();
      this.tagged.set(tag, set.add(entry));
    }
    return entry;
  }

  private invalidate(tags: string[]): void {
    for (const tag of tags) {
      for (const flight of this.flights.values()) if (flight.seen.size <= maxSeen) flight.seen.add(tag);
      for (const entry of this.tagged.get(tag) ?? []) this.drop(entry);
    }
  }

  private dropAll(): void {
    for (const entry of this.entries.values()) entry.dropped = true;
    this.entries.clear();
    this.tagged.clear();
    const ended = this.epoch;
    this.epoch = new AbortController();
    ended.abort();
  }

  // Opens one stream, and another when it has ended.
  private watch(): void {
    const { source, subscriber } = this.options;
    const stream = this.options.open();
    let [ping, answered, acknowledged, sent] = [0, 0, 0, 0];
    let over = false;
    let next: NodeJS.Timeout | undefined;
    const sendPing = () => {
      sent = this.now(); // before it leaves: so the lease ends here before it ends there
      stream.write({ source, subscriber, ping: ++ping, acknowledged, formerTerm: ping === 1 ? this.term : "0" });
    };
    const end = (this.end = (release) => {
      if (over) return;
      over = true;
      clearTimeout(lapse);
      clearTimeout(next);
      this.until = 0; // first, so that nothing is used while the facts go
      this.dropAll();
      if (release) return void stream.end({ released: true });
      stream.cancel();
      const pause = setTimeout(() => this.watch(), Math.random() * Math.min(1000, 50 * 2 ** this.failures++));
      this.end = () => clearTimeout(pause);
    });
    let lapse = setTimeout(end, openTimeout, false);

    const renew = (duration: number): void => {
      const until = sent + duration;
      if (this.now() + behind >= until || (answered > 1 && !this.held)) return end(false); // nothing revives a lease
      this.until = until;
      this.failures = 0;
      clearTimeout(lapse);
      lapse = setTimeout(end, until - this.now(), false);
      next = setTimeout(sendPing, Math.max(0, sent + duration / 4 - this.now()));
    };
    stream.on("data", (m: WatchResponse) => {
      if (over) return;
      this.term = m.term;
      if (m.everything) this.dropAll();
      this.invalidate(m.tags);
      if (Number(m.sequence) > acknowledged) {
        acknowledged = Number(m.sequence);
        stream.write({ acknowledged });
      }
      if (m.pong === "0") return;
      if (Number(m.pong) !== ping || answered === ping || !m.leaseDuration) return end(false);
      answered = ping;
      renew(Number(m.leaseDuration.seconds) * 1000 + m.leaseDuration.nanos / 1e6);
    });
    stream.on("end", () => end(false));
    stream.on("error", () => end(false));
    sendPing();
  }
}
