// Puts an object and prints it: `node client.mjs fetch|sdk BASE BUCKET KEY TEXT`. All else is in the environment.
import { EnvHttpProxyAgent, setGlobalDispatcher } from "undici";

const [kind, base, bucket, key, text] = process.argv.slice(2);
const [major, minor] = process.versions.node.split(".").map(Number);
// Node.js reads the proxy variables itself from 22.21 and 24 on, where NODE_USE_ENV_PROXY says so.
const knows = major >= 24 || (major === 22 && minor >= 21);

async function byFetch() {
  if (!knows) setGlobalDispatcher(new EnvHttpProxyAgent());
  const url = `${base}/${bucket}/${key}`;
  const put = await fetch(url, { method: "PUT", body: text });
  if (!put.ok) throw new Error(`${put.status} ${await put.text()}`);
  const got = await fetch(url);
  return await got.text();
}

async function bySdk() {
  const { GetObjectCommand, PutObjectCommand, S3Client } = await import("@aws-sdk/client-s3");
  const { NodeHttpHandler } = await import("@smithy/node-http-handler");
  const { ProxyAgent } = await import("proxy-agent");
  // The SDK makes agents of its own, that look at no variable, whatever the version of Node.js.
  const agent = new ProxyAgent();
  const client = new S3Client({
    forcePathStyle: true,
    maxAttempts: 1,
    requestHandler: new NodeHttpHandler({ httpAgent: agent, httpsAgent: agent }),
  });
  await client.send(new PutObjectCommand({ Bucket: bucket, Key: key, Body: text }));
  const got = await client.send(new GetObjectCommand({ Bucket: bucket, Key: key }));
  return await got.Body.transformToString();
}

// A variable, AWS_ENDPOINT_URL_S3, tells the SDK of an endpoint.
console.log(await (kind === "fetch" ? byFetch() : bySdk()));
process.exit(0);
