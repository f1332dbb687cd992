// Tests of the lease by a source that does exactly what the test says, on the test's own clock.
import assert from "node:assert/strict";
import { EventEmitter, once } from "node:events";
import { test } from "node:test";
import { FakeStream, hour } from "./fake.js";
import type { WatchStream } from "./follow.js";
import { Fact, Lease, Unavailable } from "./lease.js";

class Source extends EventEmitter {
  time = 1000;
  streams: FakeStream[] = [];
  loads: { resolve: (fact: Fact<string>) => void; epoch: AbortSignal }[] = [];
  lease: Lease<string>;
  constructor() {
    super();
    const open = () => {
      const stream = new FakeStream();
      this.streams.push(stream);
      queueMicrotask(() => this.emit("opened"));
      return stream as unknown as WatchStream;
    };
    const load = (_: string, epoch: AbortSignal) =>
      new Promise<Fact<string>>((resolve) => {
        this.loads.push({ resolve, epoch });
        this.emit("load");
      });
    this.lease = new Lease({ source: "permissions", subscriber: "test", open, load, clock: () => this.time });
  }
  get stream(): FakeStream {
    return this.streams[this.streams.length - 1]!;
  }
  answer(value: string): void {
    this.loads[this.loads.length - 1]!.resolve({ value, tags: ["user:a"] });
  }
  async get(value: string) {
    const entry = this.lease.get("a");
    this.answer(value);
    return await entry;
  }
}

function held(): Source {
  const source = new Source();
  source.stream.pong(1);
  return source;
}

async function within(test: (source: Source) => Promise<void>, source = held()): Promise<void> {
  try {
    await test(source);
  } finally {
    source.lease.close();
  }
}

test("a fact is loaded once, and again after an invalidation of its tag", () => within(async (source) => {
  assert.equal((await source.get("old")).value, "old");
  assert.equal((await source.lease.get("a")).value, "old");
  source.stream.tell({ sequence: "2", tags: ["user:b"] });
  assert.equal((await source.lease.get("a")).value, "old");
  source.stream.tell({ sequence: "3", tags: ["user:a"] });
  assert.equal((await source.get("new")).value, "new");
  assert.equal(source.loads.length, 2);
}));

for (const [what, message] of Object.entries({ "its tag": { tags: ["user:a"] }, everything: { everything: true } })) {
  test(`a load that an invalidation of ${what} overtakes is repeated`, () => within(async (source) => {
    const entry = source.lease.get("a");
    source.stream.tell({ sequence: "2", ...message });
    assert.deepEqual(source.stream.sent.at(-1), { acknowledged: 2 });
    const again = once(source, "load");
    source.answer("old");
    await again;
    source.answer("new");
    assert.equal((await entry).value, "new");
  }));
}

test("an invalidation is acknowledged after the facts were dropped", () => within(async (source) => {
  const entry = await source.get("old");
  let dropped: boolean | undefined;
  source.stream.heard = () => (dropped = entry.dropped);
  source.stream.tell({ sequence: "2", tags: ["user:a"] });
  assert.equal(dropped, true);
}));

test("the lease is counted from when the ping was sent, and ends by the clock alone", () => within(async (source) => {
  source.time += hour / 2;
  source.stream.pong(1);
  const entry = await source.get("old");
  source.time = 1000 + hour - 12;
  assert.equal(entry.valid, true);
  source.time = 1000 + hour;
  assert.equal(entry.valid, false);
  await assert.rejects(source.lease.get("a"), Unavailable);
}, new Source()));

test("a pong that comes when the lease has run out revives nothing", () => within(async (source) => {
  source.time += hour;
  source.stream.pong(1);
  assert.equal(source.lease.held, false);
  assert.equal(source.stream.cancelled, true);
}, new Source()));

test("a pong to no ping ends the stream", () => within(async (source) => {
  source.stream.pong(1);
  assert.equal(source.stream.cancelled, true);
  assert.equal(source.lease.held, false);
}));

test("when the stream ends everything is dropped, and the next one says so", () => within(async (source) => {
  const entry = await source.get("old");
  const under = source.lease.get("b");
  const opened = once(source, "opened");
  source.stream.emit("error", new Error("cut"));
  assert.equal(entry.dropped, true);
  assert.equal(source.lease.held, false);
  assert.equal(source.loads.at(-1)!.epoch.aborted, true);
  source.answer("old");
  await assert.rejects(under, Unavailable);
  await opened;
  assert.deepEqual(source.stream.sent, [
    { source: "permissions", subscriber: "test", ping: 1, acknowledged: 0, formerTerm: "18446744073709551557", followsReplicas: true },
  ]);
  source.stream.pong(1);
  assert.equal(entry.valid, false);
  assert.equal((await source.get("new")).value, "new");
}));

test("who leaves drops everything and then says so", () => within(async (source) => {
  const entry = await source.get("old");
  let valid: boolean | undefined;
  source.stream.heard = () => (valid = entry.valid);
  source.lease.close();
  assert.equal(valid, false);
  assert.deepEqual(source.stream.sent.at(-1), { released: true });
}));
