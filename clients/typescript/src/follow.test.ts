// Tests of how several replicas are followed, each of which does exactly what the test says.
import assert from "node:assert/strict";
import { EventEmitter, once } from "node:events";
import { test } from "node:test";
import { FakeStream, hour } from "./fake.js";
import { Follower, Replica, WatchStream } from "./follow.js";

class Group extends EventEmitter {
  time = 1000;
  streams = new Map<string, FakeStream>(); // the newest by address; that of the seed is empty
  forgotten: string[] = [];
  drops = 0;
  follower = new Follower({
    source: "permissions",
    subscriber: "test",
    clock: () => this.time,
    open: (address = "") => {
      const stream = new FakeStream();
      this.streams.set(address, stream);
      queueMicrotask(() => this.emit("opened", address));
      return stream as unknown as WatchStream;
    },
    forget: (address) => this.forgotten.push(address),
    invalidate: () => {},
    dropAll: () => this.drops++,
  });
  at(address: string): FakeStream {
    return this.streams.get(address)!;
  }
  // The replica at an address answers a ping, and names a list.
  pong(address: string, number: number, lives: string[], id = lives.find((l) => addressOf(l) === address)): void {
    const stream = this.at(address);
    stream.pong(stream.sent.filter((m) => m.ping).at(-1).ping, { replicas: listOf(number, lives), replicaId: id });
  }
}

// A life is named after its address: "a1" is the first at a.
const addressOf = (life: string): string => life[0]!;
const listOf = (number: number, lives: string[]) => ({
  number: `${number}`, replicas: lives.map((id): Replica => ({ id, address: addressOf(id) })),
});

async function within(test: (group: Group) => void | Promise<void>): Promise<void> {
  const group = new Group();
  try {
    await test(group);
  } finally {
    group.follower.close();
  }
}

// Two replicas grant the lease.
function held(group: Group): void {
  group.at("").tell({ replicas: listOf(1, ["a1", "b1"]), replicaId: "a1" });
  group.pong("a", 1, ["a1", "b1"]);
  group.pong("b", 1, ["a1", "b1"]);
  assert.equal(group.follower.held, true);
}

test("the lease is held when each replica on the list grants it", () => within((group) => {
  group.at("").pong(1, { replicas: listOf(1, ["a1", "b1"]), replicaId: "a1" });
  assert.deepEqual(group.at("").sent.at(-1), { released: true });
  group.pong("a", 1, ["a1", "b1"]);
  assert.equal(group.follower.held, false);
  group.pong("b", 1, ["a1", "b1"]);
  assert.equal(group.follower.held, true);
  assert.notEqual(group.follower.nearest, undefined);
}));

test("the lease lasts as long as the shortest", () => within((group) => {
  group.at("").tell({ replicas: listOf(1, ["a1", "b1"]), replicaId: "a1" });
  group.time += hour / 2;
  group.pong("a", 1, ["a1", "b1"]);
  group.pong("b", 1, ["a1", "b1"]);
  group.time = 1000 + hour - 12;
  assert.equal(group.follower.held, true);
  group.time = 1000 + hour;
  assert.equal(group.follower.held, false);
}));

test("when the stream to one replica ends everything is dropped", () => within((group) => {
  held(group);
  const before = group.drops;
  group.at("b").emit("error", new Error("cut"));
  assert.equal(group.follower.held, false);
  assert.equal(group.drops, before + 1);
  group.at("a").tell({ sequence: "2" });
  assert.equal(group.follower.held, false);
}));

test("a pong that names another list prolongs nothing, until all name it", () => within((group) => {
  held(group);
  const before = group.drops;
  const pings = group.at("a").sent.length;
  group.time += hour / 2;
  group.at("a").tell({ replicas: listOf(2, ["a1", "b1", "c1"]), replicaId: "a1" });
  assert.equal(group.at("a").sent.length, pings + 1, "it asks at once for a lease by the new list");
  group.pong("a", 2, ["a1", "b1", "c1"]);
  group.pong("b", 2, ["a1", "b1", "c1"]);
  assert.equal(group.drops, before);
  group.time = 1000 + hour;
  assert.equal(group.follower.held, false);
  group.pong("c", 2, ["a1", "b1", "c1"]);
  assert.equal(group.follower.held, true);
  assert.ok(group.drops > before);
}));

test("who was taken off the list is left in order, and his address forgotten", () => within((group) => {
  held(group);
  group.at("a").tell({ replicas: listOf(2, ["a1"]), replicaId: "a1" });
  assert.equal(group.follower.held, true);
  group.pong("a", 2, ["a1"]);
  assert.equal(group.follower.held, true);
  assert.deepEqual(group.at("b").sent.at(-1), { released: true });
  group.at("b").emit("end");
  assert.deepEqual(group.forgotten, ["b"]);
}));

test("another life at the address of a replica is not taken for it", () => within((group) => {
  held(group);
  group.at("b").sent.push({ ping: 1 });
  group.pong("b", 1, ["a1", "b1"], "b2");
  assert.equal(group.at("b").cancelled, true);
  assert.equal(group.follower.held, false);
}));

test("the next life of a replica takes its place", () => within((group) => {
  held(group);
  group.at("b").emit("error", new Error("killed"));
  const opened = once(group, "opened");
  group.at("a").tell({ replicas: listOf(2, ["a1", "b2"]), replicaId: "a1" });
  group.pong("a", 2, ["a1", "b2"]);
  assert.equal(group.follower.held, false);
  return opened.then(() => {
    group.pong("b", 2, ["a1", "b2"]);
    assert.equal(group.follower.held, true);
  });
}));

test("a lower number is believed only of the seed, and only while nothing is held", () => within((group) => {
  held(group);
  group.at("a").tell({ replicas: listOf(0, ["c1"]), replicaId: "a1" });
  assert.equal(group.streams.has("c"), false);
  assert.equal(group.follower.held, true);
}));
