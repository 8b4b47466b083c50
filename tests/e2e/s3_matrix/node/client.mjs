// A client of S3: `node client.mjs BUCKET`. Prints what every step of it came to, a line each: step, tab, result.
// All else is in the environment: keys, region, proxy, and S3_MATRIX_BASE, the endpoint's URL.
import { createHash } from "node:crypto";
import { Readable } from "node:stream";
import * as s3 from "@aws-sdk/client-s3";
import { Upload } from "@aws-sdk/lib-storage";
import { NodeHttpHandler } from "@smithy/node-http-handler";
import { ProxyAgent } from "proxy-agent";

const Bucket = process.argv[2];
const [small, medium, large, part] = [1000, 300_000, (6 << 20) + 5, 5 << 20];
const odd = "a b+c%25/é日/*'()!~&=?#.txt";

// The same bytes in every client.
const pattern = Buffer.from(Array.from({ length: 65521 }, (_, i) => (i * 31 + (i >> 8) * 17) & 255));
const bytesOf = (size) => Buffer.alloc(size, pattern);

const agent = new ProxyAgent();
const client = new s3.S3Client({
  endpoint: process.env.S3_MATRIX_BASE,
  forcePathStyle: true,
  maxAttempts: 1,
  requestHandler: new NodeHttpHandler({ httpAgent: agent, httpsAgent: agent }),
});

async function step(name, doing) {
  let result;
  try {
    result = await doing();
  } catch (error) {
    result = `error ${error.name === "Error" ? error.message : error.name}`;
  }
  console.log(`${name}\t${result ?? ""}`);
}

async function digest(body) {
  const bytes = Buffer.from(await body.transformToByteArray());
  return `${bytes.length} ${createHash("sha256").update(bytes).digest("hex").slice(0, 16)}`;
}

const put = (name, Key, Body, more = {}) =>
  step(name, async () => (await client.send(new s3.PutObjectCommand({ Bucket, Key, Body, ...more }))).ETag);

await put("put empty", "empty", "");
await put("put small", "small", bytesOf(small), { ContentType: "text/x-small", CacheControl: "max-age=5", Metadata: { colour: "blue  green" } });
await put("put encoded", "encoded", bytesOf(small), { ContentEncoding: "gzip" });
await put("put medium", "medium", bytesOf(medium));
await put("put a stream", "stream", Readable.from([bytesOf(medium)]), { ContentLength: medium });
await put("put odd", odd, bytesOf(small));
for (const ChecksumAlgorithm of ["CRC32C", "SHA1", "SHA256"]) {
  await put(`put ${ChecksumAlgorithm}`, ChecksumAlgorithm, Readable.from([bytesOf(medium)]), { ChecksumAlgorithm, ContentLength: medium });
}
await put("put if there is none", "small", "other", { IfNoneMatch: "*" });
await put("put a wrong checksum", "wrong", bytesOf(small), { ChecksumCRC32: "AAAAAA==" });
for (const [name, size] of [["medium", medium], ["large", large]]) {
  await step(`upload ${name}`, async () => {
    const params = { Bucket, Key: `up/${name}`, Body: Readable.from([bytesOf(size)]) };
    return (await new Upload({ client, params, partSize: part, queueSize: 2 }).done()).ETag;
  });
}

for (const Key of ["empty", "small", "encoded", "medium", "stream", odd, "CRC32C", "SHA1", "SHA256", "up/medium", "up/large", "none"]) {
  await step(`head ${Key}`, async () => {
    const head = await client.send(new s3.HeadObjectCommand({ Bucket, Key, ChecksumMode: "ENABLED" }));
    const sums = [head.ChecksumCRC32, head.ChecksumCRC32C, head.ChecksumSHA1, head.ChecksumSHA256, head.ChecksumCRC64NVME];
    const { ContentLength, ETag, ContentType, ContentEncoding, CacheControl, Metadata } = head;
    return JSON.stringify([ContentLength, ETag, ContentType, ContentEncoding, CacheControl, Metadata, sums]);
  });
  await step(`get ${Key}`, async () => digest((await client.send(new s3.GetObjectCommand({ Bucket, Key }))).Body));
}
for (const [name, more] of [
  ["get a range", { Range: "bytes=100-299" }],
  ["get the end", { Range: "bytes=-7" }],
  ["get beyond", { Range: "bytes=900000-" }],
  ["get if it matches", { IfMatch: '"no"' }],
]) {
  await step(name, async () => {
    const got = await client.send(new s3.GetObjectCommand({ Bucket, Key: "medium", ...more }));
    return `${got.ContentRange} ${await digest(got.Body)}`;
  });
}
await step("copy", async () => (await client.send(new s3.CopyObjectCommand({ Bucket, Key: "copy", CopySource: `${Bucket}/small` }))).CopyObjectResult.ETag);
await step("tag", async () => {
  await client.send(new s3.PutObjectTaggingCommand({ Bucket, Key: "small", Tagging: { TagSet: [{ Key: "a", Value: "b c+d" }] } }));
});
await step("tags", async () => JSON.stringify((await client.send(new s3.GetObjectTaggingCommand({ Bucket, Key: "small" }))).TagSet));

const list = (name, more = {}) =>
  step(name, async () => {
    const found = [];
    for await (const page of s3.paginateListObjectsV2({ client }, { Bucket, ...more })) {
      found.push(...(page.Contents ?? []).map((object) => `${object.Key}:${object.Size}`));
      found.push(...(page.CommonPrefixes ?? []).map((prefix) => prefix.Prefix));
    }
    return found.sort().join("|");
  });
await list("list");
await list("list by twos", { MaxKeys: 2 });
await list("list folders", { Delimiter: "/" });
await list("list a prefix", { Prefix: "a b+c%25/" });
await step("delete many", async () => {
  const Objects = ["empty", odd, "SHA1"].map((Key) => ({ Key }));
  const gone = await client.send(new s3.DeleteObjectsCommand({ Bucket, Delete: { Objects } }));
  return `${gone.Deleted?.length} ${gone.Errors?.length}`;
});
await step("delete", async () => {
  await client.send(new s3.DeleteObjectCommand({ Bucket, Key: "copy" }));
});
await list("list the rest");
process.exit(0);
