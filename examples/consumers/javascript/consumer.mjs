// Read a topic with @platformatic/kafka: node consumer.mjs BOOTSTRAP TOPIC GROUP DIRECTORY
//
// The work stands for yours: it creates a file named by the event's id. A file that exists is not created again, so an
// event that is delivered again is worked on once.
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import {
  Consumer, FetchIsolationLevels, MessagesStreamFallbackModes, MessagesStreamModes, stringDeserializers
} from '@platformatic/kafka'

const [bootstrap, topic, groupId, directory] = process.argv.slice(2)

async function work(message) {
  const id = message.headers.get('ce_id')
  try {
    await writeFile(join(directory, id), '', { flag: 'wx' })
  } catch (error) {
    if (error.code === 'EEXIST') return
    throw error
  }
  console.log(`done ${id}`)
}

const consumer = new Consumer({
  clientId: groupId, groupId, bootstrapBrokers: [bootstrap], sessionTimeout: 10_000, rebalanceTimeout: 20_000,
  isolationLevel: FetchIsolationLevels.READ_COMMITTED, deserializers: stringDeserializers
})
const stream = await consumer.consume({
  topics: [topic], autocommit: false, maxWaitTime: 500,
  mode: MessagesStreamModes.COMMITTED, fallbackMode: MessagesStreamFallbackModes.EARLIEST
})
for (const signal of ['SIGTERM', 'SIGINT']) process.once(signal, () => stream.close())
for await (const message of stream) {
  await work(message)
  await message.commit() // if the partition has moved, its events are delivered again, to its new consumer
}
await consumer.close()
