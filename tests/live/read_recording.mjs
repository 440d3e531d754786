// Reads a recording with @mcap/core: node read_recording.mjs FILE PICTURE
// Prints how many messages each channel has, and writes the first picture into PICTURE. Every checksum is checked.
import { open, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";

const require = createRequire(`${process.cwd()}/`);
const { McapIndexedReader, McapStreamReader } = require("@mcap/core");
const { decompress } = require("fzstd");
const protobuf = require("protobufjs");
const descriptor = require("protobufjs/ext/descriptor");

const [file, picture] = process.argv.slice(2);
const handle = await open(file);
const decompressHandlers = { zstd: (data) => decompress(data) };
const readable = {
  size: async () => BigInt((await handle.stat()).size),
  read: async (at, length) => {
    const buffer = new Uint8Array(Number(length));
    await handle.read(buffer, 0, buffer.length, Number(at));
    return buffer;
  },
};

const reader = await McapIndexedReader.Initialize({ readable, decompressHandlers });
const counts = {};
let shown = false;
for await (const message of reader.readMessages({ validateCrcs: true })) {
  const channel = reader.channelsById.get(message.channelId);
  const schema = reader.schemasById.get(channel.schemaId);
  counts[channel.topic] = (counts[channel.topic] ?? 0) + 1;
  if (channel.messageEncoding === "json") {
    JSON.parse(new TextDecoder().decode(message.data));
  } else {
    const set = descriptor.FileDescriptorSet.decode(schema.data);
    const type = protobuf.Root.fromDescriptor(set).lookupType(schema.name);
    const decoded = type.decode(message.data);
    if (schema.name === "foxglove.CompressedImage" && !shown) {
      await writeFile(picture, decoded.data);
      shown = true;
    }
  }
}

const stream = new McapStreamReader({ decompressHandlers, validateCrcs: true });
stream.append(await readable.read(0n, await readable.size()));
let streamed = 0;
for (let record; (record = stream.nextRecord()); ) {
  streamed += record.type === "Message" ? 1 : 0;
}
await handle.close();
console.log(JSON.stringify({ counts, streamed, done: stream.done(), profile: reader.header.profile }));
