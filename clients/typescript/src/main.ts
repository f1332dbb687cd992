// Answers checks over stdin and stdout, a line each: "7 TOKEN Invoices:Void" is answered "7 allow".
// A call that names an organization is "7 TOKEN@ORGANIZATION Invoices:Void".
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import * as grpc from "@grpc/grpc-js";
import { Latchkey } from "./latchkey.js";

const repository = fileURLToPath(new URL("../../..", import.meta.url));

function env(name: string): string {
  const value = process.env[name];
  if (!value) throw new Error(`set ${name}`);
  return value;
}

// The suite's own certificates: its authority's, and this program's by `latchkey certs FOLDER typescript-client`.
const [ca, cert, key] = ["LATCHKEY_TLS_CA", "LATCHKEY_PEER_CERT", "LATCHKEY_PEER_KEY"].map((name) => process.env[name]);
const read = (file: string | undefined) => (file ? readFileSync(file) : null);
const serverName = process.env["LATCHKEY_SERVER_NAME"];
const latchkey = new Latchkey({
  identity: env("LATCHKEY_IDENTITY"),
  permissions: env("LATCHKEY_PERMISSIONS"),
  serviceKey: env("LATCHKEY_SERVICE_KEY"),
  name: "typescript-client",
  credentials: ca ? grpc.credentials.createSsl(read(ca), read(key), read(cert)) : grpc.credentials.createInsecure(),
  ...(serverName ? { serverName } : {}),
  protos: [`${repository}/proto`, `${repository}/.tools/protovalidate`],
  catalog: `${repository}/services/internal/catalog`,
});

const lines = createInterface({ input: process.stdin });
lines.on("line", async (line) => {
  const [id, caller = "", ...grant] = line.split(" ");
  const [token = "", organization = ""] = caller.split("@");
  const answer = await latchkey.check(token, grant.join(" "), organization).catch((err) => `error: ${err.message}`);
  process.stdout.write(`${id} ${answer}\n`);
});
lines.on("close", () => latchkey.close());
