// Follows a source of Latchkey, and each of its replicas if it has several: holds the lease while all of
// them grant it. docs/feed.md has the rules.
import { uptime } from "node:os";
import type { ClientDuplexStream } from "@grpc/grpc-js";

// Milliseconds on a clock that nobody sets and that goes on while the machine is suspended.
// On Linux that is the uptime, which is told in steps of 10 ms and so may be one behind.
const clock = process.platform === "linux" ? () => uptime() * 1000 : () => performance.now();
const behind = 11;

const openTimeout = 5000;
const seekPause = 1000; // for which a list is tried before the seed is asked for another

export interface WatchResponse {
  pong: string;
  leaseDuration: { seconds: string; nanos: number } | null;
  sequence: string;
  tags: string[];
  everything: boolean;
  term: string;
  replicas: { number: string; replicas: Replica[] } | null;
  replicaId: string;
}

export type WatchStream = ClientDuplexStream<object, WatchResponse>;

/** One life of one process of the source. */
export interface Replica {
  id: string;
  address: string;
}

export interface FollowOptions {
  source: string;
  subscriber: string;
  open: (address?: string) => WatchStream;
  forget?: (address: string) => void;
  clock?: () => number;
  invalidate: (tags: string[]) => void;
  dropAll: () => void;
}

// The replicas of a source at some time. The number grows with each change.
interface List {
  number: bigint;
  replicas: Replica[];
}

// The seed is whichever process of the source answers first. A source that keeps no list is the seed alone.
const seed: Replica = { id: "", address: "" };
const alone: List = { number: 0n, replicas: [seed] };

const has = (list: List | undefined, id: string): boolean => list?.replicas.some((r) => r.id === id) ?? false;

// What is known of one replica.
class Feed {
  term = "0"; // of its last stream
  until = 0; // end of its lease by the list that is gone by
  newest = { number: -1n, until: 0 }; // what its newest pong granted, by whatever list
  failures = 0;
  stopped = false;
  session: Session | undefined;
  pause: NodeJS.Timeout | undefined; // until the next stream
  constructor(readonly replica: Replica) {}
}

/** The lease of one source. */
export class Follower {
  readonly now: () => number;
  private until = 0;
  private closed = false;
  private readonly feeds = new Map<string, Feed>(); // by id of the replica; that of the seed is empty
  private list: List | undefined; // gone by; none while nothing is held
  private next: List | undefined; // the newest that was heard of

  constructor(readonly options: FollowOptions) {
    this.now = options.clock ?? clock;
    this.follow(seed);
  }

  /** No timer decides this, only the clock: a process that was frozen finds its lease run out. */
  get held(): boolean {
    return this.now() + behind < this.until;
  }

  /** The address of the replica that answered last, which is likely to answer; none if that is the seed. */
  get nearest(): string | undefined {
    let found: Feed | undefined;
    for (const { id } of this.list?.replicas ?? []) {
      const feed = this.feeds.get(id)!;
      if (!found || feed.until > found.until) found = feed;
    }
    return found?.replica.address || undefined;
  }

  /** Gives the lease back, so that no write waits for it. */
  close(): void {
    this.closed = true;
    this.lose();
    for (const feed of this.feeds.values()) this.stop(feed);
  }

  // Notes a list that a replica tells of. Only who was asked because nothing is held is believed one with a lower number.
  learn(list: List, sought: boolean): void {
    const known = this.next;
    if (known && (list.number === known.number || (list.number < known.number && (!sought || this.held)))) return;
    this.next = list;
    for (const replica of list.replicas) if (!this.feeds.has(replica.id)) this.follow(replica);
    this.weed();
    for (const feed of this.feeds.values()) feed.session?.pingNow();
    this.advance();
  }

  // Notes what the newest pong of a replica grants.
  granted(feed: Feed, number: bigint, until: number): void {
    feed.newest = { number, until };
    feed.failures = 0;
    if (this.list && !this.held) this.lose(); // nothing revives it
    if (this.list?.number !== number || !has(this.list, feed.replica.id)) return this.advance();
    feed.until = until;
    this.renew(this.list);
  }

  // Ends the lease if it rests on a stream that has ended, and opens another stream later.
  ended(feed: Feed, listed: boolean): void {
    feed.session = undefined;
    feed.newest = { number: -1n, until: 0 };
    if (has(this.list, feed.replica.id) && this.feeds.get(feed.replica.id) === feed) this.lose();
    if (feed.stopped || this.closed) return;
    const again = () => {
      const pause = Math.random() * Math.min(1000, 50 * 2 ** feed.failures++);
      feed.pause = setTimeout(() => (feed.session = new Session(this, feed)), pause);
    };
    // The seed is asked again only when the list that it told leads nowhere.
    const seek = () => (feed.pause = setTimeout(() => (this.held ? seek() : again()), seekPause));
    if (listed) seek();
    else again();
  }

  private follow(replica: Replica): void {
    if (this.closed) return;
    const feed = new Feed(replica);
    this.feeds.set(replica.id, feed);
    feed.session = new Session(this, feed);
  }

  private stop(feed: Feed): void {
    feed.stopped = true;
    clearTimeout(feed.pause);
    if (feed.session) feed.session.leave();
    else this.release(feed);
  }

  /** Frees what a stopped replica needed. */
  release(feed: Feed): void {
    const { address } = feed.replica;
    const used = [...this.feeds.values()].some((f) => f.replica.address === address);
    if (feed.stopped && address && !used) this.options.forget?.(address);
  }

  // Stops following who is neither on the list that is gone by nor on the next.
  private weed(): void {
    for (const [id, feed] of this.feeds) {
      if (id === seed.id || has(this.list, id) || has(this.next, id)) continue;
      this.feeds.delete(id);
      this.stop(feed);
    }
  }

  // Goes by the next list, if all on it have granted a lease by it.
  private advance(): void {
    const next = this.next;
    if (!next || next === this.list || next.replicas.length === 0) return;
    const now = this.now() + behind;
    for (const { id } of next.replicas) {
      const newest = this.feeds.get(id)?.newest;
      if (newest?.number !== next.number || now >= newest.until) return;
    }
    // SECURITY: dropped before the new lease counts, so that nothing is used by it that was
    // loaded when a replica which is no longer listened to could change it.
    this.options.dropAll();
    this.list = next;
    for (const { id } of next.replicas) {
      const feed = this.feeds.get(id)!;
      feed.until = feed.newest.until;
    }
    this.weed();
    this.renew(next);
  }

  // The lease lasts as long as the shortest of those of the replicas.
  private renew(list: List): void {
    this.until = Math.min(...list.replicas.map(({ id }) => this.feeds.get(id)!.until));
  }

  private lose(): void {
    this.until = 0; // first, so that nothing is used while the facts go
    this.list = undefined;
    this.options.dropAll();
  }
}

// One stream to a replica.
class Session {
  private readonly stream: WatchStream;
  private ping = 0;
  private answered = 0;
  private acknowledged = 0;
  private sent = 0;
  private over = false; // nothing that still arrives counts
  private lapse: NodeJS.Timeout;
  private next: NodeJS.Timeout | undefined; // ping

  constructor(private readonly follower: Follower, private readonly feed: Feed) {
    this.stream = follower.options.open(feed.replica.address || undefined);
    this.lapse = setTimeout(() => this.end(), openTimeout);
    this.stream.on("data", (m: WatchResponse) => this.hear(m));
    for (const end of ["end", "error"]) {
      this.stream.on(end, () => {
        this.end();
        this.follower.release(this.feed);
      });
    }
    this.sendPing();
  }

  /** Asks for the lease now, unless an answer is due, upon which it is asked for again. */
  pingNow(): void {
    if (!this.over && this.ping === this.answered) this.sendPing();
  }

  /** Ends the stream in order: the source need not wait for the lease. */
  leave(listed = false): void {
    if (!this.settle(listed)) return;
    this.stream.end({ released: true });
    setTimeout(() => this.stream.cancel(), openTimeout).unref();
  }

  private end(): void {
    if (this.settle(false)) this.stream.cancel();
  }

  // Makes what the stream granted count no more, once.
  private settle(listed: boolean): boolean {
    if (this.over) return false;
    this.over = true;
    clearTimeout(this.lapse);
    clearTimeout(this.next);
    this.follower.ended(this.feed, listed);
    return true;
  }

  private sendPing(): void {
    const { source, subscriber } = this.follower.options;
    const first = ++this.ping === 1;
    clearTimeout(this.next);
    this.sent = this.follower.now(); // before it leaves: so the lease ends here before it ends there
    this.stream.write({
      source, subscriber, ping: this.ping, acknowledged: this.acknowledged,
      formerTerm: first ? this.feed.term : "0", followsReplicas: true,
    });
  }

  private hear(m: WatchResponse): void {
    if (this.over) return;
    this.feed.term = m.term;
    if (m.everything) this.follower.options.dropAll();
    this.follower.options.invalidate(m.tags);
    if (Number(m.sequence) > this.acknowledged) {
      this.acknowledged = Number(m.sequence);
      this.stream.write({ acknowledged: this.acknowledged });
    }
    if (m.replicas) {
      const isSeed = this.feed.replica.id === seed.id;
      this.follower.learn({ number: BigInt(m.replicas.number), replicas: m.replicas.replicas }, isSeed);
      if (isSeed) return this.leave(true);
    }
    if (m.pong !== "0" && !this.over) this.renew(m);
  }

  private renew(m: WatchResponse): void {
    if (Number(m.pong) !== this.ping || this.answered === this.ping || !m.leaseDuration) return this.end();
    if (m.replicaId !== this.feed.replica.id) return this.end(); // another than the list says is at the address
    const first = this.answered === 0;
    if (this.feed.replica.id === seed.id) this.follower.learn(alone, true);
    this.answered = this.ping;
    const duration = Number(m.leaseDuration.seconds) * 1000 + m.leaseDuration.nanos / 1e6;
    const until = this.sent + duration;
    const now = this.follower.now();
    if (now + behind >= until || (!first && now + behind >= this.feed.newest.until)) return this.end(); // nothing revives a lease
    clearTimeout(this.lapse);
    this.lapse = setTimeout(() => this.end(), until - now);
    this.next = setTimeout(() => this.pingNow(), Math.max(0, this.sent + duration / 4 - now));
    this.follower.granted(this.feed, BigInt(m.replicas?.number ?? 0), until);
  }
}
