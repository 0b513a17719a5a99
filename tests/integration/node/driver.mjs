// What an application in Node does with ClickHouse: asserts throughout, prints "done" at the end.
import assert from 'node:assert/strict'
import { Readable } from 'node:stream'
import { createClient } from '@clickhouse/client'

const client = createClient({
  url: process.argv[2],
  compression: { request: true, response: true },
  clickhouse_settings: { date_time_output_format: 'iso' },
})

assert.equal((await client.ping()).success, true)
await client.command({ query: 'DROP TABLE IF EXISTS node' })
await client.command({ query: 'CREATE TABLE node (id UInt32, at DateTime64(3)) ENGINE = MergeTree ORDER BY id' })

const inserted = await client.insert({
  table: 'node',
  values: [{ id: 1, at: '2026-09-01 10:00:00.123' }, { id: 2, at: '2026-09-01 10:00:01.000' }],
  format: 'JSONEachRow',
  query_id: 'node-insert',
})
assert.equal(inserted.query_id, 'node-insert')
assert.equal(inserted.summary.written_rows, '2')

await client.insert({
  table: 'node',
  values: Readable.from((function* () { for (let id = 3; id <= 20002; id++) yield { id, at: 0 } })(), { objectMode: true }),
  format: 'JSONEachRow',
})

const rows = await (
  await client.query({
    query: 'SELECT id, at FROM node WHERE id <= {most: UInt32} ORDER BY id',
    query_params: { most: 2 },
    format: 'JSONEachRow',
  })
).json()
assert.deepEqual(rows[0], { id: 1, at: '2026-09-01T10:00:00.123Z' })

const whole = await (await client.query({ query: 'SELECT count() AS n FROM node', format: 'JSON' })).json()
assert.equal(Number(whole.data[0].n), 20002)
assert.equal(whole.rows, 1)

let streamed = 0
const stream = (await client.query({ query: 'SELECT * FROM numbers(300000)', format: 'JSONCompactEachRow' })).stream()
for await (const part of stream) streamed += part.length
assert.equal(streamed, 300000)

await assert.rejects(client.query({ query: 'SELECT * FROM nope' }), { code: '60', type: 'UNKNOWN_TABLE' })

const controller = new AbortController()
const aborted = client.query({ query: 'SELECT sleep(3)', abort_signal: controller.signal })
controller.abort()
await assert.rejects(aborted)

await client.command({ query: 'DROP TABLE node' })
await client.close()
console.log('done')
