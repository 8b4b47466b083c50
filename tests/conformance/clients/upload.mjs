// Uploads 3 MiB with Node's http2, three times on one connection, and says how it went. Arguments: proxy's URL, CA file, URL.
import fs from 'node:fs'
import http2 from 'node:http2'
import net from 'node:net'
import tls from 'node:tls'

const [proxy, ca, url] = [new URL(process.argv[2]), fs.readFileSync(process.argv[3]), new URL(process.argv[4])]
const raw = net.connect(Number(proxy.port), proxy.hostname)
raw.write(`CONNECT ${url.hostname}:443 HTTP/1.1\r\nHost: ${url.hostname}:443\r\n\r\n`)
await new Promise((done) => raw.once('data', done))
const secure = tls.connect({ socket: raw, servername: url.hostname, ca, ALPNProtocols: ['h2'] })
await new Promise((done) => secure.once('secureConnect', done))
const session = http2.connect(url.origin, { createConnection: () => secure })

async function upload(more) {
  const stream = session.request({ ':method': 'PUT', ':path': url.pathname, 'content-length': 3 << 20, ...more })
  let [status, body, failed] = [0, '', '']
  stream.on('response', (headers) => { status = headers[':status'] })
  stream.on('data', (data) => { body += data })
  stream.on('error', (error) => { failed = error.message })
  const closed = new Promise((done) => stream.once('close', done))
  if (more.expect) await Promise.race([closed, new Promise((done) => { stream.once('continue', done); stream.once('response', done) })])
  for (let piece = 0; piece < 48 && !stream.destroyed; piece++) {
    if (!stream.write(Buffer.alloc(65536))) await Promise.race([closed, new Promise((done) => stream.once('drain', done))])
  }
  stream.end()
  await closed
  console.log(2, status, body, failed || true)
}

await upload({})
await upload({ expect: '100-continue' })
await upload({})
session.destroy()
