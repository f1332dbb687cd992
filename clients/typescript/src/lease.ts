// What a source of Latchkey said, kept as long as it is surely true: docs/feed.md has the rules.
import { Follower, WatchStream } from "./follow.js";

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

export interface LeaseOptions<V> {
  source: "identity" | "permissions";
  subscriber: string;
  /** Opens a stream to a replica of the source; without an address to whichever process. */
  open: (address?: string) => WatchStream;
  /** Asks the source for a fact, at a replica; `epoch` is aborted when the answer would be worthless. */
  load: (key: string, epoch: AbortSignal, address?: string) => Promise<Fact<V>>;
  /** Is told of an address that is no longer needed. */
  forget?: (address: string) => void;
  /** What the lease is counted on. Tests set it. */
  clock?: () => number;
}

/** The lease of one source and the facts that are usable while it is held. */
export class Lease<V> {
  private readonly follower: Follower;
  private epoch = new AbortController();
  private readonly entries = new Map<string, Entry<V>>();
  private readonly tagged = new Map<string, Set<Entry<V>>>();
  private readonly flights = new Map<string, Flight<V>>();

  constructor(private readonly options: LeaseOptions<V>) {
    this.follower = new Follower({
      ...options,
      invalidate: (tags) => this.invalidate(tags),
      dropAll: () => this.dropAll(),
    });
  }

  /** Whether what is kept may be used now. */
  get held(): boolean {
    return this.follower.held;
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
    this.follower.close();
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
          const { value, tags } = await this.options.load(key, flight.epoch, this.follower.nearest);
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
}
