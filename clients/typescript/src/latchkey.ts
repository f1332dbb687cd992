// Decides whether the holder of a token may do something, as every service of Latchkey does.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import * as grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import type { WatchStream } from "./follow.js";
import { Entry, Fact, Lease, Unavailable } from "./lease.js";

export type Answer = "allow" | "deny" | "unavailable";

export interface Options {
  /**
   * Where the services identity and permissions listen: "host:port", or a name or a list that leads to all
   * their replicas, "dns:///identity:8480" or "ipv4:10.0.0.1:8480,10.0.0.2:8480".
   */
  identity: string;
  permissions: string;
  /** The secret that the suite's processes share. */
  serviceKey: string;
  /** The name under which the suite knows this program. */
  name: string;
  /** Only on loopback other than grpc.credentials.createSsl(). */
  credentials: grpc.ChannelCredentials;
  /** The name in the certificates, where that is not the host that is connected to, as with replicas. */
  serverName?: string;
  /** Folders with Latchkey's .proto files and with protovalidate's. */
  protos: string[];
  /** Folder with catalog.tsv, settings.tsv and features.tsv. */
  catalog: string;
}

interface Session { organization: string; user: string; actor?: string; surface: string; expires: number; scopes?: Uint8Array }
interface Grants { set: Uint8Array; expires: number }

const patience = 500; // milliseconds for which a lease is waited for
const loadTimeout = 5000;
const settings = 264; // the bit after those of the keys
const maxTries = 3; // of a check whose facts change meanwhile

class Denied extends Error {}

export class Latchkey {
  private readonly bits: Map<string, number>;
  private readonly clients = new Map<string, grpc.Client>(); // by service and address
  private readonly sessions: Lease<Session>;
  private readonly grants: Lease<Grants>;

  constructor(private readonly options: Options) {
    this.bits = readCatalog(options.catalog);
    const files = ["lease/v1/lease", "identity/v1/session", "permissions/v1/grant"].map((f) => `latchkey/${f}.proto`);
    const api = (grpc.loadPackageDefinition(loadSync(files, { includeDirs: options.protos, longs: String, enums: String, defaults: true })) as any).latchkey;
    const channel: grpc.ChannelOptions = {
      "grpc.initial_reconnect_backoff_ms": 100, "grpc.max_reconnect_backoff_ms": 1000, "grpc.keepalive_time_ms": 20_000, "grpc.keepalive_timeout_ms": 5000,
      "grpc.service_config": JSON.stringify({ loadBalancingConfig: [{ round_robin: {} }] }), // or one that hangs is asked for ever
    };
    if (options.serverName) channel["grpc.ssl_target_name_override"] = options.serverName;
    const client = (address: string, name: string, service: any) => {
      const key = `${address} ${name}`;
      let known: any = this.clients.get(key);
      if (!known) this.clients.set(key, (known = new service(address, options.credentials, channel)));
      return known;
    };
    const lease = <V>(source: "identity" | "permissions", asks: any, load: (client: any, key: string, epoch: AbortSignal) => Promise<Fact<V>>) =>
      new Lease<V>({
        source,
        subscriber: options.name,
        load: (key, epoch, address = options[source]) => load(client(address, source, asks), key, epoch),
        open: (address = options[source]): WatchStream => client(address, `feed of ${source}`, api.lease.v1.LeaseService).Watch(this.metadata("")),
        forget: (address) => this.forget(address, source),
      });
    this.sessions = lease("identity", api.identity.v1.SessionService, async (client, key, epoch) => {
      const [hash = "", named = ""] = key.split("/");
      const request = { tokenHash: Buffer.from(hash, "hex"), organizationId: named };
      const { session } = await this.call(client, "ResolveSession", "", request, epoch).catch((err) => {
        throw err.code === grpc.status.UNAUTHENTICATED ? new Denied() : err;
      });
      const { sessionId, userId, organizationId, surface, expireTime, actorId, actorSessionId, scopes, onlyMethod } = session;
      if (onlyMethod) throw new Denied(); // it is for one method of the suite
      if (scopes && scopes.length !== 40) throw new Error(`a set of scopes has 40 bytes, not ${scopes.length}`);
      const value = { organization: organizationId, user: userId, surface, expires: millis(expireTime), ...(scopes && { scopes }), ...(actorId && { actor: actorId }) };
      const tags = [`session:${sessionId}`, `user:${userId}`, `organization:${organizationId}`];
      if (actorId) tags.push(`session:${actorSessionId}`, `user:${actorId}`);
      return { value, tags };
    });
    this.grants = lease("permissions", api.permissions.v1.GrantService, async (client, key, epoch) => {
      const [organization = "", userId] = key.split("/");
      const { grants, expireTime } = await this.call(client, "ResolveGrants", organization, { userId }, epoch);
      if (grants.length !== 40) throw new Error(`a set of grants has 40 bytes, not ${grants.length}`);
      return { value: { set: grants, expires: expireTime ? millis(expireTime) : Infinity }, tags: [`organization:${organization}`, `user:${key}`] };
    });
  }

  /**
   * Tells whether the holder of a token has a grant: "Invoices:Void", "setting:see_pricing",
   * "feature:routing". What it allows was allowed at some moment since it was called. The
   * organization is the one that the call names (latchkey-organization), if it names one.
   */
  async check(token: string, grant: string, organization = ""): Promise<Answer> {
    const bit = this.bits.get(grant);
    if (bit === undefined) throw new Error(`${JSON.stringify(grant)} is not a grant of the catalog`);
    if (!/^[a-z0-9]{1,7}_[0-9A-Za-z]{49}$/.test(token)) return "deny";
    if (!/^([0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})?$/.test(organization)) return "deny";
    const key = `${createHash("sha256").update(token).digest("hex")}/${organization}`;
    try {
      const patient = performance.now() + patience;
      while (!(this.sessions.held && this.grants.held) && performance.now() < patient) await sleep(10);
      for (let i = 0; i < maxTries; i++) {
        const session = await this.sessions.get(key);
        const { organization, user, actor, expires } = session.value;
        if (expires <= Date.now()) return "deny";
        const grants = await this.grantsOf(`${organization}/${user}`);
        const actors = actor ? await this.grantsOf(`${organization}/${actor}`) : undefined;
        // SECURITY: nothing is waited for between this look and the answer.
        if (session.valid && grants.valid && (!actors || actors.valid)) {
          return this.decide(session.value, bit, grants.value.set, actors?.value.set) ? "allow" : "deny";
        }
      }
    } catch (err) {
      if (err instanceof Denied) return "deny";
      if (!(err instanceof Unavailable)) console.error(`latchkey: ${err}`);
    }
    return "unavailable";
  }

  close(): void {
    this.sessions.close();
    this.grants.close();
    for (const client of this.clients.values()) client.close();
  }

  private forget(address: string, source: string): void {
    for (const key of [`${address} ${source}`, `${address} feed of ${source}`]) {
      this.clients.get(key)?.close();
      this.clients.delete(key);
    }
  }

  private async grantsOf(holder: string): Promise<Entry<Grants>> {
    const grants = await this.grants.get(holder);
    if (grants.value.expires > Date.now()) return grants;
    this.grants.drop(grants); // what the source says anew counts, whatever our clock says
    return this.grants.get(holder);
  }

  private decide({ surface, scopes }: Session, bit: number, set: Uint8Array, actors?: Uint8Array): boolean {
    const inSet = (s: Uint8Array, n: number) => ((s[n >> 3] ?? 0) >> (n & 7)) % 2 === 1;
    // SECURITY: a session with scopes carries no other keys, whatever its user holds.
    const carried = (n: number) => inSet(set, n) && (n >= settings || !scopes || inSet(scopes, n));
    // SECURITY: nobody does in another's name what he may not do in his own, nor sees its price.
    const pricing = this.bits.get("setting:see_pricing");
    const acts = (n: number) => !actors || inSet(actors, n) || (n >= settings && n !== pricing);
    const has = (n: number | undefined) => n !== undefined && carried(n) && acts(n);
    if (actors && !inSet(actors, this.bits.get("User: Impersonation") ?? 0)) return false;
    if (surface === "SURFACE_WEB" && !has(this.bits.get("Web"))) return false;
    if (surface === "SURFACE_APP" && !has(this.bits.get("App"))) return false;
    if (surface === "SURFACE_API" && !scopes && !has(this.bits.get("App"))) return false;
    return has(bit);
  }

  private metadata(tenant: string): grpc.Metadata {
    const md = new grpc.Metadata();
    md.set("latchkey-service", this.options.name);
    md.set("latchkey-service-key", this.options.serviceKey);
    if (tenant) md.set("latchkey-tenant", tenant);
    return md;
  }

  private call(client: any, method: string, tenant: string, request: object, epoch: AbortSignal): Promise<any> {
    return new Promise((resolve, reject) => {
      const options = { deadline: Date.now() + loadTimeout };
      const call = client[method](request, this.metadata(tenant), options, (err: grpc.ServiceError | null, answer: unknown) => {
        epoch.removeEventListener("abort", cancel);
        if (err) reject(err);
        else resolve(answer);
      });
      const cancel = () => call.cancel();
      epoch.addEventListener("abort", cancel);
    });
  }
}

const millis = (t: { seconds: string; nanos: number }): number => Number(t.seconds) * 1000 + t.nanos / 1e6;

// Returns the bit of each grant by its name: key n is bit n, boolean setting n is bit 264+n, feature n is bit 288+n.
function readCatalog(folder: string): Map<string, number> {
  const bits = new Map<string, number>();
  const read = (file: string, prefix: string, base: number) => {
    const [head = [], ...rows] = readFileSync(`${folder}/${file}`, "utf8").trimEnd().split("\n").map((line) => line.split("\t"));
    for (const row of rows) {
      const kind = row[head.indexOf("kind")];
      if (kind === undefined || kind === "bool") bits.set(prefix + row[1], base + Number(row[0]));
    }
  };
  read("catalog.tsv", "", 0);
  read("settings.tsv", "setting:", 264);
  read("features.tsv", "feature:", 288);
  return bits;
}
