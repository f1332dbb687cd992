// A source that does exactly what a test says.
import { EventEmitter } from "node:events";

export const hour = 3_600_000; // the lease: so long that no timer of the lease fires within a test

export class FakeStream extends EventEmitter {
  sent: any[] = [];
  cancelled = false;
  heard: (message: any) => void = () => {};
  write(message: any): void {
    this.sent.push(message);
    this.heard(message);
  }
  end(message: any): void {
    this.write(message);
  }
  cancel(): void {
    this.cancelled = true;
  }
  tell(message: object): void {
    this.emit("data", { pong: "0", leaseDuration: null, sequence: "1", tags: [], everything: false, term: "18446744073709551557", replicas: null, replicaId: "", ...message });
  }
  pong(ping: number, more: object = {}): void {
    this.tell({ pong: `${ping}`, leaseDuration: { seconds: "3600", nanos: 0 }, ...more });
  }
}
